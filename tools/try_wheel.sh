#!/usr/bin/env bash
# Try a wheel: look into it, install it into an empty environment, train a small study there.
#
#     tools/try_wheel.sh dist/millstream-0.2.0-py3-none-any.whl
#
# Needs .venv of the repository, for its pip and its Python.
set -euo pipefail
wheel=$(realpath "$1")
root=$(realpath "$(dirname "$0")/..")
python=$root/.venv/bin/python
empty=$(mktemp -d)
trap 'rm -rf "$empty"' EXIT

# What it holds: every module of the packages that declare their types, and nothing else.
files=$("$python" -m zipfile -l "$wheel" | awk 'NR > 1 {print $1}' | grep -v '^millstream-[^/]*\.dist-info/' | sort)
packages=$(cd "$root" && git ls-files '*/py.typed' | xargs -n 1 dirname)
expected=$(cd "$root" && for package in $packages; do
    git ls-files "$package/*.py" "$package/py.typed"
done | sort)
diff <(echo "$expected") <(echo "$files") || { echo "the wheel does not hold what it should"; exit 1; }

"$python" -m venv --without-pip "$empty/venv"
"$python" -m pip --python "$empty/venv/bin/python" install --quiet --no-compile --disable-pip-version-check \
    -c "$root/constraints.txt" "$wheel"

cd "$empty"  # so that nothing of the repository is imported
unset PYTHONPATH
venv/bin/millstream list
cat > study.yaml <<'END'
name: smoke
solver: {name: heat, grid_size: 16, stored_steps: 10}
design: {simulations: 40}
ensemble: {actors: 1}
buffer: {kind: reservoir, capacity: 200, watermark: 50, replay: [4, 8]}
surrogate: {name: mlp, hidden: [64, 64]}
training: {learning_rate: 0.003}
validation: {simulations: 5}
tracking: {uri: none}
END
venv/bin/millstream train study.yaml
venv/bin/millstream predict runs/smoke initial=150 left=480 right=200 bottom=300 top=120

# `make demo` and `make test` set up what they need; each can be repeated.

PYTHON := $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed

.PHONY: demo test check clean

demo: $(INSTALLED)
	$(BIN)/millstream train configs/quickstart.yaml

# Two files of tests at once: most of them wait for processes. One thread each.
test: check
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile

# What can be said without running anything.
check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# constraints.txt pins every version; which build of the pinned torch it is (CPU or GPU) is up to
# where pip is configured to look.
$(INSTALLED): pyproject.toml constraints.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Millstream needs Python 3.11: install it, or set PYTHON=/path/to/python3.11"; exit 1; }
	"$(PYTHON)" -m venv --without-pip $(VENV)
	@$(BIN)/python -m ensurepip >/dev/null 2>&1 || $(BIN)/python tools/bootstrap_pip.py
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

clean:
	rm -rf $(VENV)

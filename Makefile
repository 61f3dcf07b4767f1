# All that anyone needs: install, test, check, demo, docs. Each installs what it needs into .venv first.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
OUTPUT ?= outputs/demo

# Without byte code every process would compile torch again: 20 seconds.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install test check demo docs fix clean

install: $(STAMP)

# A new pip chooses versions in half the time. Byte code is left to the first import: most files are never imported.
$(STAMP): pyproject.toml
	$(PYTHON) -m venv --upgrade-deps .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile --editable '.[train,dev]'
	touch $@

# A process a core; tests of a file stay together, for they share what takes long to make.
test: $(STAMP)
	$(BIN)/pytest -n auto --dist loadfile

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/python docs/generate.py --check

fix: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(STAMP)
	$(BIN)/python docs/generate.py

# From experts' logs to a page worth looking at, in the simulated clinic: outputs/demo/index.html
demo: $(STAMP)
	$(BIN)/askwell study demo --output $(OUTPUT)

clean:
	rm -rf .venv dist .pytest_cache .ruff_cache .hypothesis

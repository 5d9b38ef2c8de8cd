PYTHON ?= python3
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

.PHONY: help demo test lint docs pictures wheel clean

help:  ## list these targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST)

demo: $(VENV)/.train  ## train a small network on handwritten digits, and report on it, into runs/demo
	$(BIN)/spikestrap train --out runs/demo

# One thread a worker: the workers already fill the cores.
test: export OMP_NUM_THREADS = 1
test: export NUMBA_NUM_THREADS = 1
test: $(VENV)/.dev  ## run the tests; ARGS="-k neuron" chooses
	$(BIN)/pytest -n $(WORKERS) $(ARGS)

lint: $(VENV)/.dev  ## check style, format and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

docs: $(VENV)/.docs  ## build the documentation into site/; any warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

pictures: $(VENV)/.train  ## draw the pictures of the documentation again
	$(BIN)/python docs/pictures.py

# A wheel must not need the clone it was built in, so it is tried in an environment of its own.
wheel: $(VENV)/.dev  ## build a wheel, install it in an empty environment and train with it
	$(BIN)/python .ci/wheel.py

clean:  ## remove the environment and whatever was built or run
	rm -rf $(VENV) runs build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Each stamp is younger than what it was installed from, so set-up runs once and
# again only when that changes. An interrupted one leaves no stamp.
$(VENV)/.created:
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/.train: pyproject.toml constraints.txt | $(VENV)/.created
	$(PIP) install -c constraints.txt -e '.[train]'
	@touch $@

# The peers go in without their dependencies: these would bring other versions of torch. Tonic
# as well: most of its own are for data that is not read here.
$(VENV)/.dev: pyproject.toml constraints.txt requirements/peers.txt requirements/events.txt | $(VENV)/.created
	$(PIP) install -c constraints.txt -e '.[dev]'
	$(PIP) install --no-deps -r requirements/peers.txt -r requirements/events.txt
	@touch $(VENV)/.train $@

$(VENV)/.docs: pyproject.toml constraints.txt | $(VENV)/.train
	$(PIP) install -c constraints.txt -e '.[docs]'
	@touch $@

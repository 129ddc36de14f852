# What a developer does all day; `make PYTHON=.venv/bin/python fast`. Continuous integration is .ci/run.
PYTHON ?= python3
RUN = $(PYTHON) -m

.PHONY: lint types fast test wheel docs

lint:   ## style, and which folder may import which
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(PYTHON) -c "import sys; from importlinter.cli import lint_imports_command as run; run()"

types:  ## mypy, strict
	$(RUN) mypy

fast:   ## the tests without those that train, trace or wait for long: two minutes on two cores
	$(RUN) pytest -n auto -m "not slow and not realdata"

test:   ## all tests: ten minutes on two cores
	$(RUN) pytest -n auto

wheel:  ## dist/*.whl
	$(RUN) build --wheel --outdir dist .

docs:   ## the parts of docs/ that are made from the program itself
	$(PYTHON) docs/update_help.py
	$(PYTHON) docs/draw_floors.py
	$(PYTHON) docs/update_schemas.py
	$(PYTHON) benchmarks/detectors.py --render

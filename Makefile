# Two commands: `make quickstart` (the main job) and `make test`. Each does all of its own set-up.
# PYTHON=python3.12 chooses the interpreter that .venv is made with; ARGS=... goes to the command that is run.
.PHONY: quickstart mikasa test check format clean setup
.DEFAULT_GOAL := help

quickstart: setup  ## demonstrations, training, evaluation and report, in one go
	@.venv/bin/engram quickstart $(ARGS)

mikasa: setup  ## what the benchmark MIKASA-Robo needs, proved with one rendered episode
	@scripts/mikasa.sh

test: setup  ## the whole test suite
	@.venv/bin/python -m pytest $(ARGS)

check: setup  ## style and types
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy

format: setup  ## put the code into the house style
	@.venv/bin/ruff check --fix .
	@.venv/bin/ruff format .

clean:  ## forget the environment and all caches; runs/ stays
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

setup:
	@PYTHON="$(PYTHON)" scripts/setup.sh

.PHONY: help
help:
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' Makefile

# The two doors are `make demo` and `make test`; `make help` names the rest. tox.ini says what is tested and how.
.DEFAULT_GOAL := help
.PHONY: help demo test system lint docs reference checks clean
MAKEFLAGS += --no-print-directory

# The first Python that is new enough makes the virtual environment; `make PYTHON=...` chooses another.
PYTHON = $(shell scripts/find-python)
BIN := .venv/bin

help: ## say what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "make %-10s %s\n", $$1, $$2}' Makefile

demo: .venv/project ## measure every driver that works here on the sample image; needs Python and pip, no root
	@$(BIN)/graphdriver bench

test: .venv/tox ## run everything that tox.ini lists but bench and fuzz; installs system programs when root
	@scripts/test $(BIN)

system: ## install (root) or name the system programs that the tests call
	@scripts/system-packages

lint: .venv/tox ## formatting, lint and types
	@$(BIN)/tox run -e lint,typing

docs: .venv/tox ## the documentation, in docs/_build/html
	@$(BIN)/tox run -e docs

reference: .venv/project ## write docs/reference/commandline.rst anew from the command line's own help
	@$(BIN)/python docs/write_commandline.py

checks: .venv/project ## write the list of the conformance suite's checks anew from its files
	@$(BIN)/python -m graphdrivers.conformance.suite

clean: ## remove what was made here
	rm -rf .venv .tox .debian-image build dist docs/_build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/made: scripts/make-venv
	@scripts/make-venv "$(PYTHON)" .venv
	@touch $@

.venv/project: .venv/made setup.cfg
	@$(BIN)/python -m pip install --quiet --editable .
	@touch $@

.venv/tox: .venv/made
	@$(BIN)/python -m pip install --quiet 'tox>=4.30,<5'
	@touch $@

PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help venv demo test slow check bench-speed clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: .venv/.installed ## make .venv with the pinned packages

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check -c constraints.txt -e '.[demo,dev]'
	touch $@

demo: venv ## plant a backdoor, find it, disarm it; everything goes to demo/
	$(BIN)/lmsanitator demo -o demo

test: venv ## run the fast tests
	$(BIN)/pytest

slow: venv ## run the tests that train or scan real models
	$(BIN)/pytest -m slow

check: venv ## lint, formatting, types, direction of imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench-speed: venv ## time the scan's stages on this machine
	$(BIN)/python -m benchmarks.speed

clean: ## remove .venv, caches and the demo's output
	rm -rf .venv demo dist build .coverage .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

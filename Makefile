PYTHON ?= python3
BIN := .venv/bin
# Where the tasks for benchmarks are: sst2/train.jsonl and so on, as benchmarks/README.md lists them.
DATA ?= ../shared/data

.DEFAULT_GOAL := help
.PHONY: help venv demo test slow check docs readme schema clean plots steps zoo bench-speed bench-vulnerability \
	bench-defence bench-detection bench-baselines bench-stability

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-20s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: .venv/.installed ## make .venv with the pinned packages

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check -c constraints.txt -e '.[demo,dev,docs,ner,pickle,serve,zoo]'
	touch $@

demo: venv ## plant a backdoor, find it, disarm it; everything goes to demo/
	$(BIN)/lmsanitator demo -o demo

test: venv ## run the fast tests
	$(BIN)/pytest --numprocesses auto --dist loadfile

slow: venv ## run the tests that train or scan real models
	$(BIN)/pytest -m slow

check: venv ## lint, formatting, types, direction of imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: venv ## build the documentation into site/, strictly
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench-speed: venv ## time scans and their stages on this machine
	$(BIN)/python -m benchmarks.speed

zoo: venv ## build the zoo of backdoored and clean models (DATA=folder)
	$(BIN)/python -m benchmarks.zoo.build --data $(DATA)

bench-vulnerability: zoo ## tune and attack models of the zoo without guard (DATA=folder)
	$(BIN)/python -m benchmarks.defence --unguarded --data $(DATA)

bench-defence: zoo ## the same models with the guard, and beside other input filters (DATA=folder)
	$(BIN)/python -m benchmarks.defence --guarded --data $(DATA)

bench-detection: zoo ## scan the zoo and count what was right (DATA=folder)
	$(BIN)/python -m benchmarks.detection

bench-baselines: zoo ## score the zoo with detectors of the literature (DATA=folder)
	$(BIN)/python -m benchmarks.baselines.run --data $(DATA)

bench-stability: zoo ## scan ten models of the zoo with several seeds (DATA=folder)
	$(BIN)/python -m benchmarks.stability

steps: venv ## scan one backdoored encoder step by step and draw what each step saw into docs/steps/
	$(BIN)/python -m benchmarks.steps

plots: venv ## draw the results that are there into docs/
	$(BIN)/python -m benchmarks.plots

readme: venv ## write the generated table into README.md
	$(BIN)/python -m tests.conformance.table

schema: venv ## write the JSON Schema of scan.json
	$(BIN)/python -m lmsanitator.report.schema

clean: ## remove .venv, caches and the demo's output
	rm -rf .venv demo site dist build .coverage .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

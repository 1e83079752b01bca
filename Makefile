# Every target that needs an environment makes it first; a second run costs a fraction of a second.
# DEVICE=cpu|cuda overrides what the set-up finds; DEMO_FLAGS and PYTEST_FLAGS are passed on.

PYTHON ?= python3
DEVICE ?= auto
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help setup demo check-demo test test-fast test-talk test-trust test-big test-four-bits test-gpu first-card chat lint mutants bench crosscheck locks words tables picture audit eval-driver clean distclean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' Makefile

setup: ## make .venv (tunesmith and the lab) and .venv-serve (vLLM)
	@command -v $(PYTHON) >/dev/null 2>&1 || { echo "$(PYTHON) is not installed; install Python 3.11 or newer"; exit 1; }
	@$(PYTHON) -I tools/machine/bootstrap.py --device $(DEVICE) $(if $(filter setup,$(MAKECMDGOALS)),--say)

demo: setup ## the whole arc on the bundled model; asks at every expensive step
	@if [ -n "$(DEMO_FLAGS)" ]; then \
	  exec $(BIN)/tunesmith demo $(DEMO_FLAGS); \
	elif [ -t 0 ] && [ -t 1 ]; then \
	  exec $(BIN)/tunesmith demo; \
	else \
	  echo "no terminal to ask on: running with --yes --max-hours 1 (DEMO_FLAGS overrides)" >&2; \
	  exec $(BIN)/tunesmith demo --yes --max-hours 1; \
	fi

check-demo: setup ## the short demo against its goals: 360 s, prices within 35 %, what was learned; 1 where one is missed
	@$(BIN)/python -m tests.e2e.check_demo

test: setup ## every test but the slow ones and a GPU's, the whole arc on the real model included
	@# the light ones, a minute; what starts processes; tiny models on a thread each; what has the machine alone; 5: none
	@status=0; for part in "not heavy and not e2e" "heavy and not lab and not alone and not e2e" "lab" "(alone or e2e)"; do \
	  $(BIN)/python -m pytest -q -m "$$part and not slow and not gpu" $(PYTEST_FLAGS) || [ $$? -eq 5 ] || status=1; \
	done; exit $$status

test-fast: setup ## the light tests, side by side; a minute on two cores
	@$(BIN)/python -m pytest -q -m "not heavy and not e2e and not gpu" $(PYTEST_FLAGS)

test-talk: setup ## a whole conversation with the real driver, from "hi" to a served fine-tune; ten minutes
	@$(BIN)/python -m pytest -q -s -m slow tests/e2e/test_talk.py $(PYTEST_FLAGS)

test-trust: setup ## the attacks on this machine and its store, the long part included
	@$(BIN)/python -m pytest -q tests/trust $(PYTEST_FLAGS)

test-big: setup ## a 1.5B taught, measured and served in too little memory for its 16-bit path; needs root, about an hour
	@$(BIN)/python -m pytest -q -s -n0 -m slow tests/e2e/test_big.py $(PYTEST_FLAGS)

test-four-bits: setup ## a 0.5B measured, taught, merged, quantized and served at 4 bits that the plans chose, a quarter of an hour
	@$(BIN)/python -m pytest -q -s -n0 -m slow tests/e2e/test_four_bits_by_auto.py $(PYTEST_FLAGS)

test-gpu: setup ## what only a GPU can confirm, measured on it; ten minutes, GPU_MINUTES=30 for more
	@GPU_MINUTES=$(or $(GPU_MINUTES),10) $(BIN)/python -m pytest -q -m gpu tests/gpu $(PYTEST_FLAGS)

first-card: setup ## the first hour of a card: all that only it can confirm, into first-card/first-card.md; goes on where it was; MINUTES=60, AGAIN="killed failed …"
	@$(BIN)/python -m tests.gpu.first_card $(if $(MINUTES),--minutes $(MINUTES)) $(if $(AGAIN),--again $(AGAIN))

chat: setup ## start talking
	@exec $(BIN)/tunesmith

lint: setup ## ruff (lint and format) and mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@mkdir -p .lint/tunesmith && for part in agent tools memory prompts; do \
	  ln -sfn ../../$$part .lint/tunesmith/$$part; done
	@MYPYPATH=.lint $(BIN)/mypy -p tunesmith

mutants: setup ## break one guard at a time in a copy, and see that its tests notice; MUTANTS="word …" for some
	@$(BIN)/python -m tests.mutants.run $(MUTANTS)

bench: setup ## the measurements in tests/bench, each with its goal; two read a FILE and are run by hand: reading, strangers
	@for script in $(filter-out %/reading.py %/strangers.py,$(wildcard tests/bench/[!_]*.py)); do \
	  echo "== $$script"; $(BIN)/python "$$script" || exit 1; \
	done

crosscheck: setup ## compare our grading with the real promptfoo (npm), live; RECORD=1 stores its verdicts
	@$(BIN)/python -m tests.promptfoo.crosscheck $(if $(RECORD),--record)

locks: ## make the lock files of both environments anew (needs uv); UV_FLAGS says where torch's CPU builds are
	@$(BIN)/python -m tunesmith.tools.machine.locks $(UV_FLAGS)

words: setup ## train what reads sentences (agent/words/head.npz) from tests/words/intents: an hour and a half; WORDS_FLAGS=--more goes on from what it learned, a quarter of an hour; --layer leaves the encoder as it is, some minutes
	@$(BIN)/python -m tests.words.train $(WORDS_FLAGS)

tables: setup ## write what fits on which card anew: the tables of README and docs/models.md, and the golden plans
	@$(BIN)/python -m tests.gpu_rehearsal.tables

picture: setup ## draw the README's terminal anew, from PICTURE_HOME, a home with a finished run (needs tmux)
	@$(BIN)/python -m tests.docs.picture $(or $(PICTURE_HOME),$(TUNESMITH_HOME))

audit: setup ## ask PyPI for known vulnerabilities of what the lock files name (needs pip-audit)
	@command -v pip-audit >/dev/null 2>&1 || { echo "pip-audit is not installed; pipx install pip-audit"; exit 1; }
	@for lock in tools/machine/locks/*.txt; do pip-audit --strict --disable-pip --no-deps --requirement "$$lock" || exit 1; done

eval-driver: setup ## what people say, to the real driver: answers judged by the screen, then choices; EXAM_HOME names runs
	@# pydantic-evals pins an older pydantic-ai exactly, and works with this one
	@$(BIN)/python -c "import pydantic_evals" 2>/dev/null || $(BIN)/pip install -q --no-deps "pydantic-evals>=2.62,<3" "logfire-api>=3.14,<5"
	@$(BIN)/python -m tests.driver.run_answers $(EXAM_HOME) $(EXAM_FLAGS)
	@$(BIN)/python -m tests.driver.run_eval

clean: ## remove caches and build output
	@rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .lint
	@find . -name __pycache__ -type d -not -path './.venv*' -prune -exec rm -rf {} +

distclean: clean ## remove the two environments too
	@rm -rf .venv .venv-serve

# setup, demo, test, lint, bench, protos: each works on a fresh machine.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PARITY := .build/parity
BENCH_THREADS ?= 2
RUN := runs/gorggle-mini-1

.PHONY: help setup demo bench test lint format protos web layers train parity fuzz soak load clean

help:  ## show what there is
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 18

setup: $(STAMP)  ## make the virtual environment and install everything into it

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else f"Gorggle needs Python 3.11 to 3.13; {sys.executable} is {v[0]}.{v[1]}. Say: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $(STAMP)

demo: setup  ## read a real video through a real server, and compare with the truth
	@$(BIN)/python examples/demo.py

test: setup  ## run every test
	# Without columns in tracebacks: to show them Python parses lines, and up to 3.11.7 two threads that do so at once
	# (a test's report and a log) end the whole run with "AST constructor recursion depth mismatch" (CPython gh-106905).
	$(BIN)/python -X no_debug_ranges -m pytest

lint: setup  ## formatting, style, types, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup  ## put the code into the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

parity:  ## compare the engine with fairseq, in an environment of its own (Python 3.11)
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if v == (3, 11) else f"fairseq needs Python 3.11; {sys.executable} is {v[0]}.{v[1]}. Say: make parity PYTHON=python3.11")'
	$(PYTHON) -m venv $(PARITY)
	$(PARITY)/bin/python -m pip install --quiet --disable-pip-version-check 'pip<24.1'
	$(PARITY)/bin/python -m pip install --quiet --disable-pip-version-check --requirement tests/parity/requirements.txt
	READTHEDOCS=1 $(PARITY)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation fairseq==0.12.2
	$(PARITY)/bin/python -m pytest -p no:hydra_pytest tests/parity

bench: setup  ## measure all speeds, beside fairseq where `make parity` has installed it, and write docs/performance.md (QUICK=1: only whether it works)
ifdef QUICK
	@mkdir -p .build/bench/docs && cp docs/performance.md .build/bench/docs/
	$(BIN)/python -m benchmarks.suite --quick --threads $(BENCH_THREADS) --results .build/bench --docs .build/bench/docs
else
	$(BIN)/python -m benchmarks.suite --threads $(BENCH_THREADS)
endif

protos:  ## write the Python of protos/ anew
	protos/generate.sh

web:  ## build the page anew (takes Node 20.19 or newer; the built page is in the repository)
	npm --prefix clients/web ci
	npm --prefix clients/web run build

layers: setup  ## build the functions' layers for every processor and Python, and hold them against Lambda's limits
	$(BIN)/python -m infrastructure.packaging

train: setup  ## train and measure the embedded model anew (an hour and a half of training on two cores, and the rendering)
	$(BIN)/python -m training prepare
	$(BIN)/python -m training train --out $(RUN) --minutes 90 --resume
	$(BIN)/python -m training export --out $(RUN) $(RUN)/model.safetensors
	$(BIN)/python -m training evaluate $(RUN)/model.safetensors --noise --plot $(RUN)/noise.png > $(RUN)/evaluation.json
	$(BIN)/python -m training export --out $(RUN) --evaluation $(RUN)/evaluation.json inference_server/assets/gorggle-mini-1.safetensors

fuzz: setup  ## send 20 000 hostile requests and media files to a real server
	$(BIN)/python benchmarks/fuzz.py --inputs 20000 --out .build/fuzz.json

soak: setup  ## half an hour of good, cancelled, broken and slow calls: does the server grow?
	$(BIN)/python benchmarks/soak.py --minutes 30 --out .build/soak.json --plot .build/soak.png

load: setup  ## how many real-time streams this machine carries, and what happens beyond
	$(BIN)/python benchmarks/load.py --kind crops --out .build/load-crops.json
	$(BIN)/python benchmarks/load.py --kind video --out .build/load-video.json

clean:  ## remove what was made here
	rm -rf $(VENV) .build runs

# Each target works on a fresh machine; `make help` lists them.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PARITY := .build/parity
BENCH_THREADS ?= 2
RUN := runs/gorggle-mini-1
# Test processes in parallel: two more than there are CPUs, because tests often wait for other processes.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print(len(os.sched_getaffinity(0)) + 2)')

.PHONY: help setup demo bench test drills lint format protos web layers train export parity fuzz soak load clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 18

setup: $(STAMP)  ## create the virtual environment and install everything into it

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else f"Gorggle needs Python 3.11 to 3.13; {sys.executable} is {v[0]}.{v[1]}. Run: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $(STAMP)

demo: setup  ## transcribe a video with a real server and compare the result with the reference
	@$(BIN)/python examples/demo.py

# The tests of a file share servers, so they run in one process. Tracebacks without column positions: up to Python 3.11.7,
# two threads that format tracebacks at the same time can abort the run with "AST constructor recursion depth mismatch"
# (https://github.com/python/cpython/issues/106905). With bytecode: the tests start a hundred processes.
PYTEST = PYTHONNODEBUGRANGES=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test: setup  ## run the tests in parallel (WORKERS=0: in one process)
	$(PYTEST) -m "not drill"

drills: setup  ## run the tests that take long: a two-hour video, a short fuzzing run, other instruction sets, fault sweeps
	$(PYTEST) -m drill

lint: setup  ## check formatting, style, types and import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup  ## format the code and fix what ruff can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

parity:  ## compare the engine with fairseq in a separate virtual environment (Python 3.11)
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if v == (3, 11) else f"fairseq needs Python 3.11; {sys.executable} is {v[0]}.{v[1]}. Run: make parity PYTHON=python3.11")'
	$(PYTHON) -m venv $(PARITY)
	$(PARITY)/bin/python -m pip install --quiet --disable-pip-version-check 'pip<24.1'
	$(PARITY)/bin/python -m pip install --quiet --disable-pip-version-check --requirement tests/parity/requirements.txt
	READTHEDOCS=1 $(PARITY)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation fairseq==0.12.2
	$(PARITY)/bin/python -m pytest -p no:hydra_pytest tests/parity

bench: setup  ## run all benchmarks, with fairseq if `make parity` has installed it, and write docs/performance.md (QUICK=1: only check that they run)
ifdef QUICK
	@mkdir -p .build/bench/docs && cp docs/performance.md .build/bench/docs/
	$(BIN)/python -m benchmarks.suite --quick --threads $(BENCH_THREADS) --results .build/bench --docs .build/bench/docs
else
	$(BIN)/python -m benchmarks.suite --threads $(BENCH_THREADS)
endif

protos:  ## generate the Python code of protos/
	protos/generate.sh

web:  ## build the web page (needs Node 20.19 or newer; the built page is in the repository)
	npm --prefix clients/web ci
	npm --prefix clients/web run build

layers: setup  ## build the Lambda layers for every architecture and Python version, and check Lambda's size limits
	$(BIN)/python -m infrastructure.packaging

train: setup  ## train and evaluate the embedded model (90 minutes of training on two cores, after rendering)
	$(BIN)/python -m training prepare
	$(BIN)/python -m training train --out $(RUN) --minutes 90 --resume
	$(BIN)/python -m training export --out $(RUN) $(RUN)/model.safetensors
	$(BIN)/python -m training evaluate $(RUN)/model.safetensors --noise --plot $(RUN)/noise.png > $(RUN)/evaluation.json
	$(BIN)/python -m training export --out $(RUN) --evaluation $(RUN)/evaluation.json inference_server/assets/gorggle-mini-1.safetensors
	$(BIN)/python -m training calibrate inference_server/assets/gorggle-mini-1.safetensors

export: setup  ## write the ONNX graphs of the embedded models
	$(BIN)/python -m training graphs inference_server/assets/gorggle-mini-1.safetensors

fuzz: setup  ## run the property tests on random examples; send 20,000 malicious requests and media files to a real server
	HYPOTHESIS_PROFILE=default $(PYTEST) -m hypothesis
	$(BIN)/python benchmarks/fuzz.py --inputs 20000 --out .build/fuzz.json

soak: setup  ## run valid, cancelled, broken and slow calls for 30 minutes and measure memory growth
	$(BIN)/python benchmarks/soak.py --minutes 30 --out .build/soak.json --plot .build/soak.png

load: setup  ## measure how many real-time streams this machine serves, and what happens under overload
	$(BIN)/python benchmarks/load.py --kind crops --out .build/load-crops.json
	$(BIN)/python benchmarks/load.py --kind video --out .build/load-video.json

clean:  ## remove the virtual environment, build outputs and training runs
	rm -rf $(VENV) .build runs

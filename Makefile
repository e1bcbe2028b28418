# Everything sets itself up in .venv; all that is needed is make and Python 3.11 to 3.13.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
INSTALL := $(BIN)/python tools/install.py
STAND_IN := build/inception_resnet_v2_stand_in.ckpt
# The checkpoint to export; the real one is fetched with `.venv/bin/irv2 fetch`.
CHECKPOINT ?= $(STAND_IN)
GENERATED := $(filter $(STAND_IN),$(CHECKPOINT))
OUTPUT ?= build/artifacts
FORMATS ?= v4,v5,onnx-int8,tflite-int8

DIGITS := build/digits

# What is imported is compiled once, and kept in .venv: nothing is when it is installed.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: export verify trained test test-quick stress fuzz bench bench-evaluating bench-quantization tables dist pins audit clean

export: $(STAMP) $(GENERATED)
	$(BIN)/irv2 export --checkpoint "$(CHECKPOINT)" --output "$(OUTPUT)" --formats "$(FORMATS)" --force

verify: $(STAMP) $(GENERATED)
	$(BIN)/irv2 verify --checkpoint "$(CHECKPOINT)" "$(OUTPUT)"

# A network that classifies: trains it on digits, exports it to every format, says how
# often each is right, and writes a page about the ONNX and TFLite files.
trained: $(STAMP)
	$(BIN)/python -m examples.digits --output $(DIGITS) --at-least 0.98
	$(BIN)/irv2 export --checkpoint $(DIGITS)/train_dir --moving-averages use --labels $(DIGITS)/labels.txt \
	    --output $(DIGITS)/artifacts --tasks classification --image-size 75 --force \
	    --images $(DIGITS)/images/validation --calibration-images $(DIGITS)/images/training
	$(BIN)/python -m examples.digits_scores --digits $(DIGITS) $(DIGITS)/artifacts
	$(BIN)/irv2 evaluate $(DIGITS)/artifacts/*.onnx $(DIGITS)/artifacts/*.tflite \
	    --checkpoint $(DIGITS)/train_dir --moving-averages use --image-size 75 \
	    --images $(DIGITS)/images/validation --cards --json > $(DIGITS)/evaluation.json
	$(BIN)/irv2 report $(DIGITS)/artifacts/*.onnx $(DIGITS)/artifacts/*.tflite \
	    --checkpoint $(DIGITS)/train_dir --moving-averages use \
	    --images $(DIGITS)/images/validation --evaluation $(DIGITS)/evaluation.json \
	    --latency --output $(DIGITS)/report.html --force

# A worker that crashed ends the run: without it, xdist would wait for ever.
PYTEST := --dist loadfile --max-worker-restart 0

# All tests, and those that people run while coding.
test: $(STAMP)
	$(BIN)/python -m pytest -n 2 $(PYTEST)

test-quick: $(STAMP)
	$(BIN)/python -m pytest -n auto $(PYTEST) -m "not slow and not consumers"

# Thousands of kills, damaged and hostile files, full disks and races: about a quarter of
# an hour. Options, as in STRESS="install races --seed 7", are those of
# `PYTHONPATH=.:tests python -m stress --help`.
stress: $(STAMP)
	PYTHONPATH=.:tests $(BIN)/python -m stress $(STRESS)

# Readers of files from outside, given what a fuzzer thinks of, for SECONDS in all.
SECONDS ?= 60
fuzz: $(STAMP)
	$(INSTALL) --editable '.[test,fuzz]'
	PYTHONPATH=.:tests $(BIN)/python -m fuzzing --seconds $(SECONDS) $(FUZZ)

# Keeps figures in build/benchmarks/; what is to be published goes from there to a folder
# of benchmarks/history/ that is called by its machine. Options, as in BENCH="--repeats 1",
# are those of `python -m benchmarks --help`.
bench: $(STAMP) $(GENERATED)
	$(INSTALL) --editable '.[test,bench]'
	$(BIN)/python -m benchmarks --checkpoint "$(CHECKPOINT)" $(BENCH)

# What `irv2 evaluate` costs beside the bare runtime, and its memory over 10,000 images;
# ARTIFACTS are classifiers, such as those of `make export`.
bench-evaluating: $(STAMP)
	$(BIN)/python -m benchmarks.evaluating $(ARTIFACTS) $(BENCH)

# What int8 costs in quality, by irv2 and by other tools, of a stand-in and of the network
# that `make trained` left, if it did.
bench-quantization: $(STAMP) $(GENERATED)
	$(INSTALL) --editable '.[test,bench]'
	$(BIN)/python -m benchmarks.quantizing --checkpoint "$(CHECKPOINT)" \
	    $(if $(wildcard $(DIGITS)/train_dir),--digits $(DIGITS)) $(BENCH)

# The tables of README and docs, from the newest figures of each machine.
tables: $(STAMP)
	$(BIN)/python -m benchmarks.tables --write *.md docs/*.md

# A wheel, made from the source distribution beside it. What earlier builds left would be
# taken for part of the source.
dist: $(STAMP)
	rm -rf dist *.egg-info
	$(BIN)/python -m build --no-isolation --quiet
	@ls dist/*

# Makes constraints.txt anew, on the oldest Python; pip has to be a new one.
pins:
	python=$$(PYTHON=$${PYTHON:-python3.11} sh tools/find_python.sh) && \
	    "$$python" -m venv --clear build/pins
	build/pins/bin/python -m pip install -q --upgrade pip
	build/pins/bin/python tools/pin.py

# Known vulnerabilities of what is pinned.
audit: $(STAMP)
	$(INSTALL) --editable '.[audit]'
	$(BIN)/pip-audit --requirement constraints.txt --no-deps --disable-pip --strict

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache

$(STAND_IN): $(STAMP)
	mkdir -p $(@D)
	$(BIN)/irv2 stand-in --output $@ --force

$(STAMP): setup.cfg pyproject.toml constraints.txt
	@python=$$(sh tools/find_python.sh) && \
	    echo "Setting up $(VENV) with $$python ..." && \
	    "$$python" -m venv --clear $(VENV)
	@$(INSTALL) setuptools
	@$(INSTALL) --editable '.[test]'
	@touch $@

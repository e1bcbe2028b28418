# Everything sets itself up in .venv; all that is needed is make and Python 3.10 to 3.13.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
# Says only what went wrong.
INSTALL := $(BIN)/python -m pip install -qq --no-compile \
    --disable-pip-version-check --constraint constraints.txt
STAND_IN := build/inception_resnet_v2_stand_in.ckpt
# The checkpoint to export; the real one is fetched with `.venv/bin/irv2 fetch`.
CHECKPOINT ?= $(STAND_IN)
GENERATED := $(filter $(STAND_IN),$(CHECKPOINT))
OUTPUT ?= build/artifacts
FORMATS ?= v4,v5

.PHONY: export verify test test-quick bench clean

export: $(STAMP) $(GENERATED)
	$(BIN)/irv2 export --checkpoint "$(CHECKPOINT)" --output "$(OUTPUT)" --formats $(FORMATS) --force

verify: $(STAMP) $(GENERATED)
	$(BIN)/irv2 verify --checkpoint "$(CHECKPOINT)" "$(OUTPUT)"

# All tests, and those that people run while coding.
test: $(STAMP)
	$(BIN)/python -m pytest

test-quick: $(STAMP)
	$(BIN)/python -m pytest -m "not slow and not consumers"

bench: $(STAMP) $(GENERATED)
	$(INSTALL) --no-build-isolation --editable '.[test,bench]'
	$(BIN)/python -m benchmarks --checkpoint "$(CHECKPOINT)"

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache

$(STAND_IN): $(STAMP)
	mkdir -p $(@D)
	$(BIN)/irv2 stand-in --output $@ --force

$(STAMP): setup.cfg pyproject.toml constraints.txt
	@python=$$(sh tools/find_python.sh) && \
	    echo "Setting up $(VENV) with $$python ..." && \
	    $$python -m venv --clear $(VENV)
	$(INSTALL) setuptools
	$(INSTALL) --no-build-isolation --editable '.[test]'
	touch $@

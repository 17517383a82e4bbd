# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: setup demo test chaos lint bench bench-focus bench-gpu bench-patches bench-peers bench-scale bench-service bench-train bench-viewer bench-cohort notebooks pictures docs clean
.DELETE_ON_ERROR:

setup: $(VENV)/.ok

# pip and not uv: pip finds a local CPU build of torch where there is one
$(VENV)/.ok: pyproject.toml constraints.txt
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[train,onnx,interop,postgresql,s3,tables,test,lint]'
	@touch $@

demo: setup
	@$(BIN)/mitosis demo --out demo

# more workers than cores, since tests wait; in the order of tests/conftest.py: by default files with few tests come
# last, and they are the long ones
test: setup
	$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder

chaos: setup
	$(BIN)/python -m tests.chaos.run --seconds 600 --analyses 300
	$(BIN)/python -m tests.chaos.slow_clients

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/oxlint --deny-warnings service/web/viewer
	$(BIN)/oxfmt --check service/web/viewer

bench: setup
	$(BIN)/python -m tests.benchmarks.bench_analysis

bench-focus: setup
	$(BIN)/python -m tests.benchmarks.bench_focus

bench-gpu: setup
	$(BIN)/python -m tests.benchmarks.bench_gpu

bench-service: setup
	$(BIN)/python -m tests.benchmarks.bench_service

bench-patches: setup
	$(BIN)/python -m tests.benchmarks.bench_patches

bench-cohort: setup
	$(BIN)/python -m tests.benchmarks.bench_cohort

bench-peers: setup
	$(BIN)/python -m tests.benchmarks.bench_peers

bench-scale: setup
	$(BIN)/python -m tests.benchmarks.bench_scale

bench-viewer: setup
	$(BIN)/python -m tests.benchmarks.bench_viewer

bench-train: setup
	$(BIN)/python -m tests.benchmarks.bench_training

notebooks: setup
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[notebooks]"
	$(BIN)/python docs/run_notebooks.py

pictures: setup
	$(BIN)/python docs/take_pictures.py

docs: setup
	$(BIN)/python docs/write_tables.py

clean:
	rm -rf $(VENV) demo .mypy_cache .ruff_cache .pytest_cache

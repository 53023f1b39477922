# `make demo` and `make test` need nothing but git, make and Python >= 3.11 with venv.
PYTHON ?= python3
BIN := .venv/bin
# One thread per process: parallelism comes from processes, and CPU results depend on the number of threads.
export OMP_NUM_THREADS := 1

.PHONY: setup demo results test test-slow lint numbers bench

setup: .venv/ready

.venv/ready: requirements.txt setup.cfg
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check --progress-bar off -r requirements.txt
	@# mmcv and mmseg ask for opencv-python, which needs a screen's libraries; the headless build serves them as well
	$(BIN)/pip uninstall --disable-pip-version-check -y opencv-python
	$(BIN)/pip install --disable-pip-version-check --force-reinstall --no-deps $$(grep ^opencv-python-headless requirements.txt)
	$(BIN)/pip install --disable-pip-version-check --no-deps -e .
	touch $@

demo: setup
	@$(BIN)/kdseg sweep slurm/sweeps/demo.yaml --jobs 2 --work-dir work_dirs/demo
	@$(BIN)/kdseg tables main --work-dir work_dirs/demo
	@$(BIN)/kdseg figures --fig 6 --work-dir work_dirs/demo

# Everything below results/ that follows from the records there.
results: setup
	$(BIN)/kdseg tables --work-dir results/records --out results/tables --format md,csv
	$(BIN)/kdseg figures --work-dir results/records --out results/figures

test: setup lint
	$(BIN)/pytest -n 2 --dist loadgroup -m "not slow"

test-slow: setup
	$(BIN)/pytest -n 2 --dist loadgroup -m slow

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy

# Every loss, gradient and golden value, hashed to the last bit: `make numbers FILE=before.txt`, then diff with a later one.
numbers: setup
	rm -f $(FILE)
	KDSEG_NUMBERS=$(FILE) $(BIN)/pytest -n 2 -m "not slow" tests/baselines tests/methods tests/test_conformance.py
	sort -o $(FILE) $(FILE)

bench: setup
	$(BIN)/python -m benchmark.bench.step
	$(BIN)/python -m benchmark.bench.cohort
	$(BIN)/python -m benchmark.bench.evaluation
	$(BIN)/python -m benchmark.bench.formats
	$(BIN)/python -m benchmark.bench.growth
	$(BIN)/python -m benchmark.bench.losses
	$(BIN)/python -m benchmark.bench.report
	$(BIN)/python -m benchmark.bench.data
	$(BIN)/python -m benchmark.bench.launcher

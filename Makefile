# Everything happens in .venv, made with plain pip on first use; needs Python >= 3.11, git and make.
PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: run test test-processors test-browser test-engines soak lint bench study

run: .venv/.installed ## the main job: from images to reports/index.html
	headswap demo
	headswap doctor
	dvc repro
	@echo "Now open reports/index.html"

test: .venv/.installed ## the tests, on all cores; each test computes on one
	OMP_NUM_THREADS=1 pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

test-processors: .venv/.installed ## the promises of equal numbers, as on several processors that this one can act
	python -m tests.processors

test-browser: .venv/.installed ## the report in a real Chromium, which must be there: apt install chromium
	@.venv/bin/python -c 'import playwright' 2>/dev/null || { echo "needs Playwright: .venv/bin/pip install --editable '.[browser]'"; exit 2; }
	@test -n "$$CHROMIUM" || command -v chromium || command -v google-chrome || { echo "needs Chromium: apt install chromium, or CHROMIUM=/path/to/it"; exit 2; }
	pytest -m browser tests/browser

test-engines: .venv/.installed ## `embed.engine` on real Dask and Ray clusters on this machine, whose processes are killed
	@.venv/bin/python -c 'import distributed, ray' 2>/dev/null || { echo "needs Dask and Ray: .venv/bin/pip install --editable '.[dask,ray]'"; exit 2; }
	pytest -m engines tests/engines

soak: .venv/.installed ## the tests that kill many processes
	pytest -m soak

lint: .venv/.installed ## style, types and the direction of imports
	ruff check .
	ruff format --check .
	mypy
	lint-imports

bench: .venv/.installed ## measurements, side by side; ONLY=embed for one group
	python -m pip install --quiet --editable '.[demo,dev,bench,browser,dask,ray]'
	python -m benchmarks $(ONLY)

study: .venv/.installed ## accuracy of heads and plans over seeded splits, hours in all; ONLY=elpv for one
	python -m benchmarks.study $(ONLY)

.venv/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python >= 3.11 is needed, this is " + sys.version.split()[0] + "; try: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --no-compile --editable '.[demo,dev]'  # Python compiles the part that is imported
	@touch $@

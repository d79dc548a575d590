# Everything happens in .venv, made on first use with plain pip from requirements/; needs Python >= 3.11, git and make.
PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)
unexport PYTHONDONTWRITEBYTECODE  # with it, every command would compile PyTorch anew
install = bin/python -m pip install --quiet --no-compile  # Python compiles the part that is imported
suite = OMP_NUM_THREADS=1 pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

.PHONY: run test test-newest test-processors test-browser test-engines soak lint lock bench study

run: .venv/.installed ## the main job: from images to reports/index.html
	headswap demo
	headswap doctor
	dvc repro
	@echo "Now open reports/index.html"

test: .venv/.installed ## the quick suite, on all cores; each test computes on one
	$(suite)

test-newest: export PATH := $(CURDIR)/.venv-newest/bin:$(PATH)
test-newest: ## the tests with the newest versions that pyproject.toml admits, in an environment of their own
	$(PYTHON) -m venv --clear .venv-newest
	.venv-newest/$(install) --editable '.[demo,dev]'
	$(suite)

test-processors: .venv/.installed ## the promises of equal numbers, as on several processors that this one can act
	python -m tests.processors

test-browser: .venv/.extras ## the report in a real Chromium, which must be there: apt install chromium
	@test -n "$$CHROMIUM" || command -v chromium || command -v google-chrome || { echo "needs Chromium: apt install chromium, or CHROMIUM=/path/to/it"; exit 2; }
	pytest -m browser tests/browser

test-engines: .venv/.extras ## `embed.engine` on real Dask and Ray clusters on this machine, whose processes are killed
	pytest -m engines tests/cluster

soak: .venv/.installed ## what the quick suite tries a few of, in full: kills, flipped bits, failing writes, settings of heads
	pytest -m soak

lint: .venv/.installed ## style, types and the direction of imports
	ruff check .
	ruff format --check .
	mypy
	lint-imports

bench: .venv/.extras ## measurements, side by side; ONLY=embed for one group
	python -m benchmarks $(ONLY)

study: .venv/.installed ## accuracy of heads and plans over seeded splits, hours in all; ONLY=elpv for one
	python -m benchmarks.study $(ONLY)

# One version of each package, if there is one that suits every Python from 3.11 on and every system.
compile = .venv-lock/bin/uv pip compile --quiet --universal --fork-strategy fewest --python-version 3.11 \
	--generate-hashes --no-annotate --custom-compile-command 'make lock'
all = .venv-lock/all.lock

lock: ## requirements/*.lock anew: the newest versions that pyproject.toml admits; asks the registry, installs nothing
	$(PYTHON) -m venv .venv-lock
	.venv-lock/$(install) --upgrade uv
	$(compile) --upgrade --output-file $(all) requirements/build.in pyproject.toml --all-extras
	$(compile) --constraints $(all) --output-file requirements/build.lock requirements/build.in
	$(compile) --constraints $(all) --output-file requirements/main.lock pyproject.toml --extra demo --extra dev
	$(compile) --constraints $(all) --output-file requirements/extras.lock pyproject.toml --all-extras \
		$$(sed -n 's/\([^=]*\)==.*/--no-emit-package \1/p' requirements/main.lock)

.venv/.installed: pyproject.toml requirements/build.lock requirements/main.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python >= 3.11 is needed, this is " + sys.version.split()[0] + "; try: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	.venv/$(install) --require-hashes --requirement requirements/build.lock
	.venv/$(install) --require-hashes --no-build-isolation --requirement requirements/main.lock
	.venv/$(install) --no-deps --no-build-isolation --editable .
	@touch $@

.venv/.extras: .venv/.installed requirements/extras.lock
	.venv/$(install) --require-hashes --no-build-isolation --requirement requirements/extras.lock
	@touch $@

# `make test` and `make demo` need only python3 (3.11 or newer) and make: they create an environment.
# For another interpreter: `make test PYTHON=python3.13`. Each interpreter has its own environment.

PYTHON ?= python3
ifeq ($(PYTHON),python3)
VENV ?= .venv
else
VENV ?= .venv-$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
endif
BIN := $(VENV)/bin
# Compiled modules are kept: the tests start hundreds of processes, which would each compile all modules.
export PYTHONDONTWRITEBYTECODE :=
# -E rebuilds every page: Sphinx does not notice changes of the library that the pages execute. Two processes read pages.
SPHINX = $(BIN)/sphinx-build -E -W --keep-going -q -j 2

# Number of test processes: one more than the cores, since they often wait for the programs they start; from 3 to 8.
JOBS ?= $(shell n=$$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN); echo $$((n < 2 ? 3 : n > 7 ? 8 : n + 1)))
# More arguments for pytest
PYTEST_ARGS ?=
BENCH_ARGS ?=
DEMO_FOLDER ?= demo-output
SCPORTRAIT_VENV ?= .venv-scportrait
READERS_VENV ?= .venv-readers
CELLCUTTER_VENV ?= .venv-cellcutter
ANNBATCH_VENV ?= .venv-annbatch
# annbatch needs Python 3.12 or newer
ANNBATCH_PYTHON ?= python3.13
LOWEST_VENV ?= .venv-lowest
OLDEST_PYTHON ?= python3.11
UV_VENV ?= .venv-uv

.PHONY: help demo test test-lowest test-foreign compat faults scportrait readers check docs linkcheck format wheel test-wheel bench bench-quick \
	bench-peers bench-loading clean
.NOTPARALLEL:
.DELETE_ON_ERROR:

help:
	@echo "make demo     segment, extract and draw the cells of a real image, into $(DEMO_FOLDER)/"
	@echo "make test     run the tests (another interpreter: make test PYTHON=python3.13)"
	@echo "make test-foreign  run the tests of files, processes and signals with Windows and macOS emulated"
	@echo "make test-lowest  run the tests with the oldest supported releases (needs python3.11, or OLDEST_PYTHON=...)"
	@echo "make compat   resolve versions beside scportrait, squidpy, cellpose and others (needs a network; installs nothing)"
	@echo "make faults   kill 40 extractions at random moments and resume them, and similar tests; more random input"
	@echo "make scportrait  run the tests with the published scportrait and with torch (makes an environment of 3 GB)"
	@echo "make readers  run the tests with slides read by spatialdata-io and sopa (makes an environment of 1.2 GB)"
	@echo "make check    style, types, import rules, words, documentation"
	@echo "make docs     build the documentation into docs/_build/html/"
	@echo "make linkcheck   check the documentation's external links (needs a network)"
	@echo "make wheel    build the source archive and the wheel into dist/, and check their contents"
	@echo "make test-wheel  run the tests with the wheel in an empty environment (PYTHON=python3.12, for example)"
	@echo "make format   format the code"
	@echo "make bench    measure stages and extractions, compare with the previous run (make bench-quick: tiny)"
	@echo "make bench-peers  time the same extraction with scportrait and cellcutter (makes environments of 4 GB)"
	@echo "make bench-loading  time training loaders: cellstamp, annbatch and scportrait (makes environments of 4 GB)"
	@echo "make clean    remove environments, caches and build results"

demo: $(VENV)/.installed-demo
	$(BIN)/cellstamp demo $(DEMO_FOLDER)

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(PYTEST_ARGS)

# For the emulation, see docs/design/operating-systems.md
FOREIGN_TESTS ?= $(patsubst %,tests/test_%.py,base batches bounded cli config engines extraction faults first_steps frame \
	h5sc image_files joining mask_files omezarr project segmentation stacks start_methods store system tiff unfinished untouched \
	user_main using_images validate)

test-foreign: $(VENV)/.installed-test
	for system in windows macos; do \
		CELLSTAMP_FOREIGN=$$system PYTHONPATH=tests/foreign $(BIN)/python -m pytest -p foreign_skips -n $(JOBS) \
			--dist loadfile $(FOREIGN_TESTS) $(PYTEST_ARGS) || exit 1; \
	done

# Old releases call functions that newer releases of their dependencies deprecate.
test-lowest: $(LOWEST_VENV)/.installed
	$(LOWEST_VENV)/bin/python -m pytest -n $(JOBS) --dist loadfile -W ignore::DeprecationWarning $(PYTEST_ARGS)

compat: $(UV_VENV)/.installed
	$(UV_VENV)/bin/python .ci/compat.py $(UV_VENV)/bin/uv

faults: $(VENV)/.installed-test
	CELLSTAMP_KILLS=40 CELLSTAMP_EXAMPLES=all $(BIN)/python -m pytest -q \
		tests/test_unfinished.py tests/test_small_disk.py tests/test_real_cgroup.py tests/test_engines.py tests/test_server.py \
		tests/test_soak.py tests/test_kernels.py tests/test_plan.py tests/test_config.py tests/test_encoding.py $(PYTEST_ARGS)

# Separate from `make test`: torch and scportrait are large, and scportrait needs older releases of some libraries.
# The test with annbatch runs if its environment exists: make bench-loading, or make .venv-annbatch/.installed.
scportrait: $(SCPORTRAIT_VENV)/.installed
	CELLSTAMP_ANNBATCH=$(wildcard $(ANNBATCH_VENV)/bin/python) \
		$(SCPORTRAIT_VENV)/bin/python -m pytest interop $(PYTEST_ARGS)
	$(SCPORTRAIT_VENV)/bin/python -m pytest -c interop/pytest.ini --rootdir . --noconftest tests/test_torch.py \
		tests/test_embed.py $(PYTEST_ARGS)

# Separate from `make scportrait`, whose environment has what a user of scportrait has, and no more.
readers: $(READERS_VENV)/.installed
	$(READERS_VENV)/bin/python -m pytest interop/slide_readers $(PYTEST_ARGS)

# The documentation is built in parallel with the other checks: each uses one core.
check: $(VENV)/.installed-dev
	@$(SPHINX) -b html docs docs/_build/html & docs=$$!; \
		$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports \
		&& $(BIN)/python .ci/other_systems.py && $(BIN)/python .ci/banned_words.py; code=$$?; \
		wait $$docs && exit $$code

docs: $(VENV)/.installed-dev
	$(SPHINX) -b html docs docs/_build/html

linkcheck: $(VENV)/.installed-dev
	$(SPHINX) -D nb_execution_mode=off -b linkcheck docs docs/_build/linkcheck

wheel:
	.ci/wheel '$(PYTHON)'

test-wheel: wheel
	.ci/test-wheel '$(PYTHON)' -n $(JOBS) --dist worksteal $(PYTEST_ARGS)

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Further arguments: make bench BENCH_ARGS='--rounds 5 --plots docs/performance'
bench: $(VENV)/.installed-test
	$(BIN)/python -m benchmarks all $(BENCH_ARGS)

bench-quick: $(VENV)/.installed-test
	$(BIN)/python -m benchmarks all --quick $(BENCH_ARGS)

bench-peers: $(VENV)/.installed-test $(SCPORTRAIT_VENV)/.installed $(CELLCUTTER_VENV)/.installed
	$(BIN)/python -m benchmarks.peers --scportrait $(SCPORTRAIT_VENV)/bin/python \
		--cellcutter $(CELLCUTTER_VENV)/bin/python $(BENCH_ARGS)

bench-loading: $(SCPORTRAIT_VENV)/.installed $(ANNBATCH_VENV)/.installed
	$(SCPORTRAIT_VENV)/bin/python -m benchmarks.loading_formats --annbatch $(ANNBATCH_VENV)/bin/python $(BENCH_ARGS)

clean:
	rm -rf .venv .venv-* build dist docs/_build demo-output benchmarks/.data benchmarks/__pycache__ .*_cache .hypothesis
	find src tests interop -name __pycache__ -type d -prune -exec rm -rf {} +

# One marker file for each extra; a changed pyproject.toml makes all of them out of date.
$(VENV)/.installed-%: pyproject.toml | $(VENV)/bin/python
	@echo "Installing cellstamp[$*] and the packages it needs into $(VENV) (1 to 3 minutes) ..."
	@.ci/install $(BIN)/python --editable '.[$*]'
	@touch $@

# zarr 3.1.3 and matplotlib 3.9 warn with newer numcodecs and pyparsing, also where a test makes warnings errors.
$(LOWEST_VENV)/.installed: pyproject.toml $(UV_VENV)/.installed
	@echo "Installing the oldest supported releases into $(LOWEST_VENV) ..."
	@$(OLDEST_PYTHON) -m venv --clear $(LOWEST_VENV)
	@$(UV_VENV)/bin/uv pip install --quiet --python $(LOWEST_VENV)/bin/python --resolution lowest-direct \
		--editable '.[test]' 'numcodecs==0.16.1' 'pyparsing==3.2.*'
	@touch $@

$(UV_VENV)/.installed:
	@$(PYTHON) -m venv $(UV_VENV)
	@$(UV_VENV)/bin/python -m pip install -qq --disable-pip-version-check packaging uv
	@touch $@

$(SCPORTRAIT_VENV)/.installed: interop/setup_scportrait.sh interop/requirements.txt
	@echo "Installing scportrait and what the tests with it need into $(SCPORTRAIT_VENV) (about 3 GB) ..."
	@PYTHON='$(PYTHON)' interop/setup_scportrait.sh $(SCPORTRAIT_VENV)
	@touch $@

$(READERS_VENV)/.installed: pyproject.toml interop/slide_readers/requirements.txt
	@echo "Installing spatialdata-io, sopa and cellstamp into $(READERS_VENV) (about 1.2 GB) ..."
	@$(PYTHON) -m venv --clear $(READERS_VENV)
	@.ci/install $(READERS_VENV)/bin/python --requirement interop/slide_readers/requirements.txt --editable .
	@touch $@

$(ANNBATCH_VENV)/.installed: interop/annbatch_requirements.txt
	@echo "Installing annbatch into $(ANNBATCH_VENV) ..."
	@$(ANNBATCH_PYTHON) -m venv --clear $(ANNBATCH_VENV)
	@$(ANNBATCH_VENV)/bin/python -m pip install -qq --disable-pip-version-check \
		--requirement interop/annbatch_requirements.txt
	@touch $@

$(CELLCUTTER_VENV)/.installed:
	@$(PYTHON) -m venv $(CELLCUTTER_VENV)
	@$(CELLCUTTER_VENV)/bin/python -m pip install -qq --disable-pip-version-check cellcutter==0.2.13
	@touch $@

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and \
		"cellstamp needs Python 3.11 or newer; $(PYTHON) is %d.%d. Try: make PYTHON=python3.11 ..." % v[:2])'
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "$(PYTHON) cannot make a virtual environment (on Debian and Ubuntu: install python3-venv)." >&2; exit 1; }

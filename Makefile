# `make test` and `make demo` need python3 (3.11 or newer) and make, nothing else: they make their own environment.
# Another interpreter: `make test PYTHON=python3.13`; each has its own environment.

PYTHON ?= python3
ifeq ($(PYTHON),python3)
VENV ?= .venv
else
VENV ?= .venv-$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
endif
BIN := $(VENV)/bin
# Everything is read and executed again: pages do not change when the library they execute does.
SPHINX = $(BIN)/sphinx-build -E -W --keep-going -q

# Test processes (many tests start workers of their own), and further arguments for pytest.
JOBS ?= 2
PYTEST_ARGS ?=
BENCH_ARGS ?=
DEMO_FOLDER ?= demo-output
SCPORTRAIT_VENV ?= .venv-scportrait
CELLCUTTER_VENV ?= .venv-cellcutter

.PHONY: help demo test faults scportrait check docs linkcheck format wheel test-wheel bench bench-quick \
	bench-peers clean
.NOTPARALLEL:
.DELETE_ON_ERROR:

help:
	@echo "make demo     segment, extract and draw the cells of a real image, into $(DEMO_FOLDER)/"
	@echo "make test     run the tests (another interpreter: make test PYTHON=python3.13)"
	@echo "make faults   kill 40 extractions at random moments and go on with them, and more of the kind"
	@echo "make scportrait  the tests beside the published scportrait, and with torch (an environment of 3 GB is made)"
	@echo "make check    style, types, import rules, documentation"
	@echo "make docs     build the documentation into docs/_build/html/"
	@echo "make linkcheck   ask every link to the world in it (needs a network)"
	@echo "make wheel    build the source archive and the wheel into dist/, and look at what is in it"
	@echo "make test-wheel  run the tests with the wheel in an empty environment (of PYTHON=python3.12, say)"
	@echo "make format   put the code into the project's style"
	@echo "make bench    measure stages and whole extractions, compare with the run before (make bench-quick: tiny)"
	@echo "make bench-peers  the same extraction with scportrait and cellcutter, in turn (environments of 4 GB are made)"
	@echo "make clean    remove environments, caches and what was built"

demo: $(VENV)/.installed-demo
	$(BIN)/cellstamp demo $(DEMO_FOLDER)

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(PYTEST_ARGS)

faults: $(VENV)/.installed-test
	CELLSTAMP_KILLS=40 $(BIN)/python -m pytest -q \
		tests/test_unfinished.py tests/test_small_disk.py tests/test_real_cgroup.py tests/test_engines.py \
		tests/test_soak.py $(PYTEST_ARGS)

# Apart from `make test`: torch is in no other environment, and scportrait needs much, and older releases of some libraries.
scportrait: $(SCPORTRAIT_VENV)/.installed
	$(SCPORTRAIT_VENV)/bin/python -m pytest interop $(PYTEST_ARGS)
	$(SCPORTRAIT_VENV)/bin/python -m pytest -c interop/pytest.ini --rootdir . --noconftest tests/test_torch.py $(PYTEST_ARGS)

# The documentation's notebooks run beside the rest: each of the two takes one core.
check: $(VENV)/.installed-dev
	@$(SPHINX) -b html docs docs/_build/html & docs=$$!; \
		$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports; code=$$?; \
		wait $$docs && exit $$code

docs: $(VENV)/.installed-dev
	$(SPHINX) -b html docs docs/_build/html

linkcheck: $(VENV)/.installed-dev
	$(SPHINX) -D nb_execution_mode=off -b linkcheck docs docs/_build/linkcheck

wheel:
	.ci/wheel '$(PYTHON)'

test-wheel: wheel
	.ci/test-wheel '$(PYTHON)' -n $(JOBS) --dist loadfile $(PYTEST_ARGS)

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

clean:
	rm -rf .venv .venv-* build dist docs/_build demo-output benchmarks/.data benchmarks/__pycache__ .*_cache .hypothesis
	find src tests interop -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp for each extra; all are made again when what they install may have changed.
$(VENV)/.installed-%: pyproject.toml | $(VENV)/bin/python
	@echo "Installing cellstamp[$*] and the packages it needs into $(VENV) (1 to 3 minutes) ..."
	@.ci/install $(BIN)/python --editable '.[$*]'
	@touch $@

$(SCPORTRAIT_VENV)/.installed: interop/setup_scportrait.sh interop/requirements.txt interop/requirements-no-deps.txt
	@echo "Installing scportrait and what the tests with it need into $(SCPORTRAIT_VENV) (about 3 GB) ..."
	@PYTHON='$(PYTHON)' interop/setup_scportrait.sh $(SCPORTRAIT_VENV)
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

# SPDX-License-Identifier: MIT
#
# Each target sets up what it needs first: tools/setup installs missing system packages and makes
# the virtual environment, and the extension is built when a file it is made of changed.
#
#   KERNEL=6.12           which kernel `make lab` and `make mutants` boot
#   AS=6.6                which older kernel it plays meanwhile
#   LAUNCHER=vng          boot it with virtme-ng, this machine's own files as root
#   REPEAT=10             run the tests of `make lab` so often on each kernel
#   T='tests/smoke/...'   which tests: files, directories or node ids, separated by spaces
#   ARGS='-x -k echo'     more arguments for pytest, quoted as in a shell
#   SLOW=1                take the tests marked slow as well
#   JOBS=2                share the tests of `make test` between so many processes
#   PYTHON=python3.13     another Python than python3; it gets an environment of its own

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-builtin-rules --no-print-directory
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# GNU make knows an AS of its own, the assembler; on the command line ours wins.
AS :=
PYTHON ?= python3
VENV := .venv$(if $(filter-out python3,$(PYTHON)),-$(notdir $(PYTHON)))
BIN := $(VENV)/bin

# Written by tools/setup: SUFFIX, which only this very Python can tell.
-include .make/$(VENV).mk
NATIVE = ioxide/_ring/_native$(SUFFIX)
SOURCES := setup.py $(filter-out %/_native.c,$(wildcard ioxide/_ring/*.[ch] ioxide/_ring/*.cdef ioxide/_ring/plain/* ioxide/_ring/*.py))

# make hands T and SLOW on as environment variables. T is split at spaces and nothing else (set -f),
# because a node id may hold brackets and whatever else a parameter is called.
RUN = @set -f; $(BIN)/python -m

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' Makefile
	@sed -n 's/^#   \([A-Z]*=\)/\1/p' Makefile

.PHONY: setup
setup: ## Install missing system packages and make the virtual environment
	@tools/setup '$(PYTHON)' '$(VENV)'

.PHONY: build
build: setup ## Build the extension module in place
	@$(MAKE) native

# A make of its own, because SUFFIX may be known only since set-up has run.
.PHONY: native
ifdef SUFFIX
native: $(NATIVE)
	@:

# Forced: make has seen that something changed, and distutils looks at fewer files than make.
$(NATIVE): $(SOURCES)
	@IOXIDE_FAULTS=1 flock .make/lock $(BIN)/python setup.py -q build_ext --inplace --force
endif

# A file stays in one process: its tests may share what is dear to set up.
JOBS ?= 2
SPREAD = $(if $(filter-out 1,$(JOBS)),-n '$(JOBS)' --dist loadfile)

.PHONY: test
test: build ## Check style, types and imports, then run the tests on this machine (with T= only those tests)
ifndef T
	@$(MAKE) lint
endif
	$(RUN) pytest $(if $(T),,$(SPREAD)) $${T-} $(ARGS)

MINUTES ?= 2
.PHONY: differential
differential: build ## Compare the loop with asyncio's own for MINUTES=2, on scenarios at random
	$(RUN) tests.differential --minutes '$(MINUTES)' $(ARGS)

.PHONY: cpython
cpython: build ## Run CPython's own tests of asyncio on our loop (its package test must be there)
	$(RUN) tests.cpython

.PHONY: conformance
conformance: build ## Run other projects' tests and programs on our loop (T=: only those named)
	$(RUN) tests.conformance $${T-} $(ARGS)

.PHONY: fuzz
fuzz: build ## Look for holes in the lab with hostile guests at random, for MINUTES=2
	$(RUN) tests.lab.fuzz --minutes '$(MINUTES)' $(ARGS)

.PHONY: hostile-programs
hostile-programs: build ## See the worst programs through in a real 6.12 guest
	$(RUN) pytest tests/lab/hostile_programs.py $(ARGS)

.PHONY: lab-pythons
lab-pythons: build ## Test the lab's plugin under each Python and pytest it is for (KERNEL=: and in a guest)
	$(RUN) tests.lab.pythons $(if $(strip $(KERNEL)),--kernel "$$KERNEL") $(ARGS)

.PHONY: mutants
mutants: build ## Put known bugs back, one at a time, and see their tests turn red (KERNEL=: in a guest)
	$(RUN) tests.mutants $(if $(strip $(KERNEL)),--kernel "$$KERNEL") $(ARGS)

.PHONY: lab
ifeq ($(strip $(KERNEL)),)
lab:
	@echo 'make lab needs to know which kernel: make lab KERNEL=6.12' >&2; exit 2
else
lab: build ## Boot KERNEL in QEMU, run the tests in it and give each a verdict
	$(RUN) lab test --kernel "$$KERNEL" $(if $(AS),--as '$(AS)') $(if $(LAUNCHER),--launcher '$(LAUNCHER)') $(if $(REPEAT),--repeat '$(REPEAT)') $${T-} $(ARGS)
endif

.PHONY: lab-liburing
lab-liburing: build ## Run liburing's own test programs on 6.1, 6.12 and the newest kernel, and fill docs/liburing.md
	$(RUN) tests.others.liburing $(ARGS)

.PHONY: lab-sweep
lab-sweep: build ## Run liburing's quick programs on the newest kernel of each series, and fill docs/liburing-sweep.md
	$(RUN) tests.others.swept $(ARGS)

.PHONY: lab-psutil
lab-psutil: build ## Run psutil's own tests on this machine and in 6.1 and 6.12, and compare
	$(RUN) tests.others.psutil_suite $(ARGS)

.PHONY: probe
probe: build ## Say what this machine's io_uring can do, with the evidence
	$(RUN) ioxide probe $(ARGS)

.PHONY: gate
gate: build ## Count what a request costs: instructions, system calls, posts, asyncio handles
	@$(BIN)/python -m bench gate $(ARGS)

.PHONY: bench-memory
bench-memory: build ## Measure what loops and connections have resident, idle, busy and afterwards
	@$(BIN)/python -m bench memory $(ARGS)

.PHONY: bench-unread
bench-unread: build ## Measure a busy connection alone and beside 10,000 that are paused
	@$(BIN)/python -m bench unread $(ARGS)

.PHONY: bench-affinity
bench-affinity: build ## Measure the continuation modes and fill docs/affinity.md, on a quiet machine
	@$(BIN)/python -m bench affinity $(ARGS)

.PHONY: bench-peers
bench-peers: build ## Measure ioxide beside uvloop, asyncio, others and bare C for docs/peers.md, on a quiet machine
	@$(BIN)/python -m bench peers $(ARGS)

.PHONY: soak
soak: build ## Everything at random at once for MINUTES=2, then the books must balance
	$(RUN) tests.soak --minutes '$(MINUTES)' $(ARGS)

.PHONY: sanitize
sanitize: build ## Run the tests with the C part under AddressSanitizer and UndefinedBehaviorSanitizer
	@tools/sanitize $(BIN)/python $${T-tests/smoke tests/kernel_gated} $(ARGS)

.PHONY: lint
lint: build ## Check style, types, which module imports which, and the workflows
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-logo --no-cache >.make/imports.log 2>&1 || { cat .make/imports.log; exit 1; }
	@$(BIN)/zizmor --offline --quiet --no-progress .github >.make/zizmor.log 2>&1 || { cat .make/zizmor.log; exit 1; }
	@! command -v go >/dev/null || tools/actionlint

.PHONY: workflow
workflow: build ## Run the commands of .github/workflows/ci.yml here (ARGS='lab check': only these jobs)
	$(RUN) tools.workflow $(ARGS)

.PHONY: format
format: setup ## Format the Python files
	@$(BIN)/ruff format .

.PHONY: clean
clean: ## Remove what was built and the tools' caches; environments and lab-results stay
	@rm -rf build *.egg-info ioxide/_ring/_native.c ioxide/_ring/_native*.so .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -path './.venv*' -prune -o -name __pycache__ -prune -exec rm -rf {} +

.PHONY: distclean
distclean: clean ## Remove the virtual environments as well
	@rm -rf .venv* .make

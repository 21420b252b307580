# Each target works from a fresh clone on Debian or Ubuntu with git, make, cargo, a C compiler and python3.
SHELL := /bin/bash
TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
CC ?= cc
# What stands for AMD's runtime and card in the tests.
EMULATOR := tests/emulator
QUESTION ?= Why is the sky blue?
# Measured by `make bench`; see benches/compare.py for LLAMA_BIN.
THREADS ?= 1 $(shell nproc)
# The cargo profile that `build` and `install` use, and the one that the bindings are tested with.
PROFILE ?= release
TEST_PROFILE ?= quick
BUILT := $(TARGET)/$(if $(filter dev,$(PROFILE)),debug,$(PROFILE))
# Where `install` puts things: see scripts/install.sh.
PREFIX ?= /usr/local
INSTALL := PREFIX="$(PREFIX)" DESTDIR="$(DESTDIR)" BINDIR="$(BINDIR)" LIBDIR="$(LIBDIR)" INCLUDEDIR="$(INCLUDEDIR)" \
	DATADIR="$(DATADIR)" scripts/install.sh

.PHONY: help demo build install uninstall models test test-bindings selftest bench header clean
.DEFAULT_GOAL := help

help:  ## Print this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /make \1\t/' | expand -t 22

# With `build`'s features, so that `build` has the library already.
demo:  ## Build the library, fetch a small model and let examples/c/generate.c answer QUESTION
	@scripts/setup.sh build
	cargo build --release --lib --features cli
	@model=$$(scripts/fetch_models.py --path smollm2) && \
	$(CC) -std=c99 -O2 -Wall -Wextra -Iinclude examples/c/generate.c -o $(TARGET)/release/generate \
		-L$(TARGET)/release -lrocmforge -Wl,-rpath,$(TARGET)/release && \
	echo && echo "> $(QUESTION)" && $(TARGET)/release/generate "$$model" "$(QUESTION)"

build:  ## Build librocmforge.so, librocmforge.a and the command line, optimised
	@scripts/setup.sh build
	cargo build --profile $(PROFILE) --features cli

# Built only if a source is newer: `sudo make install` after `make build` needs no cargo.
$(BUILT)/rocmforge: $(shell find src kernels -type f) build.rs Cargo.toml Cargo.lock
	@$(MAKE) --no-print-directory build

install: $(BUILT)/rocmforge  ## Install libraries, headers, pkg-config and CMake files, command line (PREFIX, DESTDIR)
	@$(INSTALL) install $(BUILT)

uninstall:  ## Remove what `make install` with the same PREFIX and DESTDIR put there
	@$(INSTALL) uninstall

# SmolLM2 is freely licensed and small: nothing works without it. The others may vanish from where they are; outside CI
# their tests are then skipped, and say so.
models:  ## Fetch the models that the tests run
	@scripts/fetch_models.py smollm2
	@scripts/fetch_models.py gemma3-270m qwen2.5-0.5b || { [ -z "$$CI" ] && \
		echo "SKIPPED: tests of models that could not be fetched (see above); in CI this is a failure" >&2; }

# Other tests keep to the CPU, whatever GPU the machine has; those of GPUs name theirs.
test:  ## Install what is missing, fetch the models, check format and lints, run all tests
	@scripts/setup.sh test
	@$(MAKE) --no-print-directory models
	cargo fmt --check
	cargo clippy --all-targets --features cli -- -D warnings
	cargo build --release --manifest-path $(EMULATOR)/Cargo.toml --target-dir $(TARGET)/emulator
	ROCMFORGE_HIP_LIBRARY=$(TARGET)/emulator/release/libamdhip64.so ROCMFORGE_GPU_DEVICE=none \
		cargo test --features cli --no-fail-fast
	cargo test --release --manifest-path $(EMULATOR)/Cargo.toml --target-dir $(TARGET)/emulator
	@$(MAKE) --no-print-directory test-bindings PROFILE=$(TEST_PROFILE)
	@echo "make test: format, lints and tests passed"

test-bindings: $(BUILT)/rocmforge  ## Install into a clean prefix and test C, C++, Go and C# from there
	scripts/test_bindings.sh $(BUILT)

selftest: build  ## Check that GPU DEVICE (0) computes what the CPU does: the command for owners of a card
	$(BUILT)/rocmforge devices
	$(BUILT)/rocmforge selftest --device $(or $(DEVICE),0)

bench: build  ## Measure products, load, prefill, decode and memory (LLAMA_BIN=DIR: side by side with llama.cpp)
	@for n in $(THREADS); do cargo bench --bench op -- $$n || exit 1; done
	@cargo bench --bench load -- $$(scripts/fetch_models.py --path smollm2)
	@model=$$(scripts/fetch_models.py --path smollm2) && \
	if [ -n "$(LLAMA_BIN)" ]; then \
		benches/compare.py --rocmforge $(BUILT)/rocmforge --llama-bin "$(LLAMA_BIN)" --threads $(THREADS) -- $$model; \
	else \
		for n in $(THREADS); do $(BUILT)/rocmforge bench --threads $$n "$$model" || exit 1; done; \
	fi

header:  ## Write include/rocmforge.h anew from src/capi
	RF_UPDATE_HEADER=1 cargo test --test header

clean:  ## Remove what was built (the models' cache stays)
	cargo clean

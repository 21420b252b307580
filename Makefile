# Each target works from a fresh clone on Debian or Ubuntu with git, make, cargo, a C compiler and python3.
SHELL := /bin/bash
TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
CC ?= cc
QUESTION ?= Why is the sky blue?
# Measured by `make bench`; see benches/compare.py for LLAMA_BIN.
THREADS ?= 1 $(shell nproc)

.PHONY: help demo build models test selftest bench header clean
.DEFAULT_GOAL := help

help:  ## Print this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /make \1\t/' | expand -t 16

demo:  ## Build the library, fetch a small model and let examples/c/generate.c answer QUESTION
	@scripts/setup.sh build
	cargo build --release --lib
	@model=$$(scripts/fetch_models.py --path smollm2) && \
	$(CC) -std=c99 -O2 -Wall -Wextra -Iinclude examples/c/generate.c -o $(TARGET)/release/generate \
		-L$(TARGET)/release -lrocmforge -Wl,-rpath,$(TARGET)/release && \
	echo && echo "> $(QUESTION)" && $(TARGET)/release/generate "$$model" "$(QUESTION)"

build:  ## Build librocmforge.so, librocmforge.a and the command line, optimised
	@scripts/setup.sh build
	cargo build --release --features cli

# SmolLM2 is freely licensed and small: nothing works without it. The others may vanish from where they are; outside CI
# their tests are then skipped, and say so.
models:  ## Fetch the models that the tests run
	@scripts/fetch_models.py smollm2
	@scripts/fetch_models.py gemma3-270m qwen2.5-0.5b || { [ -z "$$CI" ] && \
		echo "SKIPPED: tests of models that could not be fetched (see above); in CI this is a failure" >&2; }

test:  ## Install what is missing, fetch the models, check format and lints, run all tests
	@scripts/setup.sh test
	@$(MAKE) --no-print-directory models
	cargo fmt --check
	cargo clippy --all-targets --features cli -- -D warnings
	ROCMFORGE_GPU_DEVICE=none cargo test --features cli --no-fail-fast
	cargo test --release --manifest-path tests/emulator/Cargo.toml --target-dir $(TARGET)/emulator
	@echo "make test: format, lints and tests passed"

selftest: build  ## Check that GPU DEVICE (0) computes what the CPU does: the command for owners of a card
	$(TARGET)/release/rocmforge devices
	$(TARGET)/release/rocmforge selftest --device $(or $(DEVICE),0)

bench: build  ## Measure products, load, prefill, decode and memory (LLAMA_BIN=DIR: side by side with llama.cpp)
	@for n in $(THREADS); do cargo bench --bench op -- $$n || exit 1; done
	@cargo bench --bench load -- $$(scripts/fetch_models.py --path smollm2)
	@model=$$(scripts/fetch_models.py --path smollm2) && \
	if [ -n "$(LLAMA_BIN)" ]; then \
		benches/compare.py --rocmforge $(TARGET)/release/rocmforge --llama-bin "$(LLAMA_BIN)" --threads $(THREADS) --prompt 512 32 -- $$model; \
	else \
		for n in $(THREADS); do $(TARGET)/release/rocmforge bench --threads $$n --sessions 8 "$$model" || exit 1; done; \
	fi

header:  ## Write include/rocmforge.h anew from src/capi
	RF_UPDATE_HEADER=1 cargo test --test header

clean:  ## Remove what was built (the models' cache stays)
	cargo clean

# Everything here works as root and as a normal user, without a terminal and without input.
SHELL := /bin/bash
export PATH := $(PATH):$(or $(CARGO_HOME),$(HOME)/.cargo)/bin

.PHONY: build demo test lint mutants clean tools

build: tools
	cargo build --release

# Two throwaway clusters, five days of messages, five equality proofs: see demo/demo.sh.
demo:
	@demo/demo.sh

test: tools
	cargo test --all-targets

lint: tools
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings

# Breaks each promise on purpose and expects its test to notice. Some of them: make mutants ONLY=prune
mutants: tools
	tests/mutants/run --self-test
	tests/mutants/run $(ONLY)

clean:
	cargo clean
	rm -rf .mutants

tools:
	@scripts/install-debian

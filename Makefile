# Everything here works as root and as a normal user, without a terminal and without input.
SHELL := /bin/bash
export PATH := $(PATH):$(or $(CARGO_HOME),$(HOME)/.cargo)/bin

.PHONY: build demo test test-providers lint mutants clean tools

build: tools
	cargo build --release

# Two throwaway clusters, five days of messages, four equality proofs: see demo/demo.sh. STORE says what lies between
# them: folder (so it is without it), http (the same folder through nginx) or s3 (a bucket).
demo:
	@STORE=$(STORE) demo/demo.sh

# Everything publishes to a folder first. Then what publishes anywhere does so again, to an S3 server, but for the tests
# that name their store themselves or have none.
test: tools
	cargo build --example strict-s3
	cargo test --all-targets
	PGSLICE_TEST_STORE=s3 cargo test --test services -- $(addprefix --skip ,$(OF_ONE_STORE))

OF_ONE_STORE := bucket harness:: http_ pg:: readme:: s3_server store:: web::

lint: tools
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	@if docker compose version >/dev/null 2>&1; then \
	    echo "docker compose config --quiet" && docker compose config --quiet; \
	else \
	    echo "Left out: docker-compose.yml was not checked, there is no \"docker compose\" here."; \
	fi

# Against S3 servers that others wrote, see docs/providers.md: 3 to 5 minutes on two cores, and 3 more the first time,
# when the servers are installed. One of them: make test-providers ONLY=moto
test-providers: tools
	cargo build
	tests/providers/run $(ONLY)

# Breaks each promise on purpose and expects its test to notice. Some of them: make mutants ONLY=prune
mutants: tools
	tests/mutants/run --self-test
	tests/mutants/run $(ONLY)

clean:
	cargo clean
	rm -rf .mutants

tools:
	@scripts/install-debian

# Everything here works as root and as a normal user, without a terminal and without input.
SHELL := /bin/bash
export PATH := $(PATH):$(or $(CARGO_HOME),$(HOME)/.cargo)/bin

.PHONY: bench build demo test test-histories test-matrix test-midnight test-providers lint mutants clean tools

build: tools
	cargo build --release

# Two throwaway clusters, five days of messages, four equality proofs: see demo/demo.sh. STORE says what lies between
# them: folder (so it is without it), http (the same folder through nginx) or s3 (a bucket).
demo:
	@STORE=$(STORE) demo/demo.sh

# The releases of PostgreSQL that are tested against each other beside Debian's: the oldest and the newest, of which the
# first run fetches about 23 MB each from npm (scripts/install-postgresql-majors). There is no 13 for arm64.
MAJORS ?= $(if $(filter x86_64,$(shell uname -m)),13,16) 18

# Everything publishes to a folder first. Then what publishes anywhere does so again, to an S3 server, but for the tests
# that name their store themselves or have none.
test: tools
	@scripts/install-debian $(MAJORS)
	@scripts/install-csv-readers
	cargo build --example strict-s3
	PGSLICE_TEST_MAJORS="$(MAJORS)" cargo test --all-targets
	PGSLICE_TEST_STORE=s3 cargo test --test services -- $(addprefix --skip ,$(OF_ONE_STORE))

OF_ONE_STORE := bucket check:: connections:: csv_readers:: harness:: hostile_defaults:: http_ majors:: midnight:: pg:: pool readme:: \
    s3_server shapes:: store:: topologies:: types:: web:: zones::

# Every release from 13 to 18 as source and as replica of every other, see docs/postgres.md. Some of them:
# make test-matrix ONLY="13 16"
test-matrix: tools
	tests/matrix/run $(ONLY)

# Ten minutes of 40 writers around a midnight, to which the source's clock is moved; "make test" does it for 40 seconds
# with 8. Other lengths: make test-midnight MIDNIGHT_SECS=120 MIDNIGHT_WRITERS=20
MIDNIGHT_SECS ?= 600
MIDNIGHT_WRITERS ?= 40
test-midnight: tools
	MIDNIGHT_SECS=$(MIDNIGHT_SECS) MIDNIGHT_WRITERS=$(MIDNIGHT_WRITERS) \
	    cargo test --test services midnight:: -- --nocapture

# A thousand random histories with schema changes, moves, erasures and full dumps; "make test" has 12 of them. Others:
# make test-histories DUMP_HISTORIES=100 SEED=5000
DUMP_HISTORIES ?= 1000
test-histories: tools
	DUMP_HISTORIES=$(DUMP_HISTORIES) cargo test --test services full_dump_histories:: -- --nocapture

# pgslice and its peers side by side, into docs/performance.md: half an hour on two quiet cores, and see
# benches/README.md. Some groups: make bench ONLY="export load"; a short form, which only tries the harness:
# make bench SCALE=0.01 ROUNDS=1
bench: tools
	@scripts/install-bench
	cargo build --release --bins --example strict-s3
	@ROUNDS=$(ROUNDS) SCALE=$(SCALE) ONLY="$(ONLY)" MEMORY=$(MEMORY) ARCHIVE="$(ARCHIVE)" benches/run.py \
	    $(or $(CARGO_TARGET_DIR),target)/release/pgslice $(or $(CARGO_TARGET_DIR),target)/release/examples/strict-s3

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

# Every check that CI runs has a name here, and CI runs it by that name. `make help` lists them.

SHELL := /bin/sh
# Tools that are installed here go to .peers, never to the machine; rustup's own place comes last.
export PATH := $(CURDIR)/.peers/bin:$(PATH):/usr/sbin:/sbin:$(HOME)/.cargo/bin

# Options of the demo, for example `make run ARGS="--dir demo --port 9443"`.
ARGS ?=
# Tests to run, for example `make test ONLY=reverse_proxy`.
ONLY ?=
# Works to measure, for example `make bench WORK=h1,tunnel`; a look of minutes with QUICK=1.
WORK ?=
QUICK ?=
# How long each fuzz target runs, in seconds.
SECONDS_EACH ?= 60

.PHONY: help run test peers build-tools check deny audit bench bench-stages fuzz release certs clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1|\2/p' Makefile | \
	    awk -F'|' '{ printf "%-16s %s\n", $$1, $$2 }'

run: ## the demo: gateway and everything around it, on loopback; Ctrl-C ends it
	@sh tests/peers.sh run
	cargo build --locked --bin ravelin
	cargo run --locked --quiet -- demo $(ARGS)

test: build-tools peers ## every test, those that talk to other programs too
	cargo build --locked --tests
	@# A thousand tunnels at once need more descriptors than many machines give by default.
	@# Those that build a network of their own need root, and only they get it.
	ulimit -n "$$(ulimit -Hn)" 2>/dev/null || true; \
	if [ "$$(id -u)" -eq 0 ]; then \
	    cargo test --locked --lib --bins --tests -- --include-ignored $(ONLY); \
	else \
	    cargo test --locked --lib --bins --tests -- --include-ignored --skip dmz:: $(ONLY) && \
	    case "$(ONLY)" in "" | dmz*) \
	        cargo test --locked --config 'target."cfg(unix)".runner = "sudo"' --test it -- \
	            --include-ignored "$(or $(ONLY),dmz::)" ;; \
	    esac; \
	fi

peers: ## install the programs that tests talk to, when they are missing
	@sh tests/peers.sh

build-tools:
	@sh tests/peers.sh build

check: build-tools ## rustfmt, clippy and rustdoc, each without a warning
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --lib

deny: .peers/bin/cargo-deny ## licences, duplicate and banned crates, sources
	cargo deny --locked check bans licenses sources

audit: .peers/bin/cargo-deny ## known vulnerabilities; needs the advisory database
	cargo deny --locked check advisories

bench: build-tools ## what the gateway costs beside its peers; an hour, on a quiet machine
	@sh tests/peers.sh bench
	cargo build --locked --release --bin ravelin
	cargo run --locked --release --quiet --bin ravelin -- bench --peers benches/peers \
	    --out benches/results $(if $(WORK),--work $(WORK)) $(if $(QUICK),--quick)

bench-stages: build-tools ## what single stages cost in memory
	cargo bench --locked

fuzz: build-tools .peers/bin/cargo-fuzz ## a minute of each fuzz target
	@for target in $$(cargo fuzz list); do \
	    echo "cargo fuzz run -s none $$target"; \
	    cargo fuzz run -s none "$$target" -- -max_total_time=$(SECONDS_EACH) || exit 1; \
	done

release: build-tools ## the binary to ship, in target/release
	cargo build --locked --release --bin ravelin

certs: ## test certificates in certs/, for trying a configuration of your own
	sh certs/make.sh

clean: ## what was built and made here; .peers stays
	cargo clean
	rm -f certs/*.pem certs/*.key

.peers/bin/cargo-deny:
	cargo install --locked --root .peers --version '^0.20' cargo-deny

.peers/bin/cargo-fuzz:
	cargo install --locked --root .peers --version '^0.13' cargo-fuzz

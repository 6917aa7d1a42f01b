# `make test` and `make e2e` are all that CI runs; they fetch what they need.
.PHONY: image test lint unit simulate mutants fuzz crash drain e2e soak parts demo page evaluate scale deny

test: parts lint unit

# The real servers of the tests, in a cache: from Debian's packages, and Kubernetes from its Go modules.
parts:
	@tests/parts.sh >/dev/null

lint:
	cargo fmt --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo clippy --locked --test e2e -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items

# Most tests wait for servers: one more at a time than there are cores. Random runs take what that leaves of the cores.
SLICE ?= 10000
unit:
	cargo test --locked --workspace --no-run
	@said=$$(mktemp); \
	nice cargo test --locked --workspace --test simulate -- --seeds $(SLICE) >$$said 2>&1 & simulate=$$!; \
	cargo test --locked --workspace --exclude simulate -- --test-threads=3; tested=$$?; \
	wait $$simulate; simulated=$$?; cat $$said; rm $$said; exit $$((tested + simulated))

# Random runs of the whole loop, in which every promise is asserted; one, with all that happened in it, and where a promise is
# broken the least that breaks it: `make simulate SIMULATE="--seed 7"`.
SEEDS ?= 100000
simulate:
	cargo test --locked --release --package simulate -- --seeds $(SEEDS) $(SIMULATE)

# One change of the core at a time, each of which its tests must notice: by quick ones, and where those notice nothing by all.
# `cargo install --locked cargo-mutants`; `make mutants MUTANTS="src/detect/**" SHARD=3/40`.
MUTANTS ?= src/guard/** src/isolate/ledger.rs src/isolate/plan.rs
SHARD ?= 0/1
mutate = env CARGO_TARGET_DIR=$(CURDIR)/target/mutated cargo mutants --package zoneward
mutants:
	rm -rf target/mutants.out
	$(mutate) $(MUTANTS:%=--file '%') --shard $(SHARD) -- -- guard:: isolate:: decide:: detect:: domain:: || \
	  { said=$$?; test $$said -eq 2 || test $$said -eq 3; }
	@test ! -s target/mutants.out/missed.txt || \
	  sed 's/[][\\.*^$$+?(){}|]/\\&/g; s/.*/--re=^&$$/' target/mutants.out/missed.txt | \
	  xargs -d '\n' $(mutate) $(MUTANTS:%=--file '%')

# What comes from outside, as bytes that anybody may have written, found by coverage: each target in turn, or TARGET=journal. It needs a
# C++ compiler. What breaks a promise ends it, and is written into target/fuzzing: put it into the target's corpus with its mending, so
# that `make test` runs it from then on. What it learns meanwhile stays in target/fuzzing, and the next run goes on from there. One
# authority instead of the machine's own makes each client in a hundredth of the time; none is asked over TLS.
FUZZ ?= 10m
TARGET ?= $(notdir $(wildcard tests/fuzz/corpus/*))
HOST = $(shell rustc --print host-tuple)
COVERAGE = -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
  -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares \
  -Cllvm-args=-simplifycfg-branch-fold-threshold=0
fuzz:
	RUSTFLAGS="$(COVERAGE)" cargo build --locked --profile fuzz --package fuzz --features libfuzzer --target $(HOST)
	@cd tests/fuzz && seconds=$$(echo $(FUZZ) | sed 's/h$$/*3600/; s/m$$/*60/; s/s$$//') && \
	for target in $(TARGET); do \
	  found=../../target/fuzzing/$$target && mkdir -p $$found/corpus && echo "$$target, for $(FUZZ)" && \
	  SSL_CERT_FILE=authority.pem SSL_CERT_DIR=/nonexistent ZONEWARD_FUZZ=$$target ../../target/$(HOST)/fuzz/fuzz -max_total_time=$$((seconds)) -artifact_prefix=$$found/ -timeout=10 \
	    -rss_limit_mb=4096 -print_final_stats=1 $$found/corpus corpus/$$target || exit 1; \
	done

# The daemon is killed at every write of an isolation and of a return; prints which.
crash: parts
	cargo test --locked --test it -- --nocapture crash::

# How long the mesh step takes for five thousand pods.
drain: parts
	cargo bench --locked --bench drain

# From fault to return on real parts, each a process of its own.
e2e: parts
	cargo test --locked --test e2e

# So long on real parts that are killed at random, or thirty days of the embedded world: `make soak SOAK=simulated`. The daemon is
# optimised, on dependencies that the tests have built. The seed is printed; `make soak SOAK="60m --seed 7"` draws the same again.
SOAK ?= 60m
soak: parts
	cargo test --locked --config profile.dev.package.zoneward.opt-level=2 --test e2e -- soak $(SOAK)

# The image, where there is Docker; no test builds it. `make image IMAGE=registry.example.org/zoneward:0.1.0`, and push it.
IMAGE ?= zoneward:0.1.0
image:
	docker build -t $(IMAGE) .

demo:
	cargo run --locked --release -- demo

# The status page in each state, to be looked at in a browser: narrow and wide, light and dark, with the keyboard alone.
PAGES ?= target/pages
page:
	ZONEWARD_PAGES=$(PAGES) cargo test --locked --test it -- page::
	@ls $(PAGES)/*.html

# How well the detector does, on made-up meshes: `make evaluate EVALUATE="--seeds 6 --families 'severe*' --details"`.
evaluate:
	cargo bench --locked --bench evaluate -- $(EVALUATE)

# What it costs, beside Prometheus and beside the same judgement as rules: `make scale SCALE="--services 100,1000"`, or
# SCALE=detect, days, backtest.
scale: parts
	cargo bench --locked --bench scale -- $(SCALE)

# Licences, bans and sources; advisories need the network: `cargo deny check`.
deny:
	cargo deny check licenses bans sources

# What kustomize takes of the alerts; a test says when it is out of date.
deploy/monitoring/prometheusrule.yaml: deploy/alerts.yaml
	{ echo '# Of alerts.yaml, by `make $@`.'; echo 'apiVersion: monitoring.coreos.com/v1'; echo 'kind: PrometheusRule'; \
	  echo 'metadata: {name: zoneward, namespace: zoneward, labels: {app.kubernetes.io/name: zoneward}}'; echo 'spec:'; \
	  sed -e '1,/^groups:/{/^groups:/!d}' -e 's/^/  /' $<; } >$@

# What editors read.
config/schema.json: config/default.yaml $(wildcard src/*/settings.rs src/notify/*.rs src/isolate/steps/*.rs src/isolate/steps/*/settings.rs)
	cargo run --locked -q -- schema >$@

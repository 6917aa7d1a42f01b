# `make test` is all that CI runs; it fetches what it needs.
.PHONY: test lint unit parts demo deny

test: parts lint unit

# The real servers of the tests, from Debian's packages, unpacked into a cache.
parts:
	@tests/parts.sh >/dev/null

lint:
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items

unit:
	cargo test --locked

demo:
	cargo run --locked --release -- demo

# Licences, bans and sources; advisories need the network: `cargo deny check`.
deny:
	cargo deny check licenses bans sources

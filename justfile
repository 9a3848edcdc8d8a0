# Aliases only: every recipe is one command that also works without just.

# Build and serve.
start *args:
    scripts/start {{args}}

# Every check, one summary.
test:
    scripts/test

# The tests alone.
unit *args:
    cargo test --workspace --locked {{args}}

# Format and lint.
lint:
    cargo fmt --all
    cargo clippy --workspace --all-targets --locked -- -D warnings
    cargo fmt --manifest-path fuzz/Cargo.toml
    cargo clippy --manifest-path fuzz/Cargo.toml --target-dir fuzz/target --all-targets --locked -- -D warnings

# The dependency arrows of docs/ARCHITECTURE.md, the normal build without the simulator, and the client without Linux.
arrows:
    scripts/check-arrows
    scripts/check-no-sim
    scripts/check-portable

# Fuzz each decoder for a number of seconds.
fuzz seconds="60":
    scripts/fuzz {{seconds}}

# A gigabyte of text through a broker that is stopped and killed on the way.
roundtrip *args:
    scripts/roundtrip {{args}}

# What this machine can do.
limits:
    cargo run --release --locked -p ringmq-bench -- limits

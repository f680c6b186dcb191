# What a developer does. `make check test` is what has to pass; .ci/run does the same.

TOOLS := target/tools

PREFIX ?= /usr
# What is installed and packed.
PROGRAM ?= target/release/roamhome

.PHONY: build demo check test soak bench fmt install deb install-deps

build:
	cargo build --release

demo: build
	target/release/roamhome demo

check: $(TOOLS)/bin/cargo-deny
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps
	$(TOOLS)/bin/cargo-deny check bans licenses sources

test: install-deps $(TOOLS)/bin/pjdfstest $(TOOLS)/bin/fsx
	cargo build
	export PATH="$(CURDIR)/$(TOOLS)/bin:$$PATH"; \
	if cargo nextest --version >/dev/null 2>&1; then cargo nextest run; else cargo test; fi

# Simulations for so many minutes; ends with one line.
soak:
	ROAMHOME_MINUTES=$(or $(MINUTES),10) cargo test --profile soak --test suite \
		nothing_is_lost_and_everybody_agrees -- --nocapture

bench: build install-deps
	bench/run

# The program, manual pages, completions, and what a login needs, for packages with DESTDIR. Changes no configuration that
# is there.
install:
	install -D -m 755 "$(PROGRAM)" "$(DESTDIR)$(PREFIX)/bin/roamhome"
	pam/install "$(DESTDIR)" "$(PREFIX)"

# target/roamhome_VERSION_ARCHITECTURE.deb
deb: build
	pam/packages/deb "$(PROGRAM)" target $(VERSION)

fmt:
	cargo fmt

install-deps:
	tests/install-deps.sh

# A cargo-deny that is installed already will do.
$(TOOLS)/bin/cargo-deny:
	mkdir -p $(TOOLS)/bin
	if found=$$(command -v cargo-deny); then ln -sf "$$found" $@; \
	else cargo install --locked --root $(TOOLS) cargo-deny; fi

$(TOOLS)/bin/pjdfstest:
	cargo install --locked --root $(TOOLS) pjdfstest@0.2.2

$(TOOLS)/bin/fsx:
	cargo install --locked --root $(TOOLS) fsx@0.3.2

# Everything a developer does, one word each. Needs Python 3.11 or later, git and make; `make help` lists the words.

SHELL := /bin/sh
.SHELLFLAGS := -eu -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# The first of these that is new enough; `make PYTHON=/path/to/python …` overrides.
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3; do \
	if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then echo $$python; break; fi; done)

BIN := .venv/bin
INSTALLED := .venv/installed
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input --quiet
# Extras stay: without them pip before 23.3 looks for the newest `coverage[toml]`, and finds that it is not pinned.
COMPILE := pip-compile --quiet --generate-hashes --allow-unsafe --no-strip-extras --no-emit-index-url \
	--no-emit-find-links --no-emit-trusted-host --no-header --no-annotate

# Shell: install Debian's packages in $missing, if there are any and we are root; else say so and fail. 1: why, a sentence
define apt-install
if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then \
		echo "$(1). Debian: sudo apt-get install $$missing" >&2; exit 1; fi; \
	echo "installing $$missing"; \
	export DEBIAN_FRONTEND=noninteractive; \
	apt-get update -qq; \
	apt-get install -qq -y --no-install-recommends $$missing >/dev/null
endef

.PHONY: help
help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1 /p' Makefile | while read -r target what; do printf '  %-16s %s\n' "$$target" "$$what"; done

.PHONY: install
install: $(INSTALLED) ## make .venv with all that running, testing and checking need, pinned and checked by hash

# What running needs is a part of what testing needs, in the same versions: whichever comes second adds to the other.
.venv/running: requirements.txt requirements-build.txt pyproject.toml
	@if [ -z '$(PYTHON)' ]; then \
		echo 'Python 3.11 or later is needed and none was found: install it, or name it: make PYTHON=/path/to/python install' >&2; \
		exit 1; fi
	@if ! $(PYTHON) -m ensurepip --version >/dev/null 2>&1; then \
		version=$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
		echo "$(PYTHON) cannot make virtual environments: apt-get install python$$version-venv" >&2; \
		exit 1; fi
	@if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then $(PYTHON) -m venv --clear .venv; fi
	@echo 'installing into .venv'
	@$(PIP) install --require-hashes -r requirements.txt -r requirements-build.txt
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(INSTALLED): requirements-dev.txt .venv/running
	@echo 'installing what tests and checks need into .venv'
	@$(PIP) install --require-hashes -r requirements-dev.txt
	@touch $@

.PHONY: run
run: .venv/running ## show the service at work: with a sandbox Rivya, or for real when RIVYA_API_KEY is set; KEEP=1 keeps the record
	@$(BIN)/rivya-receiver run $(if $(KEEP),--keep)

.PHONY: test
test: install postgres ## run every test, on SQLite and on a private PostgreSQL
	$(BIN)/python -m tests.pure
	$(BIN)/pytest --numprocesses 3 --dist worksteal --ignore tests/unit --ignore tests/image
	DATABASE_POOLER_TEST=transaction $(BIN)/pytest --numprocesses 3 --dist worksteal -k 'not sqlite' \
		tests/race tests/flow/test_intake.py tests/flow/test_registration.py

.PHONY: image
image: ## build the container image, with docker or podman
	@engine=$$(command -v docker || command -v podman); \
	$$engine build --build-arg "REVISION=$$(git rev-parse HEAD)" --tag rivya-receiver .

# BASE=python:3.13-slim takes the base that is shipped; by default it is made of Debian's packages, without a registry.
.PHONY: image-test
image-test: install postgres image-tools ## build the image and run it confined, with docker or podman
	BASE='$(BASE)' $(BIN)/pytest tests/image

.PHONY: image-tools
image-tools: ## install Podman and mmdebstrap where no Docker runs
	@missing=; \
	if ! docker info >/dev/null 2>&1 && ! command -v podman >/dev/null; then missing='podman runc'; fi; \
	if [ -z '$(BASE)' ] && ! command -v mmdebstrap >/dev/null; then missing="$${missing:+$$missing }mmdebstrap"; fi; \
	$(call apt-install,The image test needs a container engine and a base)

.PHONY: screenshots
screenshots: install postgres ## render the console with a made-up record into docs/images
	$(BIN)/python -m tests.screenshots

.PHONY: soak
soak: install postgres ## try to break every promise for SOAK_MINUTES (30, 3 at least); ends with a table of what was found
	$(BIN)/python -m tests.soak

.PHONY: postgres
postgres: ## install PostgreSQL's server programs and what else the tests run, where they would not find it
	@missing=; \
	if [ -z "$${DATABASE_URL_TEST:-}" ] && ! command -v initdb >/dev/null && ! ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1; \
	then missing=postgresql; fi; \
	for program in pgbouncer promtool:prometheus nginx caddy node:nodejs; do \
		if ! PATH="$$PATH:/usr/sbin" command -v "$${program%:*}" >/dev/null; then missing="$$missing $${program#*:}"; fi; done; \
	if ! command -v chromium-headless-shell >/dev/null && ! command -v chromium >/dev/null; \
	then missing="$$missing chromium-headless-shell"; fi; \
	$(call apt-install,The tests need PostgreSQL's server (or DATABASE_URL_TEST), PgBouncer, promtool, nginx, Caddy, Chromium and Node)

.PHONY: check
check: install migrations-check manifests-check ## everything short of the tests: style, types, import rules, migrations, image, manifests
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile

.PHONY: migrations-check
migrations-check: install ## migrate an empty SQLite database and compare it with the tables in the code
	@directory=$$(mktemp -d); trap 'rm -rf "$$directory"' EXIT; \
	export DATABASE_URL="sqlite+aiosqlite:///$$directory/check.db"; \
	$(BIN)/rivya-receiver migrate; \
	$(BIN)/alembic check

.PHONY: manifests-check
manifests-check: install ## render the Kubernetes manifests and check them against the schemas of Kubernetes
	@directory=$$(mktemp -d); trap 'rm -rf "$$directory"' EXIT; \
	for overlay in deploy/kubernetes/overlays/*; do \
		$(BIN)/kubectl kustomize "$$overlay" >"$$directory/manifests.yaml"; \
		$(BIN)/kubernetes-validate --strict "$$directory/manifests.yaml"; done

.PHONY: format
format: install ## put the code in order
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# Compile with the oldest Python we support: what only it needs is in the files then, and does no harm to newer ones.
# A constraint can't have extras, so they are cut from those.
.PHONY: requirements
requirements: ## pin the packages of pyproject.toml anew (what is pinned stays, unless the line is removed first)
	@directory=$$(mktemp -d); trap 'rm -rf "$$directory"' EXIT; \
	$(PYTHON) -m venv "$$directory"; \
	"$$directory/bin/pip" --disable-pip-version-check --quiet install pip-tools; \
	"$$directory/bin/"$(COMPILE) --output-file requirements.txt pyproject.toml; \
	sed 's/\[[^]]*\]==/==/' requirements.txt >"$$directory/runtime.txt"; \
	"$$directory/bin/"$(COMPILE) --extra dev --constraint "$$directory/runtime.txt" --output-file requirements-dev.txt pyproject.toml; \
	sed 's/\[[^]]*\]==/==/' requirements-dev.txt >"$$directory/dev.txt"; \
	"$$directory/bin/"$(COMPILE) --all-build-deps --only-build-deps --constraint "$$directory/dev.txt" \
		--output-file requirements-build.txt pyproject.toml

# What is fetched is named in PACKAGES, one package a line, and its bytes in SHA256SUMS. UPDATE=1 accepts other bytes.
.PHONY: vendor
vendor: ## fetch anew what the console takes from npm packages, and check it by hash; UPDATE=1 after a change of PACKAGES
	@directory=$$(mktemp -d); trap 'rm -rf "$$directory"' EXIT; \
	cd app/console/static/vendor; \
	while read -r package files; do \
		archive=$$(npm pack --silent --pack-destination "$$directory" "$$package"); \
		name=$${package%@*}; name=$${name##*/}; \
		mkdir -p "$$name" "$$directory/$$name"; \
		tar -xzf "$$directory/$$archive" -C "$$directory/$$name"; \
		for file in $$files; do install -m 644 "$$directory/$$name/package/$$file" "$$name/"; done; done <PACKAGES; \
	if [ -n "$(UPDATE)" ]; then sha256sum */* >SHA256SUMS; fi; \
	sha256sum --check --quiet --strict SHA256SUMS

.PHONY: bench
bench: install postgres .venv-bench/installed ## measure what it can take, into bench/RESULTS.md; ONLY=intake runs one section
	$(BIN)/python -m bench $(ONLY)

.venv-bench/installed: requirements-bench.txt
	@$(PYTHON) -m venv .venv-bench
	@.venv-bench/bin/python -m pip --disable-pip-version-check --no-input --quiet install --require-hashes -r $<
	@touch $@

.PHONY: clean
clean: ## remove what the other words made, except databases
	rm -rf .image .venv .venv-bench build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage
	find app bench migrations tests -name __pycache__ -prune -exec rm -rf {} +

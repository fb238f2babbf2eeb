# `make demo`, `make test` and `make lint` set up what they need; a second run does not reinstall.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: demo test test-docker lint bench image clean

# Where the image comes from, and the name it gets.
IMAGE = spdf:$(shell $(BIN)/python -c 'from importlib.metadata import version; print(version("spdf"))')
BASE ?= python:3.11-slim-bookworm
WHEELS := build/image/wheels

demo: $(VENV)/.runtime
	$(BIN)/spdf demo

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n auto --dist loadgroup -m "not docker" $(TESTS)

test-docker: $(VENV)/.dev
	$(BIN)/python -m pytest -m docker $(or $(TESTS),tests/docker)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.runtime
	$(BIN)/python -m benchmarks

# The wheels come by the way that pip is set up for here; the build itself needs no network. The
# image's Python may be of an earlier patch release, so what only such need is fetched, too.
image: $(VENV)/.dev
	rm -rf build/image
	mkdir -p $(WHEELS)
	sed "s/ ; python_full_version < '3.11.[0-9]*'//" requirements.lock > build/image/fetch.lock
	$(PIP) download --no-deps --require-hashes --only-binary :all: --dest $(WHEELS) -r build/image/fetch.lock
	$(PIP) wheel --no-deps --no-build-isolation --wheel-dir $(WHEELS) .
	docker build --network none --build-arg BASE=$(BASE) --tag $(IMAGE) --file deployments/Dockerfile .

# The locks are complete, so pip need not resolve anything; hashes pin every file.
$(VENV)/.dev: requirements-dev.lock pyproject.toml | $(VENV)/bin/python
	$(PIP) install --no-deps --require-hashes -r requirements-dev.lock
	$(PIP) install --no-deps --no-build-isolation --editable .
	touch $(VENV)/.runtime $@

$(VENV)/.runtime: requirements.lock pyproject.toml | $(VENV)/bin/python
	$(PIP) install --no-deps --require-hashes -r requirements.lock
	$(PIP) install --no-deps --no-build-isolation --editable .
	touch $@

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "spdf needs Python 3.11 or newer; name one with make PYTHON=…")'
	$(PYTHON) -m venv $(VENV)

clean:
	rm -rf $(VENV) build

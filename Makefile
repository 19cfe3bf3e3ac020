# On a fresh machine with Python 3.11 or later: `make quickstart` shows what the product does,
# `make test` shows that it works.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# Processes that run the tests. Each takes up to 4 GB and one core.
WORKERS ?= 2
# Where `make wheel` puts it.
DIST   ?= dist

# By file, so that fixtures of a file are made once; in their order, which begins with the longest.
PYTEST  = $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
BEGAN  := $(shell date +%s)
ELAPSED = @echo "make $@: $$(( $$(date +%s) - $(BEGAN) )) s"

.PHONY: quickstart web wheel test test-all test-arm64 lint format clean

quickstart: $(VENV)/installed
	rm -rf quickstart
	$(BIN)/keras-resnet quickstart --out quickstart

web: tflite/devices/web/dist/index.html

# The release: built anew, as an old build/ would put deleted modules into it, and with the page.
wheel: web | $(BIN)/pip
	rm -rf build $(DIST)/keras_resnet-*.whl
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir $(DIST) .
	rm -rf build
	@ls $(DIST)/keras_resnet-*.whl

test: $(VENV)/installed-test
	$(PYTEST) -m 'not slow'
	$(ELAPSED)

# The rest too: what repeats at full depth what `make test` shows on a small case (CONTRIBUTING.md).
test-all: test
	$(PYTEST) -m slow
	$(ELAPSED)

# Every kind of two small networks on an emulated Arm processor; as root, with Debian's
# qemu-user-static and debootstrap. The Arm system is made once, in the cache.
test-arm64: $(VENV)/installed-test
	KERAS_RESNET_ARM64=1 $(BIN)/python -m pytest -s tests/tflite/devices/test_arm64.py

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) quickstart build dist tflite/devices/web/dist tflite/devices/web/node_modules

# The page of `keras-resnet demo`. `npm ci` installs what package-lock.json names, and nothing else.
WEB := tflite/devices/web
tflite/devices/web/dist/index.html: $(WEB)/node_modules/.package-lock.json $(WEB)/index.html \
		$(WEB)/vite.config.ts $(WEB)/tsconfig.json $(wildcard $(WEB)/src/*)
	cd $(WEB) && npm run --silent build

$(WEB)/node_modules/.package-lock.json: $(WEB)/package.json $(WEB)/package-lock.json
	@command -v npm > /dev/null || { echo 'make web needs npm (Node 20.19 or later)' >&2; exit 1; }
	cd $(WEB) && npm ci --no-audit --no-fund --loglevel=error
	touch $@

# Each mark stands for one installation, and is made anew when the dependencies change.
$(BIN)/pip:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "keras-resnet needs Python 3.11 or later: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: setup.py | $(BIN)/pip
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/installed-%: setup.py $(VENV)/installed
	$(BIN)/pip install --quiet --editable '.[$*]'
	touch $@

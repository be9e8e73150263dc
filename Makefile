# Targets for people with a checkout. `make` alone lists them.
# Every path here is relative: make itself cannot carry a checkout whose path has a space in it.

.DEFAULT_GOAL := help
.PHONY: help run test coverage slow browser systemd screenshots peers litellm bench deb clean

LISTEN ?= 127.0.0.1:8080
ARGS ?=
PYTHON ?= python3

# Handed on in the environment, so that no value is read by a shell on its way.
export LISTEN PYTHON

VENV_PYTHON := .venv/bin/python

# What make test runs: all but those with targets of their own.
DEFAULT := not slow and not browser and not systemd

help: ## list these targets
	@echo "usage: make TARGET [VARIABLE=value]"
	@sed -n 's/^\([a-z]*\): ## \(.*\)/  \1|\2/p' Makefile | while IFS='|' read -r name what; do printf '%-14s%s\n' "$$name" "$$what"; done

run: ## install into .venv if need be and serve a small demo model; LISTEN=127.0.0.1:8080
	@sh packaging/demo/environment.sh
	@exec sh packaging/demo/run.sh

test: ## ruff, mypy and pytest; ARGS='-k word -x' goes to pytest
	@sh packaging/demo/environment.sh dev
	$(VENV_PYTHON) -m ruff check .
	$(VENV_PYTHON) -m ruff format --check .
	$(VENV_PYTHON) -m mypy
	$(VENV_PYTHON) -m pytest -m '$(DEFAULT)' $(ARGS)

coverage: ## the tests of make test again, for which lines and branches they reach; in twice the time
	@sh packaging/demo/environment.sh dev
	$(VENV_PYTHON) -m coverage erase
	$(VENV_PYTHON) -m coverage run -m pytest -m '$(DEFAULT)' $(ARGS)
	$(VENV_PYTHON) -m coverage combine --quiet
	$(VENV_PYTHON) -m coverage report

slow: ## the tests that take longest, of real models; after make test
	@sh packaging/demo/environment.sh dev
	$(VENV_PYTHON) -m pytest -m slow $(ARGS)

browser: ## the dashboard's tests, in Chromium (apt-get install chromium); after make test
	@sh packaging/demo/environment.sh dev
	$(VENV_PYTHON) -m pytest -m browser $(ARGS)

systemd: ## the units, in a Debian booted for it; as root, after make test
	@sh packaging/demo/environment.sh dev
	$(VENV_PYTHON) -m pytest -m systemd $(ARGS)

screenshots: ## take the pictures in docs/screenshots anew; look at them
	@sh packaging/demo/environment.sh dev
	PYTHONPATH=.:tests/processes:tests/e2e $(VENV_PYTHON) tests/browser/screenshots.py

peers: ## llama.cpp's own llama-server, for the tests that run it; compiled once
	@sh packaging/demo/environment.sh dev
	@sh packaging/demo/peers.sh

litellm: ## LiteLLM's proxy, for make bench; without it, it is told as missing
	@sh packaging/demo/environment.sh dev
	@sh packaging/demo/litellm.sh

bench: ## this router and others side by side, in under 10 minutes; after make peers; ARGS='--rows swap', '--help'
	@sh packaging/demo/environment.sh dev
	@$(VENV_PYTHON) -m tests.bench $(ARGS)

deb: ## the Debian package, in dist/; on Debian 12 or later, VERSION=1.2-3 for another version than its own
	@sh packaging/deb/build.sh

clean: ## remove what the other targets made, .venv included
	@sh packaging/demo/run.sh --clean
	rm -rf .venv dist .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find supervisor admin tests -name __pycache__ -type d -prune -exec rm -rf {} +

# Two commands for everybody: `make demo` and `make test`. The rest is for people who change this project.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: help setup schema bundle demo test e2e beside bench tools unit lint format down clean

help:
	@echo "make demo   a highly available cluster on eight hosts of this machine (Debian, root)"
	@echo "make test   all tests, end to end on such hosts included (Debian, root, about half an hour)"
	@echo "make down   remove the demo's hosts and everything they left on this machine"
	@echo "make bench  how long it takes, compared with the same work by hand over OpenSSH (Debian, root; bench/README.md)"
	@echo "make unit   the tests that need no hosts; make lint: ruff and mypy"

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml uv.lock
	test -x $(VENV)/bin/pip || test -x $(VENV)/bin/uv || $(PYTHON) -m venv $(VENV) 2>/dev/null \
		|| (rm -rf $(VENV) && apt-get update -qq && apt-get install -y -qq python3-venv && $(PYTHON) -m venv $(VENV))
	test -x $(VENV)/bin/uv || $(VENV)/bin/pip install -q --disable-pip-version-check uv
	$(VENV)/bin/uv sync -q --frozen --compile-bytecode
	touch $@

bundle: setup tools
	$(RUN) tests/bundle.py .lab/bundle

demo: bundle
	$(RUN) runbooks/lab.py up
	$(RUN) runbooks/deploy.py
	@echo
	@echo "The cluster is up. Look at it:  .lab/bundle/k3s kubectl --kubeconfig .state/lab/kubeconfig get nodes"
	@echo "                  a host:      $(RUN) runbooks/lab.py ssh s1"
	@echo "Remove it all:                 make down"

down: setup
	$(RUN) runbooks/lab.py down

# The tests that need no hosts run beside those that do, which mostly wait; what they say comes in one piece.
test: setup lint tools
	$(MAKE) --no-print-directory -k -j2 e2e beside

e2e:
	$(RUN) -m pytest tests -m e2e

beside:
	@said=$$(mktemp); $(RUN) -m pytest -q tests -m "not e2e" >$$said 2>&1; status=$$?; cat $$said; rm $$said; exit $$status

# BENCH passes arguments on: make bench BENCH='--only second --rounds 5'
bench: setup tools
	$(RUN) bench/bench.py $(BENCH)

# What the tests need of the machine: what builds the stand-in, a browser, and a real sshd, which is not left running.
INSTALL := DEBIAN_FRONTEND=noninteractive apt-get install -y -qq
tools:
	@command -v objdump >/dev/null && command -v ps >/dev/null \
		|| { apt-get update -qq && $(INSTALL) binutils procps >/dev/null; }
	@command -v chromium >/dev/null || { apt-get update -qq && $(INSTALL) chromium >/dev/null; }
	@test -x /usr/sbin/sshd \
		|| { apt-get update -qq && $(INSTALL) openssh-server >/dev/null && \
			{ systemctl disable --now ssh >/dev/null 2>&1 || true; }; }

unit: setup
	$(RUN) -m pytest tests -m "not e2e"

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

schema: setup
	$(RUN) -m nornir_k3s.cli.schemas schema

format: setup
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

clean: down
	rm -rf $(VENV) .lab .state

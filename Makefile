# Two commands for everybody: `make demo` and `make test`. The rest is for people who change this project.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
# Hundreds of commands are run by the tests: what they import is compiled once, whatever the environment says.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup schema bundle demo test test-matrix prepared e2e bench binutils tools unit lint format down clean

help:
	@echo "make demo   a highly available cluster on eight hosts of this machine (Debian, root)"
	@echo "make test   all tests, end to end on such hosts included (Debian, root, half an hour to 40 minutes)"
	@echo "make test-matrix  each datastore on each release of Debian (an hour); writes docs/tested.md"
	@echo "make down   remove the demo's hosts and everything they left on this machine"
	@echo "make bench  how long it takes, compared with the same work by hand over OpenSSH (Debian, root; bench/README.md)"
	@echo "make unit   the tests that need no hosts; make lint: what tools check"

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml uv.lock
	test -x $(VENV)/bin/pip || test -x $(VENV)/bin/uv || $(PYTHON) -m venv $(VENV) 2>/dev/null \
		|| (rm -rf $(VENV) && apt-get update -qq && apt-get install -y -qq python3-venv && $(PYTHON) -m venv $(VENV))
	test -x $(VENV)/bin/uv || $(VENV)/bin/pip install -q --disable-pip-version-check uv
	$(VENV)/bin/uv sync -q --frozen --compile-bytecode
	touch $@

bundle: setup binutils
	$(RUN) tests/bundle.py .lab/bundle

# Secrets and kubeconfig of the demo; `down` removes the folder only if it was made here.
DEMO_STATE := .state/lab

demo: bundle
	@test -e $(DEMO_STATE) || { mkdir -p -m 700 .state && mkdir -m 700 $(DEMO_STATE) && touch $(DEMO_STATE)/made-by-demo; }
	$(RUN) runbooks/lab.py up
	$(RUN) runbooks/deploy.py
	@echo
	@echo "The cluster is up. Look at it:  $(RUN) runbooks/status.py"
	@echo "           kubectl on a server: $(RUN) runbooks/lab.py ssh s1 sudo k3s kubectl get nodes"
	@echo "                Remove it all:  make down"

down: setup
	$(RUN) runbooks/lab.py down --image
	rm -rf .lab
	test ! -e $(DEMO_STATE)/made-by-demo || rm -rf $(DEMO_STATE) .state/cache
	test ! -e .state || test -n "$$(find .state -mindepth 1 -maxdepth 1 ! -name log)" || rm -rf .state

# Processes that share the tests. End-to-end tests mostly wait: three with eight hosts each keep two cores busy.
JOBS ?= 3
# How long each test took, and what product code was run, runbooks run as commands included; git ignores them.
DURATIONS := .lab/durations.txt
COVERED := $(CURDIR)/.lab/coverage
COVERAGE := COVERAGE_FILE=$(COVERED)/data $(VENV)/bin/coverage

test: setup tools
	$(MAKE) --no-print-directory -k -j2 lint prepared
	rm -rf $(COVERED) && mkdir -p $(COVERED)
	$(COVERAGE) run -m pytest tests -n $(JOBS) --durations-file $(DURATIONS)
	$(COVERAGE) combine -q
	@$(COVERAGE) report >$(COVERED).txt; status=$$?; tail -n 3 $(COVERED).txt; exit $$status

# What all the processes use is made before they start.
prepared: setup tools
	$(RUN) -m tests.prepare

# Each datastore on each release that has it, managed and external, which writes down what passed; and what takes minutes.
MATRIX := managed_datastores external_datastores moves upgrade rotation encryption bench adopt controllers
test-matrix: setup tools prepared
	$(RUN) -m pytest $(MATRIX:%=tests/e2e/test_%.py) --matrix --tested docs/tested.md -n $(JOBS)

e2e: setup tools
	$(RUN) -m pytest tests -m e2e -n $(JOBS) --durations-file $(DURATIONS)

# BENCH passes arguments on: make bench BENCH='--only second --rounds 5'
bench: setup tools
	$(RUN) bench/bench.py $(BENCH)

# What builds the stand-in for K3s.
INSTALL := DEBIAN_FRONTEND=noninteractive apt-get install -y -qq
binutils:
	@command -v objdump >/dev/null || { apt-get update -qq && $(INSTALL) binutils >/dev/null; }

# What the tests need of the machine besides: ps, a browser, and a real sshd, which is not left running.
tools: binutils
	@command -v ps >/dev/null || { apt-get update -qq && $(INSTALL) procps >/dev/null; }
	@command -v chromium >/dev/null || { apt-get update -qq && $(INSTALL) chromium >/dev/null; }
	@test -x /usr/sbin/sshd \
		|| { apt-get update -qq && $(INSTALL) openssh-server >/dev/null && \
			{ systemctl disable --now ssh >/dev/null 2>&1 || true; }; }

unit: setup
	$(RUN) -m pytest tests -m "not e2e" -n $(JOBS)

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/vulture
	$(VENV)/bin/shellcheck .ci/run $$(find bench tests -name '*.sh' -not -path 'bench/peers/*')
	$(VENV)/bin/shellcheck -s sh $$(find tasks -name '*.sh')
	$(VENV)/bin/shellcheck $$(find tasks -name '*.bash')
	PYTHONPATH=tasks $(VENV)/bin/lint-imports

schema: setup
	$(RUN) -m nornir_k3s.cli.schemas schema

format: setup
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

clean: down
	rm -rf $(VENV)

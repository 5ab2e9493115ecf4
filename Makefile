# Nothing else is needed first: each target makes .venv when it is missing or older than its pins.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: bench test test-kernels lint report clean

bench: $(VENV)/installed
	$(RUN) bench.py run quick

test: $(VENV)/installed
	$(RUN) -m pytest -q -n 2

# Triton lives in an environment of its own: beside flash-linear-attention and transformers it would change what they run.
test-kernels: $(VENV)-kernels/installed
	TRITON_INTERPRET=1 $(VENV)-kernels/bin/python -m pytest -q -n 2 -m '' tests/kernels_interpreted

lint: $(VENV)/installed
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

report: $(VENV)/installed
	$(RUN) bench.py report quick

# The pinned torch goes in first and alone: a looser request would bring a CUDA build of several gigabytes.
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; call make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test]"
	touch $@

$(VENV)-kernels/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)-kernels
	$(VENV)-kernels/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(VENV)-kernels/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test,interpreter]"
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-kernels .cache

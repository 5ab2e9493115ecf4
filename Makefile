# Nothing else is needed first: each target makes .venv when it is missing or older than its pins.
# make PYTHON=python3.12   another Python;   make GPU=1   PyTorch's CUDA build, also where no NVIDIA driver is found
PYTHON ?= python3
GPU ?=
VENV := .venv
RUN := $(VENV)/bin/python
ENVIRONMENT := $(PYTHON) .ci/environment.py $(if $(filter-out 0,$(GPU)),--gpu)

.PHONY: bench test test-slow test-kernels lint report docs clean

bench: $(VENV)/installed
	$(RUN) bench.py run quick

test: $(VENV)/installed
	$(RUN) -m pytest -q -n 2

# What takes minutes: every model under all of the kit, every plan's forecast, runs that are killed ten times.
test-slow: $(VENV)/installed
	$(RUN) -m pytest -q -n 2 -m slow

# Triton lives in an environment of its own: beside flash-linear-attention and transformers it would change what they run.
test-kernels: $(VENV)-kernels/installed
	TRITON_INTERPRET=1 $(VENV)-kernels/bin/python -m pytest -q -n 2 -m '' tests/kernels_interpreted

lint: $(VENV)/installed
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

report: $(VENV)/installed
	$(RUN) bench.py report quick

# The documentation as a site, in .cache/site: a warning is an error, and nothing in it is fetched from elsewhere.
docs: $(VENV)/docs-installed
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict
	@echo "documentation: .cache/site/index.html"

$(VENV)/installed: pyproject.toml constraints.txt .ci/environment.py
	$(ENVIRONMENT) $(VENV) --extras test
	touch $@

$(VENV)/docs-installed: $(VENV)/installed
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[docs]"
	touch $@

$(VENV)-kernels/installed: pyproject.toml constraints.txt .ci/environment.py
	$(ENVIRONMENT) $(VENV)-kernels --extras test,interpreter
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-kernels .cache

# Needs Python >= 3.10, make and, for compiled kernels, a C++ compiler (and nvcc for CUDA). The rest comes from pip.
PYTHON ?= python3
VENV   ?= .venv
PY     := $(VENV)/bin/python
export PATH := $(abspath $(VENV))/bin:$(PATH)

BUILD_INPUTS := setup.py pyproject.toml $(wildcard tools/*.py csrc/*.* csrc/*/*.*)

.PHONY: demo test bench lint types cpp install-check reference pytest browser clean

demo: $(VENV)/.demo  ## explain a pretrained network on real photographs, write demo/report.html
	$(PY) -m pyinterp demo --out demo

# Two at a time: pytest takes about as long as all that comes after it. Each says what it has to say when it is done.
test: $(VENV)/.dev browser  ## everything CI runs
	$(MAKE) -j2 --output-sync=target lint types pytest cpp install-check reference

bench: $(VENV)/.dev $(VENV)/.peers  ## throughput, each number beside its bound and beside peers
	$(PY) -m benchmarks

lint: $(VENV)/.dev
	ruff check .
	ruff format --check .

types: $(VENV)/.dev
	mypy

cpp: $(VENV)/.dev  ## C++ tests under ASan and UBSan, kernels under TSan too; every .cu through nvcc, where there is one
	cmake -S . -B build/cpp -G Ninja -DPython3_EXECUTABLE=$(abspath $(PY))
	MAKEFLAGS= cmake --build build/cpp  # ninja would look for the job server of make
	ctest --test-dir build/cpp --output-on-failure

install-check: $(VENV)/.dev  ## the promises of the README's install section, in fresh environments
	tools/check_install.sh $(PY)

# The tensors of the tests are small: more threads would wait for each other. Tests of threads set their own number.
pytest reference: export OMP_NUM_THREADS = 1

pytest: $(VENV)/.dev  ## the Python tests
	$(PY) -m pytest

reference: $(VENV)/.dev  ## the tests of the ops without the compiled library
	$(PY) -m pytest -q --without-kernels tests/ops

browser:  ## the tests of the report take screenshots; without a browser they are skipped and say so
	tools/get_browser.sh

clean:
	rm -rf $(VENV) build dist *.egg-info .benchmarks .hypothesis .mypy_cache .pytest_cache .ruff_cache demo
	find pyinterp -name '*.so' -delete
	find . -name __pycache__ -prune -exec rm -rf {} +

# torch and torchvision come first: the kernels are then built against this torch, and no second one is fetched.
$(VENV)/.torch:
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install "torch>=2.10" torchvision
	touch $@

$(VENV)/.demo $(VENV)/.dev $(VENV)/.peers: $(VENV)/.%: $(VENV)/.torch $(BUILD_INPUTS)
	$(PY) -m pip install -e ".[$*]"
	touch $@

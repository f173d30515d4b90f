# Two verbs. Each sets up what it needs in .venv and can be run first.
#   make run     answer a question with the embedded model (QUESTION="..." to ask your own)
#   make test    run the whole test suite and the quality gates
PYTHON ?= python3
QUESTION ?= What is 12 * 3?
VENV := .venv
READY := $(VENV)/.ready
PIP := $(VENV)/bin/pip install -qq --disable-pip-version-check
# Where pip finds the CPU build of torch, if this machine's pip is not set up for it already.
TORCH_INDEX ?=
TORCH := torch==2.13.0
# Tritons that the kernels are compiled with beside the installed one; each has a folder of its own.
TRITONS := $(foreach version,3.6.0 3.8.0,$(VENV)/triton-$(version)/.ready)

export QUESTION

.PHONY: run test lock clean

run: $(READY)
	$(VENV)/bin/optillm-local solve "$$QUESTION" -o n=8 --temperature 0.4 --seed 0

test: $(READY) $(TRITONS)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	OMP_WAIT_POLICY=PASSIVE $(VENV)/bin/pytest --cov

$(READY): pyproject.toml requirements/cpu.txt
	@echo "Setting up $(VENV): about 0.9 GB to download, two to four minutes the first time."
	$(PYTHON) -m venv $(VENV)
	@$(PIP) --no-deps --retries 1 $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) "$(TORCH)+cpu" 2>/dev/null \
	  || { echo "pip finds no CPU build of torch (make TORCH_INDEX=URL names an index that has it)."; \
	       echo "Taking PyPI's build for GPUs, which runs here too: 3 GB more to download."; \
	       $(PIP) "$(TORCH)"; }
	@echo "torch is in; now the other packages (a minute or two) ..."
	@$(PIP) --no-deps -r requirements/cpu.txt
	@$(PIP) --no-deps -e .
	@touch $(READY)

# Not needed to go on: the tests compile the kernels with the tritons that are there, and the next run tries again.
$(TRITONS): $(VENV)/triton-%/.ready: | $(READY)
	@echo "Fetching triton $* to compile the kernels with: about 200 MB to download, up to 0.9 GB on disk."
	@rm -rf $(@D) $(@D).part
	@if $(PIP) --retries 1 --no-deps --target $(@D).part triton==$*; \
	  then mv $(@D).part $(@D) && touch $@; \
	  else rm -rf $(@D).part; echo "triton $* is not to be had; going on with the others."; fi

# Refresh the pinned lock; needs uv, and torch's CPU build where uv can find it (UV_FIND_LINKS or UV_INDEX).
lock:
	uv pip compile pyproject.toml requirements/cpu.in --extra cpu --extra kernels --extra dev \
	  --python-version 3.11 --no-annotate --no-header --no-emit-find-links --no-emit-index-url --no-emit-package torch \
	  --output-file requirements/cpu.txt

clean:
	rm -rf $(VENV)

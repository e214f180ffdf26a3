# `make demo`, `make check` and `make test` are all that a newcomer needs; each first sets up .venv if
# needed. `make check VENV=DIR BASE=PYTHON` uses an environment in DIR, made with another Python.
.PHONY: demo check test docs notebooks lint format lock setup clean
VENV := .venv
BASE :=
PYTHON := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed

setup: $(INSTALLED)

$(INSTALLED): requirements.txt pyproject.toml setup.sh
	@bash ./setup.sh $(VENV) $(BASE)
	@touch $@

demo: $(INSTALLED)
	@$(PYTHON) -m experiments.compare --flagfile=experiments/presets/demo.flags

# The quick tests: none starts a process or takes more than some seconds.
check: $(INSTALLED)
	$(PYTHON) -m pytest -m "not slow" -n 2 --dist loadfile

# All tests. Two workers; a file's tests stay together, so that its runs of the binaries are made once.
test: $(INSTALLED)
	$(PYTHON) -m pytest -n 2 --dist loadfile

# The site of docs/, in build/site/index.html. A link that leads nowhere is an error. The pages that are
# generated (flags, public names) are kept in docs/, and a test holds that they are up to date.
docs: $(INSTALLED)
	$(PYTHON) -m docs.tools.flags_page
	$(PYTHON) -m docs.tools.api_page
	NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --strict

# Runs notebooks/sources/*.py and keeps them with their outputs, as notebooks/*.ipynb.
notebooks: $(INSTALLED)
	$(PYTHON) notebooks/make.py

lint: $(INSTALLED)
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

format: $(INSTALLED)
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

# The lock files are generated from pyproject.toml. Needs uv (`pip install uv`) and the network; delete a
# lock file first to move to newer versions. sed drops the bounds that every line would repeat
# (tool.uv.environments): with them, pip on Python 3.12 or another platform would install nothing and
# report success.
UNBOUND := sed -i -E "s/ and (platform_machine == 'x86_64'|sys_platform == 'linux')//g; \
  s/platform_machine == 'x86_64' and //g; \
  s/ and python_full_version < '3.12'//g; s/ ; python_full_version < '3.12'$$//"
COMPILE := uv pip compile --quiet --universal --python-version 3.9 --custom-compile-command "make lock"
lock:
	$(COMPILE) pyproject.toml --group tff --group dev -o requirements.txt
	$(COMPILE) --group gpu -o requirements-gpu.txt
	$(UNBOUND) requirements.txt requirements-gpu.txt

clean:
	rm -rf .venv runs/demo build/site

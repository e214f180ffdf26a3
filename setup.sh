#!/usr/bin/env bash
# Makes .venv with the locked packages and this project, with the Python and installer that are there:
#   setup.sh [FOLDER [PYTHON]]    another folder than .venv, and the Python to make it with
# Called by make; safe to run again after a failure.
set -euo pipefail
cd "$(dirname "$0")"
venv=${1:-.venv}
base=${2:-}

supported() {  # Runs the candidate: version managers leave commands on the PATH that only fail.
  "$1" -c 'import sys; sys.exit(not (3, 9) <= sys.version_info[:2] <= (3, 11))' 2>/dev/null
}

make_venv() {
  local python
  if [ -n "$(ls -A "$venv" 2>/dev/null)" ] && [ ! -e "$venv/pyvenv.cfg" ]; then
    echo "error: $venv is a folder of something else than a virtual environment." >&2
    exit 1
  fi
  for python in ${base:-python3.11 python3.10 python3.9 python3 python}; do
    if supported "$python" && "$python" -c 'import ensurepip, venv' 2>/dev/null; then
      echo "Setting up $venv with $("$python" --version) ($python)"
      "$python" -m venv --clear "$venv"
      return
    fi
  done
  if command -v uv >/dev/null; then
    echo "Setting up $venv with uv"
    for python in ${base:-3.11 3.10 3.9}; do
      uv venv --quiet --clear --python "$python" "$venv" && return
    done
  fi
  echo "error: ${base:-this machine} has no Python 3.9, 3.10 or 3.11 that can make a virtual" \
    "environment; install python3.11 with its venv package (Debian and Ubuntu: python3.11-venv)," \
    "or uv." >&2
  exit 1
}

if [ "$(uname -sm)" != "Linux x86_64" ]; then
  echo "error: this is $(uname -sm); TensorFlow Federated 0.87 has packages for Linux x86_64 only." >&2
  exit 1
fi
supported "$venv/bin/python" || make_venv
echo "Installing the locked packages (some 800 MB to download the first time)"
if command -v uv >/dev/null; then
  install() { uv pip install --quiet --python "$venv/bin/python" --no-deps "$@"; }
else
  # A venv that uv made has no pip of its own.
  "$venv/bin/python" -m pip --version >/dev/null 2>&1 || "$venv/bin/python" -m ensurepip >/dev/null
  install() {
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps "$@"
  }
fi
install -r requirements.txt
# The project itself, so that the environment can import it from any folder. The lock has setuptools.
install --no-build-isolation --editable .

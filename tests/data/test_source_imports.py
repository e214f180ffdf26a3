"""Downloading needs libraries that take a fifth of a binary's start; reading does without them."""

import subprocess
import sys

import pytest


@pytest.mark.slow
def test_libraries_of_downloads_are_imported_by_downloads_alone():
    code = (
        "import sys, experiments.train, fedrecon.data.datasets; "
        "print(sorted(sys.modules.keys() & {'pooch', 'requests', 'fedrecon.data.sources'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout == "['fedrecon.data.sources']\n"

import os
import pathlib
import subprocess
import sys
import tempfile

import pytest

from experiments.run import temporary


@pytest.fixture
def parent(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_temporary_files_go_with_their_folder(parent):
    folder = temporary.TemporaryFolder()
    with tempfile.NamedTemporaryFile(delete=False) as file:
        path = pathlib.Path(file.name)
    assert path.parent.parent == parent
    folder.remove()
    folder.remove()
    assert list(parent.iterdir()) == []


def test_the_next_process_removes_what_a_killed_one_left_and_nothing_else(parent):
    left = parent / "fedrecon-left"
    left.mkdir()
    (left / "__autograph_generated_file.py").write_text("left")
    (parent / "other").mkdir()
    held = temporary.TemporaryFolder()  # Of another process that is alive.
    assert not left.exists()
    tempfile.tempdir = str(parent)
    second = temporary.TemporaryFolder()
    assert len([each for each in parent.iterdir() if each.name.startswith("fedrecon-")]) == 2
    second.remove()
    held.remove()
    assert [each.name for each in parent.iterdir()] == ["other"]


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["", "raise InputError('no.')", "os.kill(os.getpid(), 15)"])
def test_a_binary_leaves_no_temporary_file(tmp_path, repository, ending):
    code = (
        "import os, tempfile, time\n"
        "from experiments.run import cli\n"
        "from fedrecon.errors import InputError\n"
        "def main(interruption):\n"
        "    tempfile.NamedTemporaryFile(delete=False)\n"
        "    tempfile.mkdtemp()\n"
        f"    {ending}\n"
        f"    {'time.sleep(60)' if 'kill' in ending else ''}\n"
        "cli.run(main)\n"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], cwd=repository, env=environment, check=False)
    assert list(tmp_path.iterdir()) == []

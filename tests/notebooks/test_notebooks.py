"""Checks that kept notebooks are what their sources give, and that they run anywhere."""

import json
import re
import subprocess
import sys
import tempfile
import time
import types

import nbformat
import pytest

from notebooks import make

every_notebook = pytest.mark.parametrize("name", make.NAMES)


def kept(name):
    return nbformat.read(make.notebook_path(name), as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def setup_cell(name):
    return code_cells(make.from_source(name))[0].source


def test_every_source_has_a_notebook_and_every_notebook_a_source():
    assert make.NAMES
    assert {path.stem for path in make.FOLDER.glob("*.ipynb")} == set(make.NAMES)


@every_notebook
def test_a_notebook_was_made_of_its_source(name):
    notebook = kept(name)
    assert notebook.metadata["fedrecon"]["source_sha256"] == make.source_hash(name), (
        f"sources/{name}.py has changed since; run `make notebooks`"
    )
    of_source = make.from_source(name).cells
    assert [(c.cell_type, c.id, c.source) for c in notebook.cells] == [
        (c.cell_type, c.id, c.source) for c in of_source
    ]


@every_notebook
def test_a_notebook_was_run_from_top_to_bottom_without_an_error(name):
    cells = code_cells(kept(name))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not [output for output in outputs if output.output_type == "error"]


@every_notebook
def test_a_notebook_holds_nothing_of_the_machine_that_made_it(name):
    text = make.notebook_path(name).read_text(encoding="utf-8")
    assert len(text) < 1_000_000
    notebook = kept(name)
    assert not any(cell.metadata for cell in notebook.cells)  # Times of execution would be there.
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    # Libraries write their notices there.
    assert not [output.text for output in outputs if output.get("name") == "stderr"]
    shown = json.dumps([{**o, "data": {**o.get("data", {}), "image/png": ""}} for o in outputs])
    for path in (str(make.FOLDER.parent), tempfile.gettempdir() + "/", "site-packages", "/home/"):
        assert path not in shown
    assert not re.search(r" at 0x[0-9a-f]+", shown)


def test_all_notebooks_begin_with_the_same_installing_cell():
    assert len({setup_cell(name) for name in make.NAMES}) == 1


def run_setup(monkeypatch, folder, *, on_colab, version=(3, 11, 9)):
    """Runs the first code cell; returns the commands that it started."""
    commands = []
    monkeypatch.chdir(folder)
    monkeypatch.setattr(subprocess, "run", lambda command, check: commands.append(command))
    info = types.SimpleNamespace(version_info=version, executable="python")
    monkeypatch.setitem(sys.modules, "sys", info)
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("x") if on_colab else None)
    try:
        exec(setup_cell(make.NAMES[0]), {})
    except SystemExit as end:
        commands.append(str(end))
    return commands


def test_the_installing_cell_does_nothing_elsewhere(monkeypatch, tmp_path):
    assert run_setup(monkeypatch, tmp_path, on_colab=False) == []


def test_the_installing_cell_installs_on_colab_once(monkeypatch, tmp_path):
    clone, library, tff, told = run_setup(monkeypatch, tmp_path, on_colab=True)
    assert clone[:2] == ["git", "clone"]
    assert library == ["python", "-m", "pip", "install", "--quiet", f"./{clone[-1]}"]
    # As README's "Into an environment of your own" has it.
    assert tff[-2:] == ["--no-deps", "tensorflow-federated==0.87.0"]
    assert "Restart session" in told
    (tmp_path / clone[-1]).mkdir()
    assert run_setup(monkeypatch, tmp_path, on_colab=True) == []


def test_the_installing_cell_says_what_works_where_python_is_too_new(monkeypatch, tmp_path):
    with pytest.raises(RuntimeError, match=r"has Python 3\.13, for which TFF .* with Python 3\.11"):
        run_setup(monkeypatch, tmp_path, on_colab=True, version=(3, 13, 1))


def run_main(monkeypatch, tmp_path, *arguments):
    """Makes notebooks in a folder that stands for `notebooks/`; returns what is kept there."""
    folder = tmp_path / "notebooks"
    (folder / "sources").mkdir(parents=True)
    source = "# %%\nimport os\nprint(os.environ.get('FEDRECON_DATA'))\n"
    (folder / "sources" / "one.py").write_text(source)
    (folder / "one.ipynb").write_text("kept")
    monkeypatch.setenv("FEDRECON_DATA", "mine")
    monkeypatch.setattr(make, "FOLDER", folder)
    monkeypatch.setattr(make, "NAMES", ("one",))
    monkeypatch.setattr(sys, "argv", ["make.py", "one", *map(str, arguments)])
    make.main()
    return (folder / "one.ipynb").read_text()


def printed(text):
    (cell,) = nbformat.reads(text, as_version=4).cells
    return cell.outputs[0].text


@pytest.mark.slow
def test_a_notebook_is_kept_or_written_elsewhere(monkeypatch, tmp_path):
    output_dir = tmp_path / "new" / "out"
    kept_text = run_main(monkeypatch, tmp_path / "a", f"--output_dir={output_dir}")
    assert kept_text == "kept"
    assert [path.name for path in output_dir.iterdir()] == ["one.ipynb"]
    assert printed((output_dir / "one.ipynb").read_text()) == "mine\n"
    # What is kept is of the generated ratings.
    assert printed(run_main(monkeypatch, tmp_path / "b")) == "None\n"


@pytest.mark.slow
@every_notebook
def test_a_notebook_runs_with_a_fresh_kernel_in_any_folder(name, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("FEDRECON_DATA", raising=False)
    notebook = make.from_source(name)
    start = time.monotonic()
    make.execute(notebook, folder=tmp_path)
    with capsys.disabled():
        print(f"\n{name} took {time.monotonic() - start:.0f} s")
    assert all(cell.execution_count for cell in code_cells(notebook))
    assert not list(tmp_path.iterdir())

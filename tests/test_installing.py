"""The installed library, away from the checkout; and an environment that Jupyter has moved."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import zipfile

import pytest

pytestmark = pytest.mark.slow

USE = """
import importlib.util, pathlib, sys
from importlib import metadata

import fedrecon as fr

assert not {"numpy", "tensorflow"} & sys.modules.keys()
installed = pathlib.Path(sys.prefix).resolve()
assert installed in pathlib.Path(fr.__file__).resolve().parents, fr.__file__
assert metadata.version("fedrecon") == fr.__version__
assert importlib.util.find_spec("experiments") is None
run = fr.fit(fr.load_dataset("synthetic"), algorithm="fed_recon", rounds=2)
print(*sorted(run.metrics))
"""


def run(command, **keywords):
    return subprocess.run(
        [*map(str, command)], capture_output=True, text=True, check=False, **keywords
    )


@pytest.fixture(scope="module")
def wheel(repository, tmp_path_factory):
    """The project's wheel, built from a copy, for a build leaves files that the next one packs."""
    source = tmp_path_factory.mktemp("source")
    leftovers = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("fedrecon", "experiments", "tests"):
        shutil.copytree(repository / name, source / name, ignore=leftovers)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(repository / name, source)
    build = "from setuptools import build_meta; build_meta.build_wheel('dist')"
    done = run([sys.executable, "-c", build], cwd=source)
    assert done.returncode == 0, done.stderr
    (path,) = (source / "dist").iterdir()
    return path


def make_venv(path, *options):
    done = run([sys.executable, "-m", "venv", *options, path])
    if done.returncode:
        pytest.skip(f"no virtual environment can be made: {(done.stderr or done.stdout)[-200:]}")
    (site_packages,) = path.glob("lib/python3*/site-packages")
    return path / "bin" / "python", site_packages


def see_this_environment(site_packages):
    """Adds the packages of this environment below those of another.

    A path file there, such as that of an editable installation, has no effect.
    """
    (site_packages / "locked.pth").write_text(sysconfig.get_path("purelib") + "\n")


def unpack(wheel, site_packages):
    """Installs a wheel: of one without scripts, that is all an installer does."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site_packages)


def outside(**changes):
    """An environment in which no variable leads to the checkout."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return {**kept, "TF_CPP_MIN_LOG_LEVEL": "3", **changes}


def test_the_wheel_holds_the_library_and_nothing_else(wheel, repository):
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
    modules = (p for p in (repository / "fedrecon").rglob("*") if "__pycache__" not in p.parts)
    expected = {str(path.relative_to(repository)) for path in modules if path.is_file()}
    assert set(names) == expected
    assert len(names) > 40


def test_an_installed_library_trains_from_another_folder(wheel, tmp_path):
    python, site_packages = make_venv(tmp_path / "venv", "--without-pip")
    see_this_environment(site_packages)
    unpack(wheel, site_packages)
    done = run([python, "-c", USE], cwd=tmp_path, env=outside(), timeout=300)
    assert done.returncode == 0, done.stderr
    assert "unseen_test" in done.stdout


def test_without_tff_the_first_name_that_needs_it_says_what_to_install(wheel, tmp_path):
    python, site_packages = make_venv(tmp_path / "venv", "--without-pip")
    unpack(wheel, site_packages)
    use = "import fedrecon as fr; print(fr.__version__); fr.fit"
    done = run([python, "-c", use], cwd=tmp_path, env=outside())
    assert done.stdout
    assert done.stderr.splitlines()[-1].startswith(
        "fedrecon._requirements.RequirementError: fedrecon needs numpy 1 (found: none), "
        "tensorflow 2.14 (found: none), tensorflow-federated 0.87.0 (found: none). "
        "This installs it: python -m pip install "
    )


def test_the_environment_of_make_imports_the_project_from_any_folder(repository, tmp_path):
    python = repository / ".venv" / "bin" / "python"
    if (repository / ".venv").is_symlink() or not (repository / ".venv" / ".installed").exists():
        pytest.skip("make has made no .venv here")
    done = run(
        [python, "-c", "import fedrecon; print(fedrecon.__file__)"], cwd=tmp_path, env=outside()
    )
    assert done.returncode == 0, done.stderr
    assert pathlib.Path(done.stdout.strip()) == repository / "fedrecon" / "__init__.py"


@pytest.fixture(scope="module")
def python_with_jupyter(tmp_path_factory):
    """The locked packages with the newest JupyterLab installed over them by pip."""
    python, site_packages = make_venv(tmp_path_factory.mktemp("jupyter") / "venv")
    see_this_environment(site_packages)
    done = run([python, "-m", "pip", "install", "jupyterlab"], timeout=600)
    if done.returncode:
        pytest.skip(f"JupyterLab could not be installed: {done.stderr.strip()[-300:]}")
    return python


TRAIN = (
    *("-m", "experiments.train", "--dataset=synthetic", "--algorithm=stateful_fed_avg"),
    *("--synthetic_num_users=60", "--synthetic_num_items=60"),
    *("--synthetic_mean_ratings_per_user=25", "--max_ratings_per_user=30"),
    *("--client_learning_rate=0.1", "--dim=4", "--clients_per_round=4", "--total_rounds=400"),
    *("--rounds_per_evaluation=10", "--rounds_per_checkpoint=20"),
)


def test_a_run_is_interrupted_and_resumed_where_jupyter_is_installed(
    python_with_jupyter, repository, tmp_path
):
    versions = (
        "from importlib.metadata import version; import IPython, jupyterlab;"
        "print(version('typing-extensions'))"
    )
    found = run([python_with_jupyter, "-c", versions], env=outside())
    assert found.returncode == 0, found.stderr
    # TFF pins 4.5; with a newer one TensorFlow cannot write a SavedModel.
    assert tuple(map(int, found.stdout.split(".")[:2])) > (4, 5)

    train = [python_with_jupyter, *TRAIN, f"--output_dir={tmp_path}/run"]
    errors = tmp_path / "errors.txt"
    with (
        errors.open("w") as file,
        subprocess.Popen(train, cwd=repository, stdout=subprocess.DEVNULL, stderr=file) as process,
    ):
        deadline = time.monotonic() + 300
        checkpoints = tmp_path / "run" / "checkpoints"
        while not (checkpoints / "round_20").exists() and time.monotonic() < deadline:
            assert process.poll() is None, errors.read_text()
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 128 + signal.SIGINT, errors.read_text()
    assert not (tmp_path / "run" / "final_metrics.json").exists()

    done = run(train, cwd=repository, timeout=300)
    assert done.returncode == 0, done.stderr
    resumed_after = int(done.stdout.split("Resuming after round ")[1].split(".")[0])
    assert 20 <= resumed_after < 400
    assert (tmp_path / "run" / "final_metrics.json").exists()
    evaluate = ["-m", "experiments.evaluate", f"--run_dir={tmp_path}/run"]
    done = run([python_with_jupyter, *evaluate], cwd=repository, timeout=300)
    assert done.returncode == 0, done.stderr

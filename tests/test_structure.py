"""The arrows of the design: what may import what."""

import ast
import subprocess
import sys

import pytest

# For each package or module of ours, the parts of `fedrecon` that it may import.
BASE = {"errors", "rng"}
ALLOWED = {
    "_requirements": set(),
    "errors": set(),
    "rng": set(),
    "ials_units": BASE | {"data"},
    "options": BASE | {"data", "ials_units"},
    "defaults": BASE | {"data", "options"},
    "data": BASE | {"data"},
    "models": BASE | {"models"},
    "execution": BASE | {"execution"},
    "baselines": BASE | {"baselines"},
    "engine": BASE | {"options", "data", "models", "engine"},
    "wiring": BASE | {"options", "data", "models", "engine", "wiring"},
    "algorithms": BASE | {"options", "data", "models", "engine", "wiring", "algorithms"},
    "runs": BASE | {"algorithms", "runs"},
    "serving": BASE
    | {"options", "data", "models", "engine", "wiring", "algorithms", "evaluation", "serving"},
    "evaluation": BASE | {"data", "models", "wiring", "algorithms", "evaluation"},
    "fit": BASE
    | {"defaults", "ials_units"}
    | {"options", "data", "models", "execution", "algorithms", "runs", "evaluation", "serving"},
}


def imports_of(path):
    """Yields the full name of each module that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def part_of(path, package):
    return path.relative_to(package).parts[0].removesuffix(".py")


def test_the_library_imports_only_downwards(repository):
    package = repository / "fedrecon"
    files = [p for p in package.rglob("*.py") if p.parent != package or p.stem != "__init__"]
    assert len(files) > 10
    wrong = []
    for path in files:
        part = part_of(path, package)
        for name in imports_of(path):
            top, *rest = name.split(".")
            allowed = top == "fedrecon" and rest[0] in ALLOWED[part] | {"__version__"}
            if top in ("fedrecon", "experiments", "tests") and not allowed:
                wrong.append(f"{path.relative_to(repository)} imports {name}")
    assert not wrong


def test_data_never_imports_tensorflow(repository):
    for path in (repository / "fedrecon" / "data").rglob("*.py"):
        tops = {name.split(".")[0] for name in imports_of(path)}
        assert not tops & {"tensorflow", "tensorflow_federated", "keras", "tf"}, path


def test_metrics_import_nothing_of_the_package(repository):
    names = list(imports_of(repository / "fedrecon" / "evaluation" / "metrics.py"))
    assert "numpy" in names
    assert not [name for name in names if name.split(".")[0] in ("fedrecon", "experiments")]


def test_no_algorithm_imports_another(repository):
    folder = repository / "fedrecon" / "algorithms"
    shared = {"algorithm", "joint_update", "reconstruction"}
    algorithms = {path.stem for path in folder.glob("*.py")} - {"__init__"} - shared
    known = {"fed_recon", "stock_fed_recon", "fed_avg", "fed_ncf", "fed_ials", "centralized"}
    assert known <= algorithms
    for path in folder.glob("*.py"):
        prefix = "fedrecon.algorithms."
        ours = {n[len(prefix) :].split(".")[0] for n in imports_of(path) if n.startswith(prefix)}
        assert not ours & algorithms, path


def test_flags_are_read_and_contexts_chosen_only_by_experiments(repository):
    for path in (repository / "fedrecon").rglob("*.py"):
        assert not any(n.startswith("absl.flags") for n in imports_of(path)), path
        if "execution" not in path.parts:
            assert "set_default_context" not in path.read_text(), path


def test_tff_internals_are_used_only_in_execution(repository):
    for path in (repository / "fedrecon").rglob("*.py"):
        if "execution" not in path.parts:
            names = list(imports_of(path))
            assert not any(n.startswith("tensorflow_federated.python") for n in names), path


@pytest.mark.slow
@pytest.mark.parametrize(
    "module",
    [
        "experiments.train",
        "experiments.evaluate",
        "experiments.compare",
        "experiments.benchmark",
        "experiments.check_leak",
        "experiments.export",
        "experiments.report",
    ],
)
def test_binaries_start_without_tensorflow(module):
    # `--help` and a wrong flag must not wait for the import of TensorFlow.
    code = f"import sys, {module};print('tensorflow' in sys.modules, 'pandas' in sys.modules)"
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert output.split() == ["False", "False"]

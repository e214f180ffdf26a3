"""The files of a model that serves, which any language can read.

    model.json     what the model is, how a user's vector is found, and SHA-256 of every file
    items.csv      row, item_id, title, genres, num_ratings: the meaning of the rows of tables
    tables.npz     `factors` [items, k] and `offsets` [items], float32; only of a linear model
    weights.npz    the global weights by name, as they were trained

docs/model_files.md says how to score with them. A folder is written whole or not at all.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import shutil
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np

from fedrecon import __version__
from fedrecon.data.population import read_parts
from fedrecon.errors import InputError
from fedrecon.serving.about import About
from fedrecon.serving.items import Items
from fedrecon.serving.linear import LinearModel, rule_from_json
from fedrecon.serving.recommender import Recommender

if TYPE_CHECKING:
    from fedrecon.models.split_model import ModelFn
    from fedrecon.serving.stepwise import StepwiseModel

# Where a run keeps its model.
FOLDER = "model"
FORMAT = 1
_MODEL, _ITEMS, _TABLES, _WEIGHTS = "model.json", "items.csv", "tables.npz", "weights.npz"
_LINEAR, _STEPWISE = "linear", "keras"


def write(recommender: Recommender, path: str | os.PathLike) -> None:
    """Writes a model to a folder, in place of a model that is there.

    Raises:
      InputError: If the folder holds anything else, or cannot be written.
    """
    path = pathlib.Path(path)
    if path.exists() and not (path / _MODEL).exists():
        raise InputError(f"{path} exists and holds no model; give another folder.")
    part = path.with_name(f"{path.name}.part")
    try:
        if part.exists():
            shutil.rmtree(part)
        part.mkdir(parents=True)
        _write_files(recommender, part)
        if path.exists():
            shutil.rmtree(path)
        os.replace(part, path)
    except OSError as error:
        raise InputError(f"the model cannot be written: {error}.") from error


def _write_files(recommender: Recommender, folder: pathlib.Path) -> None:
    model = recommender.model
    # As bytes: as text, a carriage return in a title would become another end of line.
    (folder / _ITEMS).write_bytes(recommender.items.to_csv().encode())
    np.savez(folder / _WEIGHTS, **recommender.weights)
    described: dict[str, Any] = {
        "format": FORMAT,
        "fedrecon": __version__,
        "about": recommender.about.to_json(),
        "ids_are_text": recommender.items.ids.dtype.kind == "U",
        "num_items": len(recommender.items),
        "user_vector": [list(part) for part in model.parts],
        "model": recommender.model_description,
    }
    if isinstance(model, LinearModel):
        np.savez(folder / _TABLES, factors=model.factors, offsets=model.offsets)
        described.update(kind=_LINEAR, reconstruction=model.rule.to_json())
    else:
        options = model.options
        described.update(
            kind=_STEPWISE,
            reconstruction={
                "method": options.reconstruction,
                "least_squares": dataclasses.asdict(options.least_squares),
                "optimizer": options.reconstruction_optimizer.name,
                "learning_rate": options.reconstruction_optimizer.learning_rate,
                "batch_size": options.batch_size,
                "epochs": options.reconstruction_epochs,
                "steps_max": options.reconstruction_steps_max,
                "start_seed": model.start_seed,
            },
        )
    described["sha256"] = {file.name: _digest(file) for file in sorted(folder.iterdir())}
    described["sha256"][_MODEL] = _digest_of_values(described)
    text = json.dumps(described, indent=2, allow_nan=False)
    (folder / _MODEL).write_text(text + "\n", encoding="utf-8")


def load_run(run_dir: str | os.PathLike, *, model: ModelFn | None = None) -> Recommender:
    """Returns the model that a finished run left, without the data that it was trained on.

    Args:
      run_dir: The output directory of `experiments.train`, or the folder of a model.
      model: Builds the model; needed only for a model of one's own that is not linear in its local
        part.

    Raises:
      InputError: If there is no model, or a file of it is missing or damaged.
    """
    run_dir = pathlib.Path(run_dir)
    folder = run_dir / FOLDER if (run_dir / FOLDER).is_dir() else run_dir
    if not (folder / _MODEL).exists():
        raise InputError(f"{run_dir} holds no model: {_reason_for_no_model(run_dir)}.")
    described = _described(folder)
    try:
        items = Items.from_csv(
            (folder / _ITEMS).read_bytes().decode(),
            ids_are_text=described["ids_are_text"],
            label=str(folder / _ITEMS),
        )
        weights = _arrays(folder / _WEIGHTS)
        if described["kind"] == _LINEAR:
            served = _linear(described, _arrays(folder / _TABLES))
        else:
            served = _stepwise(described, weights, model, len(items))
        return Recommender(
            items,
            served,
            About.from_json(described["about"]),
            weights=weights,
            model_description=described["model"],
            parts=read_parts(run_dir / "users.csv"),
        )
    except (OSError, KeyError, TypeError) as error:
        raise InputError(f"{folder / _MODEL} cannot be read: {error!r}.") from error


def _reason_for_no_model(run_dir: pathlib.Path) -> str:
    if not (run_dir / "config.json").exists():
        return "it is neither a run nor the folder of a model"
    if any((run_dir / name).exists() for name in ("final_metrics.json", "results.json")):
        return "it is the run of a baseline, or of a version that left none; train again"
    return "its run is not finished, and a run writes it when it ends"


def _described(folder: pathlib.Path) -> dict[str, Any]:
    """Returns model.json, once the files beside it are those that it was written with."""
    path = folder / _MODEL
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
        found_format, digests = described["format"], dict(described["sha256"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path} cannot be read: {error!r}.") from error
    if found_format != FORMAT:
        raise InputError(
            f"{path} has format {found_format}; this version reads format {FORMAT}. Train again, "
            "or use the version that wrote it."
        )
    needed = [_MODEL, _ITEMS, _WEIGHTS, *([_TABLES] if described.get("kind") == _LINEAR else [])]
    for name in needed:
        file = folder / name
        if not file.is_file():
            raise InputError(f"{file} is missing.")
        try:
            found = _digest_of_values(described) if name == _MODEL else _digest(file)
        except OSError as error:
            raise InputError(f"{file} cannot be read: {error}.") from error
        if found != digests.get(name):
            raise InputError(f"{file} is damaged: it is not what was written with {path}.")
    return described


def _linear(described: dict[str, Any], tables: dict[str, np.ndarray]) -> LinearModel:
    return LinearModel(
        tables["factors"],
        tables["offsets"],
        rule_from_json(described["reconstruction"]),
        tuple((name, size) for name, size in described["user_vector"]),
    )


def _stepwise(described, weights, model: ModelFn | None, num_items: int) -> StepwiseModel:
    from fedrecon.models.model_fn import from_description
    from fedrecon.options import FedReconOptions, LeastSquaresOptions, OptimizerOptions
    from fedrecon.serving.stepwise import StepwiseModel

    if model is None:
        if described["model"] is None:
            raise InputError(
                "code outside of this package built the model; pass the function that builds it, "
                "as load_run(run_dir, model=...)."
            )
        model = from_description(described["model"])
    settings = described["reconstruction"]
    options = FedReconOptions(
        reconstruction=settings["method"],
        least_squares=LeastSquaresOptions(**settings["least_squares"]),
        reconstruction_optimizer=OptimizerOptions(settings["optimizer"], settings["learning_rate"]),
        batch_size=settings["batch_size"],
        reconstruction_epochs=settings["epochs"],
        reconstruction_steps_max=settings["steps_max"],
    )
    served = StepwiseModel(
        model, weights, options, start_seed=settings["start_seed"], num_items=num_items
    )
    shapes = {weight.name: tuple(weight.shape) for weight in served.model.global_weights}
    found = {name: value.shape for name, value in weights.items()}
    if shapes != found:
        raise InputError(f"the model has the weights {shapes}, and the files have {found}.")
    return served


def _arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} cannot be read: {error}.") from error


def _digest_of_values(described: dict[str, Any]) -> str:
    """Returns SHA-256 of what model.json says, without this one; spaces do not count."""
    others = {name: of for name, of in described["sha256"].items() if name != _MODEL}
    text = json.dumps({**described, "sha256": others}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _digest(path: pathlib.Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for part in iter(functools.partial(file.read, 1 << 20), b""):
            digest.update(part)
    return digest.hexdigest()

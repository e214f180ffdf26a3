"""Exports the model of a run to devices: TensorFlow Lite, a SavedModel, or NumPy arrays.

    python -m experiments.export --run_dir=runs/first --format=tflite --output_dir=exported

The folder needs neither fedrecon nor TFF; see examples/on_device.py and docs/model_files.md.
"""

from __future__ import annotations

import pathlib
from typing import Any

from absl import flags

from experiments.run import cli, past_run
from experiments.run.flags import refuse_given
from fedrecon.errors import InputError
from fedrecon.runs import run_directory
from fedrecon.serving import export, files, item_table
from fedrecon.serving.card import Facts
from fedrecon.serving.quantization_loss import quantization_loss
from fedrecon.serving.recommender import Recommender

_RUN_DIR, _DATA_DIR, _RATINGS_FILE = past_run.define_flags()
_OUTPUT_DIR = flags.DEFINE_string(
    "output_dir", None, "Required: a new folder, or the folder of an export to replace."
)
_FORMAT = flags.DEFINE_enum(
    "format",
    "tflite",
    export.FORMATS,
    "tflite: one file for devices. saved_model: for TensorFlow. numpy: arrays and JSON.",
)
_QUANTIZE = flags.DEFINE_enum(
    "quantize",
    "float32",
    item_table.KINDS,
    "How the item table is stored. int8 has a float32 scale for each item.",
)
_MEASURE = flags.DEFINE_bool(
    "measure",
    True,
    "Measure on the run's data, if it can be loaded, what float16 and int8 cost its test users.",
)
# A card goes to other machines, which have no use for places on this one.
_PLACES = ("data_dir", "items_file", "output_dir", "ratings_file", "warm_start")
_PLACES_OF_DATA = ("data_dir", "ratings_file")


def main(interruption: cli.Interruption) -> None:
    del interruption  # There is nothing to save.
    run = past_run.directory(_RUN_DIR.value)
    if _OUTPUT_DIR.value is None:
        raise InputError("give --output_dir=DIR.")
    path = pathlib.Path(_OUTPUT_DIR.value)
    export.check_folder(path)
    recommender = files.load_run(run.path)
    export.check_exportable(recommender, _FORMAT.value)
    facts = _facts(run, recommender)
    export.write(recommender, path, form=_FORMAT.value, quantize=_QUANTIZE.value, facts=facts)
    _print_sizes(path)
    if _FORMAT.value == "tflite":
        _print_latencies(path, recommender)


def _facts(run: run_directory.RunDirectory, recommender: Recommender) -> Facts:
    if not (run.path / run_directory.CONFIG).exists():
        _refuse_places("on a model without its run")
        return Facts(None, None, "the folder holds a model without its run")
    chosen = run.read_config()["settings"]
    return Facts(
        settings={name: value for name, value in chosen.items() if name not in _PLACES},
        metrics=run.read_final_metrics(),
        quantization_loss=_measured_loss(run, recommender),
    )


def _measured_loss(
    run: run_directory.RunDirectory, recommender: Recommender
) -> dict[str, Any] | str:
    """Returns what quantization costs, or why that is not measured.

    Raises:
      InputError: If the user says where the data is, and it cannot be loaded.
    """
    if not _MEASURE.value:
        _refuse_places("with --nomeasure")
        return "--nomeasure"
    try:
        population = past_run.load(
            str(run.path), data_dir=_DATA_DIR.value, ratings_file=_RATINGS_FILE.value
        ).population
    except InputError as error:
        if any(flags.FLAGS[name].present for name in _PLACES_OF_DATA):
            raise
        print(f"What quantization costs is not measured: {error}")
        return "the data could not be loaded"
    loss = quantization_loss(recommender.model, population)
    print(f"{loss['group']}, {loss['num_users']:,} users, by the kind of item table:")
    for kind, measures in loss["measures"].items():
        changes = loss["change_from_float32"][kind]
        told = (f"{name} {value:.5f} ({changes[name]:+.5f})" for name, value in measures.items())
        print(f"  {kind:8}  {'  '.join(told)}")
    return loss


def _refuse_places(reason: str) -> None:
    refuse_given(_PLACES_OF_DATA, lambda flag: f"--{flag} has no effect {reason}.")


def _print_sizes(path: pathlib.Path) -> None:
    print(f"Files, in bytes: {path}/")
    for name, size in export.file_sizes(path).items():
        print(f"  {name:40} {size:>14,}")


def _print_latencies(path: pathlib.Path, recommender: Recommender) -> None:
    from fedrecon.serving import tflite  # It imports TensorFlow.

    content = (path / export.TFLITE).read_bytes()
    print("Milliseconds in the interpreter, one thread, median of 100 calls:")
    for name, milliseconds in tflite.latencies(content, len(recommender.items)).items():
        print(f"  {name:40} {milliseconds:>14.3f}")


if __name__ == "__main__":
    cli.run(main)

"""The card of an exported model: what it is, what it takes and gives, and how good it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from fedrecon import __version__
from fedrecon.serving.about import About
from fedrecon.serving.linear import ImplicitLeastSquares, LinearModel
from fedrecon.serving.recommender import Recommender

FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Facts:
    """What a card says of a run besides its model.

    Attributes:
      settings: The settings of the run; None if they are unknown.
      metrics: The metrics of the finished run; None if they are unknown.
      quantization_loss: See `quantization_loss`; or why it was not measured.
    """

    settings: Mapping[str, Any] | None
    metrics: Mapping[str, Any] | None
    quantization_loss: Mapping[str, Any] | str


def card(
    recommender: Recommender,
    facts: Facts,
    *,
    form: str,
    quantize: str,
    files: Mapping[str, int],
) -> dict[str, Any]:
    """Returns the card of an exported model, as JSON values.

    Args:
      recommender: The model.
      facts: What is known of its run.
      form: The format of the export.
      quantize: The kind of its item table.
      files: The other files of the export and their sizes in bytes.
    """
    model, about, loss = recommender.model, recommender.about, facts.quantization_loss
    return {
        "card_format": FORMAT,
        "fedrecon": __version__,
        "format": form,
        "quantize": quantize,
        **about.to_json(),
        "num_items": model.num_items,
        "user_vector": [list(part) for part in model.parts],
        "reconstruction": model.rule.to_json(),
        "ratings_mean": ratings_meaning(about, model),
        "scores_mean": scores_meaning(about),
        "signatures": None if form == "numpy" else signatures(model),
        "files": dict(files),
        "settings": facts.settings,
        "metrics": facts.metrics,
        "quantization_loss": {"not_measured": loss} if isinstance(loss, str) else loss,
    }


def signatures(model: LinearModel) -> dict[str, Any]:
    """Returns inputs and outputs of the functions of `OnDevice`, as JSON values."""
    size = model.factors.shape[1]
    rows = _array("int32", ["n"], "Rows of items.csv, all different; -1 at the end is padding.")
    ratings = _array("float32", ["n"], "See ratings_mean.")
    vector = _array("float32", [size], "The user's vector; it stays on the device.")
    scores_of_all = _array("float32", [model.num_items], "See scores_mean; by row of items.csv.")
    scores = _array("float32", ["n"], "See scores_mean.")
    some_rows = _array("int32", ["n"], "Rows of items.csv.")
    return {
        "reconstruct": {
            "inputs": {"item_rows": rows, "ratings": ratings},
            "outputs": {"user_vector": vector},
        },
        "score": {"inputs": {"user_vector": vector}, "outputs": {"scores": scores_of_all}},
        "score_items": {
            "inputs": {"user_vector": vector, "item_rows": some_rows},
            "outputs": {"scores": scores},
        },
    }


def _array(dtype: str, shape: list[int | str], meaning: str) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "meaning": meaning}


def ratings_meaning(about: About, model: LinearModel) -> str:
    """Returns what the input `ratings` must hold."""
    if isinstance(model.rule, ImplicitLeastSquares):
        return "Anything, such as 1: only which items are given counts."
    if about.label_threshold is not None:
        return f"1 where the user's rating is at least {about.label_threshold:g} stars, else 0."
    if not about.is_implicit:
        return f"The user's ratings in stars, {about.scale}."
    if about.negatives_per_positive:
        return (
            "1 for each item that the user has, and 0 for others: for each item that the user has, "
            f"{about.negatives_per_positive} drawn at random among the others. All in random order."
        )
    return "1 for each item that the user has."


def scores_meaning(about: About) -> str:
    """Returns what scores are."""
    if about.predicts_ratings:
        return "The predicted rating in stars, not cut to the scale."
    if about.is_implicit:
        return "Only the order of a user's scores counts; higher is better."
    return f"The predicted label, near 1 for ratings of at least {about.label_threshold:g} stars."

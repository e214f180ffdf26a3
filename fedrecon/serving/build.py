"""From a trained algorithm to the model that serves users."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from fedrecon import rng
from fedrecon.algorithms.algorithm import Algorithm, Reconstruction
from fedrecon.algorithms.reconstruction import is_solvable
from fedrecon.data.population import Population, parts_of
from fedrecon.engine import least_squares
from fedrecon.engine.calls import initial_local_values
from fedrecon.engine.values import Values
from fedrecon.models.functional import FunctionalModel
from fedrecon.models.model_fn import description
from fedrecon.models.split_model import ModelFn
from fedrecon.options import FedIalsOptions
from fedrecon.serving.about import About
from fedrecon.serving.items import Items
from fedrecon.serving.linear import (
    GradientSteps,
    ImplicitLeastSquares,
    LeastSquares,
    LinearModel,
    Rule,
)
from fedrecon.serving.recommender import Recommender
from fedrecon.serving.stepwise import StepwiseModel
from fedrecon.wiring.weights import global_part


def recommender_of(
    algorithm: Algorithm,
    state: Any,
    population: Population,
    *,
    name: str,
    rounds: int,
    trained_model_fn: ModelFn | None = None,
) -> Recommender:
    """Returns what serves users by a trained algorithm.

    Everybody is reconstructed from the ratings given, also where the algorithm keeps a local part.

    Args:
      algorithm: The algorithm.
      state: Its state.
      population: The users that it was trained on.
      name: The name of the algorithm.
      rounds: How many rounds it was trained.
      trained_model_fn: Builds the model that was trained, from which training may go on; None where
        users are reconstructed by the same model, penalties included.
    """
    reconstruction = algorithm.reconstruction
    model = FunctionalModel(reconstruction.model_fn())
    weights = algorithm.get_weights(state)
    values = global_part(reconstruction.model_fn, model).to_values(weights)
    values = {weight: np.asarray(value) for weight, value in values.items()}
    about = About.of(population, algorithm=name, rounds=rounds)
    return Recommender(
        items=Items.of_ratings(population.ratings, population.training_counts()),
        model=served_model(
            reconstruction, model, values, seed=about.seed, num_items=population.ratings.num_items
        ),
        about=about,
        weights=values,
        model_description=description(trained_model_fn or reconstruction.model_fn),
        ratings=population.ratings,
        parts=parts_of(population),
    )


def served_model(
    reconstruction: Reconstruction,
    model: FunctionalModel,
    values: Values,
    *,
    seed: int,
    num_items: int,
) -> LinearModel | StepwiseModel:
    """Returns the model as users are served by it: as two tables where it is linear.

    Args:
      reconstruction: How users are reconstructed.
      model: The model.
      values: The whole global values.
      seed: Draws the initial values of gradient steps; those of a user whom training never saw.
      num_items: How many items there are.
    """
    start_seed = int(rng.derive_seeds(seed, "new_user", ids=np.zeros(1))[0])
    rule = _rule(reconstruction, model, start_seed)
    if rule is None:
        return StepwiseModel(
            reconstruction.model_fn,
            values,
            reconstruction.options,
            start_seed=start_seed,
            num_items=num_items,
        )
    factors, offsets = least_squares.linear_tables(model, values, num_items)
    parts = tuple((weight.name, weight.shape.num_elements()) for weight in model.local_weights)
    return LinearModel(factors, offsets, rule, parts)


def _rule(reconstruction: Reconstruction, model: FunctionalModel, start_seed: int) -> Rule | None:
    """Returns the rule of a linear model, or None where the Keras model itself is needed."""
    options = reconstruction.options
    if isinstance(options, FedIalsOptions):
        return ImplicitLeastSquares(
            options.regularization, options.exponent, options.unobserved_weight
        )
    if not all(weight.trainable for weight in model.local_weights):
        return None
    if options.is_exact:
        strengths = least_squares.regularization_strengths(model, options.least_squares)
        return LeastSquares(tuple(strengths), options.least_squares.exponent)
    if not options.reconstruction_optimizer.is_plain_sgd:
        return None
    if not is_solvable(reconstruction.model_fn):
        return None
    drawn = initial_local_values(model, tf.constant([start_seed], tf.uint32))
    initial = np.concatenate([np.ravel(drawn[weight.name]) for weight in model.local_weights])
    return GradientSteps(
        initial=tuple(initial.tolist()),
        learning_rate=options.reconstruction_optimizer.learning_rate
        * least_squares.squared_loss_weight(model),
        batch_size=options.batch_size,
        epochs=options.reconstruction_epochs,
        steps_max=options.reconstruction_steps_max,
    )

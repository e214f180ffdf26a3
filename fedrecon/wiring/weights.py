"""The weights that a server keeps: `ModelWeights` for TFF, values by name for everybody else."""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable, Sequence

import tensorflow_federated as tff

from fedrecon.engine.values import Values, by_name, in_order
from fedrecon.models.functional import FunctionalModel
from fedrecon.models.model_fn import initial_global_values
from fedrecon.models.split_model import ModelFn
from fedrecon.models.weights import Weight

ModelWeights = tff.learning.models.ModelWeights


class ServerWeights:
    """The weights that a server keeps, and their initial values.

    Attributes:
      weights: The weights: the global ones of a model, or all of them where the server has a table
        of each user's local values.
      trainable: The trainable ones of them, in the order of `ModelWeights.trainable`.
    """

    def __init__(self, weights: Sequence[Weight], initial_values: Callable[[], Values]):
        """Describes the weights.

        Args:
          weights: The weights.
          initial_values: Their initial values. It builds its variables anew at each call, so TFF
            can call it in a graph.
        """
        self.weights = tuple(weights)
        self.trainable = tuple(weight for weight in weights if weight.trainable)
        self._others = tuple(weight for weight in weights if not weight.trainable)
        self._initial_values = initial_values

    def initial(self) -> ModelWeights:
        """Returns the initial values."""
        return self.to_model_weights(self._initial_values())

    @functools.cached_property
    def initialize(self) -> tff.Computation:
        """The TFF computation of the initial values."""
        return tff.tensorflow.computation(self.initial)

    @property
    def type(self) -> tff.Type:
        """The TFF type of the values."""
        return self.initialize.type_signature.result

    def to_values(self, model_weights: ModelWeights) -> Values:
        """Returns values by name, in the order of `weights`."""
        trainable, others = list(model_weights.trainable), list(model_weights.non_trainable)
        values = by_name(self.trainable, trainable) | by_name(self._others, others)
        # TFF takes an ordered dictionary for a structure with these names.
        return collections.OrderedDict((w.name, values[w.name]) for w in self.weights)

    def to_model_weights(self, values: Values) -> ModelWeights:
        """Returns the `ModelWeights` of values by name."""
        return ModelWeights(in_order(self.trainable, values), in_order(self._others, values))


def global_part(model_fn: ModelFn, model: FunctionalModel) -> ServerWeights:
    """Returns the weights of a server that keeps the global part.

    Args:
      model_fn: Builds the model.
      model: What it builds.
    """

    def initial_values():
        names = [weight.name for weight in model.global_weights]
        return by_name(model.global_weights, initial_global_values(model_fn, names))

    return ServerWeights(model.global_weights, initial_values)

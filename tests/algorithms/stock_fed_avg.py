"""Stock TFF's federated averaging of the same Keras model, all of it on the server."""

import numpy as np
import tensorflow_federated as tff

from fedrecon.algorithms import stock_fed_recon


class StockFedAvg:
    """Its local part starts from the same values in each round."""

    def __init__(self, model_fn, options, in_tffs_runtime):
        model = model_fn()
        places = {v.ref(): index for index, v in enumerate(model.keras_model.trainable_variables)}
        self._globals = [places[v.ref()] for v in model.global_trainable_weights]
        self._locals = [places[v.ref()] for v in model.local_trainable_weights]
        self._process = in_tffs_runtime(
            tff.learning.algorithms.build_weighted_fed_avg(
                lambda: _whole_model(model_fn()),
                client_optimizer_fn=options.client_optimizer.build(),
                server_optimizer_fn=options.server_optimizer.build(),
                client_weighting={
                    "num_examples": tff.learning.ClientWeighting.NUM_EXAMPLES,
                    "uniform": tff.learning.ClientWeighting.UNIFORM,
                }[options.client_weighting],
            )
        )
        self._options = options
        self._state = self._process.initialize()
        self._local_values = [self._trainable[index] for index in self._locals]
        assert len(self._trainable) == len(self._globals) + len(self._locals)

    @property
    def _trainable(self):
        return list(self._process.get_model_weights(self._state).trainable)

    @property
    def global_values(self):
        return [self._trainable[index] for index in self._globals]

    def next(self, clients):
        """Trains on the item ids and labels of clients; returns metrics."""
        options = self._options
        datasets = []
        for client in clients:
            batches = stock_fed_recon.client_dataset(*client, batch_size=options.batch_size)
            batches = batches.repeat(options.client_epochs)
            datasets.append(batches.take(options.client_steps_max or -1))
        output = self._process.next(self._state, datasets)
        self._state = output.state
        trainable = self._trainable
        moved = [np.abs(trainable[i] - v).max() for i, v in zip(self._locals, self._local_values)]
        assert min(moved) > 1e-4  # It trained them.
        for index, value in zip(self._locals, self._local_values):
            trainable[index] = value
        weights = tff.learning.models.ModelWeights(trainable, [])
        self._state = self._process.set_model_weights(self._state, weights)
        return output.metrics["client_work"]["train"]


def _whole_model(model):
    return tff.learning.models.from_keras_model(
        model.keras_model,
        loss=model.loss_fn(),
        input_spec=model.input_spec,
        metrics=model.metrics_fn(),
    )

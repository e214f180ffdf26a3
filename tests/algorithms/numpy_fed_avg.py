"""Federated averaging as plain loops, what tests hold the engine against.

One client and one batch at a time, in float64, with the gradients of matrix factorization by hand.
A client predicts `<u, v_i> + b_u + b_i + mu`; its values are `[v, b_item, mu, u, b_user]`, of which
the first three are global.
"""

import numpy as np

from fedrecon.options import MOMENTUM

NUM_GLOBAL = 3


def errors_and_gradients(values, item_ids, labels):
    """Returns those of the mean squared error of a batch."""
    items, item_bias, bias, user, user_bias = values
    errors = items[item_ids] @ user[0] + item_bias[item_ids, 0] + bias + user_bias[0, 0] - labels
    slopes = 2 * errors / len(labels)
    of_items, of_item_bias = np.zeros_like(items), np.zeros_like(item_bias)
    for item, slope in zip(item_ids, slopes):
        of_items[item] += slope * user[0]
        of_item_bias[item] += slope
    of_user = (slopes @ items[item_ids])[np.newaxis]
    return errors, [of_items, of_item_bias, slopes.sum(), of_user, np.full([1, 1], slopes.sum())]


def fit(values, item_ids, labels, options):
    """Returns a client's values afterwards, and the errors of each batch before its step."""
    rate = options.client_optimizer.learning_rate
    momentum = {"sgd": 0.0, "momentum": MOMENTUM}[options.client_optimizer.name]
    values = [np.array(value, np.float64) for value in values]
    velocities = [np.zeros_like(value) for value in values]
    starts = list(range(0, len(labels), options.batch_size)) * options.client_epochs
    all_errors = []
    for start in starts[: options.client_steps_max]:
        batch = slice(start, start + options.batch_size)
        errors, gradients = errors_and_gradients(values, item_ids[batch], labels[batch])
        if options.gradient_clip_norm is not None:
            length = np.sqrt(sum(np.sum(gradient**2) for gradient in gradients))
            if length > options.gradient_clip_norm:
                gradients = [g * options.gradient_clip_norm / length for g in gradients]
        velocities = [momentum * v + gradient for v, gradient in zip(velocities, gradients)]
        values = [value - rate * velocity for value, velocity in zip(values, velocities)]
        all_errors.append(errors)
    return values, all_errors


def fit_all(global_values, local_values, clients, options):
    """Returns for each client its values afterwards, its weight and its errors by batch.

    Args:
      global_values: What all start from.
      local_values: What each has.
      clients: The item ids and the labels of each.
      options: `FedAvgOptions`.
    """
    results = []
    for own, (item_ids, labels) in zip(local_values, clients):
        values, errors = fit([*global_values, *own], item_ids, labels, options)
        weight = sum(map(len, errors))
        if options.client_weighting == "uniform":
            weight = float(weight > 0)
        results.append((values, weight, errors))
    return results


def average(global_values, results, clients, options):
    """Returns the global values after the server's step of gradient descent.

    Args:
      global_values: Those before.
      results: As `fit_all` returns them.
      clients: As it takes them.
      options: Likewise.
    """
    assert options.server_optimizer.name == "sgd"
    new_values = []
    for index, before in enumerate(global_values):
        total, divisor = np.zeros_like(before), np.zeros_like(before)
        for (values, weight, _), (item_ids, _) in zip(results, clients):
            counts = np.ones_like(before)
            if options.averaging == "by_row" and np.ndim(before) == 2:
                counts[np.setdiff1d(np.arange(len(before)), item_ids)] = 0
            total = total + weight * counts * (values[index] - before)
            divisor = divisor + weight * counts
        mean = np.divide(total, divisor, out=np.zeros_like(total), where=divisor > 0)
        new_values.append(before + options.server_optimizer.learning_rate * mean)
    return new_values


def metrics(results):
    """Returns what a round should report of the errors of its clients."""
    batches = [errors for _, _, of_client in results for errors in of_client]
    errors = np.concatenate(batches)
    return {
        "loss": np.mean([np.mean(batch**2) for batch in batches]),
        "mean_loss": np.mean(errors**2),
        "rmse": np.sqrt(np.mean(errors**2)),
        "accuracy": np.mean(np.abs(errors) <= 0.5),
        "num_examples": len(errors),
        "num_clients_rejected": 0,
    }

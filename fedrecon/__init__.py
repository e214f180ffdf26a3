"""Partially local federated learning for recommenders, on TensorFlow Federated.

    import fedrecon as fr

    run = fr.fit(fr.load_dataset("movielens-1m"), algorithm="fed_recon_ls", rounds=200)
    print(run.metrics)

The names below are the front door. Each is imported when it is first used: `import fedrecon` alone
takes no time, imports neither TensorFlow nor TFF, and changes no global state.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# The module of each public name.
_NAMES = {
    # Data, and who trains on it.
    "load_dataset": "data.datasets",
    "load_leave_one_out": "data.datasets",
    "Ratings": "data.ratings",
    "read_ratings": "data.own_ratings",
    "ReadingOptions": "data.own_values",
    "positives": "data.filters",
    "k_core": "data.filters",
    "divide_by_user": "data.population",
    "divide_for_ranking": "data.population",
    "divide_by_strong_generalization": "data.strong_generalization",
    "Population": "data.population",
    "genre_features": "data.features",
    # Models.
    "SplitModel": "models.split_model",
    "model_fn": "models.model_fn",
    "matrix_factorization": "models.matrix_factorization",
    "gmf": "models.neural_cf",
    "mlp": "models.neural_cf",
    "neumf": "models.neural_cf",
    # Settings.
    "OptimizerOptions": "options",
    "LeastSquaresOptions": "options",
    "FedReconOptions": "options",
    "FedIalsOptions": "options",
    "PairCounts": "ials_units",
    "FedAvgOptions": "options",
    "CentralizedOptions": "options",
    # Algorithms.
    "prepare_fed_recon": "algorithms.fed_recon",
    "prepare_stock_fed_recon": "algorithms.stock_fed_recon",
    "prepare_fed_ials": "algorithms.fed_ials",
    "prepare_fed_avg": "algorithms.fed_avg",
    "prepare_stateful_fed_avg": "algorithms.fed_avg",
    "prepare_fed_ncf": "algorithms.fed_ncf",
    "prepare_centralized": "algorithms.centralized",
    "Algorithm": "algorithms.algorithm",
    "ClientStore": "runs.client_store",
    # Evaluation.
    "Judge": "evaluation.judge",
    "check_leak": "evaluation.leak",
    "fit": "fit",
    # Recommendations.
    "load_run": "serving.files",
    "Recommender": "serving.recommender",
    "warm_started": "serving.warm_start",
    # Runtimes.
    "set_in_process_context": "execution.in_process",
    "set_native_context": "execution.native",
    # Errors.
    "InputError": "errors",
    "DataError": "errors",
}
__all__ = sorted(_NAMES)


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if _NAMES[name].partition(".")[0] not in ("data", "errors", "ials_units", "options", "serving"):
        from fedrecon._requirements import check_requirements

        check_requirements()
    value = getattr(importlib.import_module(f"{__name__}.{_NAMES[name]}"), name)
    # A submodule of the same name (`fit`, `model_fn`) is bound here by its import.
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

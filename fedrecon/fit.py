"""The common case in one call: divide the users, train, evaluate."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow_federated as tff

from fedrecon.algorithms import centralized, fed_avg, fed_ials, fed_ncf, fed_recon
from fedrecon.algorithms.algorithm import Algorithm
from fedrecon.algorithms.reconstruction import is_solvable
from fedrecon.data.ncf import LeaveOneOut
from fedrecon.data.population import (
    PARTS,
    Population,
    divide_by_user,
    divide_for_ranking,
)
from fedrecon.data.ratings import Ratings
from fedrecon.defaults import (
    arguments_of_scale,
    default_model,
    default_options,
    default_reconstruction,
)
from fedrecon.errors import InputError
from fedrecon.evaluation.coverage import Coverage
from fedrecon.evaluation.judge import Judge
from fedrecon.evaluation.metrics import UserResults
from fedrecon.ials_units import PairCounts
from fedrecon.models.matrix_factorization import matrix_factorization
from fedrecon.models.model_fn import StartedModelFn, model_fn
from fedrecon.models.split_model import ModelFn
from fedrecon.options import FedIalsOptions
from fedrecon.runs.client_store import ClientStore
from fedrecon.runs.divergence import DivergenceCheck
from fedrecon.serving.build import recommender_of
from fedrecon.serving.matching import check_feedback
from fedrecon.serving.recommender import Recommender
from fedrecon.serving.warm_start import model_of, parts_before, warm_started

if TYPE_CHECKING:
    import pandas as pd

_DIM = 32


@dataclasses.dataclass(frozen=True)
class _Kind:
    """What `fit` does with the name of an algorithm: how it is prepared."""

    prepare: Callable[..., Algorithm]
    more: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def _store(num_users: int, width: int) -> ClientStore:
    return ClientStore(num_users, width, path=None)


_KINDS = {
    "fed_recon": _Kind(fed_recon.prepare_fed_recon),
    "fed_recon_ls": _Kind(fed_recon.prepare_fed_recon),
    "fed_ials": _Kind(fed_ials.prepare_fed_ials),
    "fed_avg": _Kind(fed_avg.prepare_fed_avg),
    "stateful_fed_avg": _Kind(fed_avg.prepare_stateful_fed_avg, {"open_store": _store}),
    "fed_ncf": _Kind(fed_ncf.prepare_fed_ncf),
    "centralized": _Kind(centralized.prepare_centralized),
}
_RECONSTRUCTING = ("fed_avg", "stateful_fed_avg", "fed_ncf", "centralized")
_TAKE_AGGREGATORS = ("fed_recon", "fed_recon_ls", "fed_ials")


@dataclasses.dataclass(frozen=True)
class Fitted:
    """A trained algorithm.

    Attributes:
      algorithm: The algorithm.
      population: The users.
      state: The server's state after the last round.
      judge: Judges states on groups of users.
      results: The results of each user of each group, by the group's name.
      coverage: Who of each group was judged, by the group's name.
      metrics: The means of each group, by the group's name; see `Judge.metrics`.
      rows: The metrics of each round, by their names, such as `train/loss`.
      recommender: Serves users by the trained model.
    """

    algorithm: Algorithm
    population: Population
    state: Any
    judge: Judge
    results: Mapping[str, UserResults]
    coverage: Mapping[str, Coverage]
    metrics: Mapping[str, Mapping[str, float]]
    rows: list[dict[str, float]]
    recommender: Recommender

    @property
    def curves(self) -> pd.DataFrame:
        """One row a round, a column a metric; empty where a group was not evaluated."""
        import pandas as pd

        return pd.DataFrame(self.rows).set_index("round")

    @property
    def per_user(self) -> pd.DataFrame:
        """One row an evaluated user: `group`, `user_id` (the data set's own), `count`, metrics."""
        import pandas as pd

        ids = self.population.ratings.original_user_ids
        tables = []
        for group, results in self.results.items():
            users = self.judge.cases(group).users
            table = pd.DataFrame({"group": group, "user_id": np.asarray(ids)[users]})
            tables.append(table.assign(count=results.counts, **results.values))
        return pd.concat(tables, ignore_index=True)


def fit(
    ratings: Ratings | LeaveOneOut | Population,
    algorithm: str = "fed_recon_ls",
    *,
    model: ModelFn | None = None,
    options: Any = None,
    rounds: int = 200,
    clients_per_round: int | None = None,
    rounds_per_evaluation: int | None = None,
    seed: int = 0,
    aggregator: tff.aggregators.WeightedAggregationFactory | None = None,
    is_aggregator_linear: bool = False,
    warm_start: Recommender | None = None,
    context: Any = None,
) -> Fitted:
    """Trains an algorithm and evaluates it on users whom training saw and on others.

        run = fit(load_dataset("movielens-1m"), algorithm="fed_recon_ls", rounds=200)
        run.metrics["unseen_test"]["rmse"]

    Args:
      ratings: A data set; it is divided with the defaults of `divide_by_user` (`fed_ials`:
        `divide_for_ranking`), and a tenth of each training user's ratings is held out. Pass a
        `Population` to divide it otherwise.
      algorithm: `fed_recon`, `fed_recon_ls` (exact reconstruction), `fed_ials` (exact, implicit
        feedback), `fed_avg`, `stateful_fed_avg`, `fed_ncf` or `centralized`.
      model: Builds the model; None means matrix factorization with 32 factors and, but for
        `fed_ials`, with biases around the middle of the rating scale.
      options: The algorithm's settings; None means the defaults of this function.
      rounds: How many rounds to train.
      clients_per_round: The size of a cohort; None means 100, or a fifth of the training users if
        that is less.
      rounds_per_evaluation: A validation group is evaluated after each multiple of this many
        rounds; None evaluates ten times.
      seed: Every random number follows from it (of a `Population`, its own seed counts).
      aggregator: Aggregates the clients' updates; see `build_fed_recon`. Only `fed_recon`,
        `fed_recon_ls` and `fed_ials` take one.
      is_aggregator_linear: See `build_fed_recon`.
      warm_start: A trained model to start from, as `load_run` or an earlier `fit` returns it; see
        `serving.warm_start`. Its model is the model, unless `model` says how to build it for the
        new items. Its users keep the part that they had, and no later ratings of seen users are
        held out, since the model may have trained on them; of a `Population`, what seen users are
        asked for is left to the caller. None starts from random values.
      context: The TFF execution context to train in; None makes an in-process context. The
        default context of the process stays as it is.

    Raises:
      InputError: If the algorithm is unknown or takes no aggregator, if training diverges (see
        `DivergenceCheck`), or see `prepare_fed_recon`.
    """
    from fedrecon.execution.in_process import InProcessContext, end_quietly

    if algorithm not in _KINDS:
        raise InputError(f"there is no algorithm {algorithm!r}; there are {', '.join(_KINDS)}.")
    kind = _KINDS[algorithm]
    more = dict(kind.more)
    if aggregator is not None:
        if algorithm not in _TAKE_AGGREGATORS:
            raise InputError(
                f"{algorithm} takes no aggregator; {', '.join(_TAKE_AGGREGATORS)} take one."
            )
        more.update(aggregator_factory=aggregator, is_aggregator_linear=is_aggregator_linear)
    population = _population(ratings, algorithm, seed, warm_start)
    if clients_per_round is None:
        clients_per_round = max(1, min(100, len(population.train) // 5))
    build_model = model
    if warm_start is not None:
        check_feedback(warm_start.about, population.feedback)
        _check_unseen(population, warm_start)
        build_model = model or model_of(warm_start, population.ratings.num_items)
        build_model = warm_started(build_model, warm_start, population.ratings)
    if build_model is None:
        build_model = _default_model(population, algorithm)
    if algorithm in _RECONSTRUCTING:
        more.update(_reconstruction(build_model))
    if context is None:
        context = InProcessContext()
        end_quietly()
    with tff.framework.get_context_stack().install(context):
        prepared = kind.prepare(
            build_model,
            options or _default_options(algorithm, population),
            population,
            clients_per_round=clients_per_round,
            **more,
        )
        judge = Judge(prepared, population)
        every = rounds_per_evaluation or max(1, rounds // 10)
        state, rows = _train(prepared, judge, _watched(population), rounds, every)
        results = {group: judge.results(state, group) for group in population.groups}
        recommender = recommender_of(
            prepared, state, population, name=algorithm, rounds=rounds, trained_model_fn=build_model
        )
    metrics = {group: judge.summarize(of_group) for group, of_group in results.items()}
    judged = {group: judge.coverage(group) for group in population.groups}
    return Fitted(prepared, population, state, judge, results, judged, metrics, rows, recommender)


def _default_options(algorithm: str, population: Population) -> Any:
    if algorithm == "fed_ials":
        return FedIalsOptions.of_data(PairCounts.of_training(population))
    return default_options(algorithm, population.feedback)


def _population(ratings, algorithm: str, seed: int, warm_start: Recommender | None) -> Population:
    if isinstance(ratings, Population):
        return ratings
    if warm_start is None:
        before, fraction = None, 0.1
    else:
        data = ratings.ratings if isinstance(ratings, LeaveOneOut) else ratings
        # Whoever trained the earlier model is no unseen user. It may also have trained on the later
        # ratings of seen users, and on the item before their last one.
        before, fraction = parts_before(warm_start, data), 0.0
    if algorithm == "fed_ials" or isinstance(ratings, LeaveOneOut):
        negatives = {"negatives_per_positive": 0} if algorithm == "fed_ials" else {}
        return divide_for_ranking(
            ratings,
            seed=seed,
            unseen_fraction=_unseen_fraction(before),
            holds_out_validation=warm_start is None,
            known_parts=before,
            **negatives,
        )
    return divide_by_user(ratings, seed=seed, held_out_fraction=fraction, known_parts=before)


def _unseen_fraction(before: np.ndarray | None) -> float:
    """Returns the share of new users to leave out of training: none where a tenth is nobody.

    Args:
      before: The part that each user had, -1 for a new user; None if all are new.
    """
    if before is None or np.count_nonzero(before == -1) >= 10 or (before > 0).any():
        return 0.1
    return 0.0


def _check_unseen(population: Population, warm_start: Recommender) -> None:
    """Refuses a population whose unseen users trained the model to start from."""
    before = parts_before(warm_start, population.ratings) == PARTS.index("train")
    for name, group in population.groups.items():
        trained = int(before[group.users].sum())
        if not name.startswith("seen") and trained:
            raise InputError(
                f"{trained} of the {len(group.users)} {name} users trained the model to start "
                "from; divide the users with known_parts."
            )


def _reconstruction(build_model: ModelFn) -> dict[str, Any]:
    """Returns how the users are served whose local part an algorithm does not keep."""
    solved = _without_user_l2(build_model)
    is_linear = is_solvable(solved)
    return {
        "reconstruction": default_reconstruction(is_linear=is_linear),
        "reconstruction_model_fn": solved if is_linear else build_model,
    }


def _without_user_l2(build_model: ModelFn) -> ModelFn:
    """Returns the model that is solved for: its penalty is in the system of equations."""
    if isinstance(build_model, StartedModelFn):
        return _without_user_l2(build_model.build)
    is_ours = isinstance(build_model, functools.partial)
    if is_ours and build_model.func is matrix_factorization:
        return functools.partial(build_model, user_l2=0.0)
    return build_model


def _default_model(population: Population, algorithm: str) -> ModelFn:
    arguments = default_model(algorithm, population.feedback)
    scale = population.label_scale
    has_bias = arguments["global_bias"]
    arguments.update(arguments_of_scale(scale, population.feedback, global_bias=has_bias))
    num_items = population.ratings.num_items
    return model_fn(matrix_factorization, num_items, dim=_DIM, seed=population.seed, **arguments)


def _watched(population: Population) -> str | None:
    """Returns the validation group that curves show: of unseen users, if there is one."""
    groups = [name for name in population.groups if name.endswith("_validation")]
    return groups[-1] if groups else None


def _train(
    algorithm: Algorithm, judge: Judge, watched: str | None, rounds: int, every: int
) -> tuple[Any, list[dict[str, float]]]:
    state, rows = algorithm.initialize(), []
    divergence = DivergenceCheck(algorithm, total_rounds=rounds)
    for round_num in range(rounds + 1):
        row: dict[str, float] = {"round": round_num}
        if round_num:
            state, metrics = algorithm.run_round(state, round_num)
            divergence.check_metrics(round_num, metrics)
            divergence.check_state(round_num, state, is_due=round_num == rounds)
            row.update({f"train/{name}": value for name, value in metrics.items()})
            if algorithm.store is not None:
                algorithm.store.commit()
        if watched is not None and (round_num % every == 0 or round_num == rounds):
            metrics = judge.metrics(state, watched)
            row.update({f"{watched}/{name}": value for name, value in metrics.items()})
        rows.append(row)
    return state, rows

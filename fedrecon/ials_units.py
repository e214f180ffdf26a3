"""The strengths of iALS in units that carry over from one data set to another.

The papers' numbers do not: a good unobserved weight is 0.2 on MovieLens 1M and 0.012 on data that
are a twentieth as dense, and a good regularization moves with both. Here a data set has `U` users,
`I` items and `n` pairs of them, so `p = n / U` items a user and `q = n / I` users an item.

- **Unobserved weight** in units of the observed: all pairs together weigh `unobserved_weight` times
  as much as all observed ones. The weight of one pair is then `a = unobserved_weight * n / (U I)`.
- **Regularization** in units of noise: a random matrix of zeros and ones with the same counts has
  singular values up to about `sqrt(p) + sqrt(q)` (besides the one of its mean). Regularizing users
  with `r_u` and items with `r_i` shrinks singular values by about `sqrt(r_u r_i)`. So
  `sqrt(r_u r_i) = regularization * (sqrt(p) + sqrt(q))` for a user and an item of average counts.

How `r_u` and `r_i` share this does not matter: rows that are longer on one side and shorter on the
other have the same products.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from fedrecon.data.population import Population
from fedrecon.errors import InputError

# Of generated data of four densities, movielens-100k and movielens-1m; BUILD_NOTES.md, "Defaults".
REGULARIZATION = 0.4
UNOBSERVED_WEIGHT = 4.0
DEFAULTS = {"regularization": REGULARIZATION, "unobserved_weight": UNOBSERVED_WEIGHT}


class PairCounts(NamedTuple):
    """How large and how dense a data set is.

    Attributes:
      num_users: Users who have items.
      num_items: Items of the catalog.
      num_pairs: Observed pairs of them.
    """

    num_users: int
    num_items: int
    num_pairs: int

    @classmethod
    def of_training(cls, population: Population) -> PairCounts:
        """Returns the counts of what a population trains on.

        The number of pairs is a sum over clients, as federated analytics or a secure sum gives it.
        """
        users, _, _ = population.examples.interactions(population.train)
        return cls(len(population.train), population.ratings.num_items, len(users))


def in_pairs(
    counts: PairCounts,
    *,
    regularization: float = REGULARIZATION,
    unobserved_weight: float = UNOBSERVED_WEIGHT,
    exponent: float = 0.0,
) -> dict[str, Any]:
    """Returns the papers' regularization and unobserved weight, by these names.

    Args:
      counts: The data set.
      regularization: In units of noise.
      unobserved_weight: In units of the observed.
      exponent: The power with which regularization grows with a row's pairs: 0 for `IalsOptions`,
        `FedIalsOptions.exponent` for that.

    Raises:
      InputError: If there are no pairs.
    """
    if min(counts) < 1:
        raise InputError(f"iALS needs users, items and pairs of them; there are {counts}.")
    of_user, of_item = (counts.num_pairs / number for number in counts[:2])
    noise = math.sqrt(of_user) + math.sqrt(of_item)
    # What a user and an item of average counts weigh: their pairs, and all others.
    weights = (1 + unobserved_weight) * math.sqrt(of_user * of_item)
    return {
        "regularization": regularization * noise / weights**exponent,
        "unobserved_weight": unobserved_weight * of_user / counts.num_items,
    }

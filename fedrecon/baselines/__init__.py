"""References that see all data on one machine: nothing here is federated.

`IMPLICIT` and `EXPLICIT` name the functions that train them, one table for each kind of feedback;
`BY_GENRES` those of explicit feedback that also take `item_genres`. `OPTIONS` names their options
records. `baseline` states what all of them share.
"""

from fedrecon.baselines.ease import EaseOptions, train_ease
from fedrecon.baselines.genres import (
    GenreMeanOptions,
    GlobalMeanOptions,
    train_genre_mean,
    train_genre_popularity,
    train_global_mean,
)
from fedrecon.baselines.ials import IalsOptions, train_ials
from fedrecon.baselines.item_knn import ItemKnnOptions, train_item_knn, train_rating_item_knn
from fedrecon.baselines.popularity import (
    PopularityOptions,
    train_popularity,
    train_rating_baseline,
)

OPTIONS = {
    "ials": IalsOptions,
    "ease": EaseOptions,
    "item_knn": ItemKnnOptions,
    "popularity": PopularityOptions,
    "global_mean": GlobalMeanOptions,
    "genre_mean": GenreMeanOptions,
    "genre_popularity": PopularityOptions,
}
IMPLICIT = {
    "ials": train_ials,
    "ease": train_ease,
    "item_knn": train_item_knn,
    "popularity": train_popularity,
}
EXPLICIT = {"item_knn": train_rating_item_knn, "popularity": train_rating_baseline}
BY_GENRES = {
    "global_mean": train_global_mean,
    "genre_mean": train_genre_mean,
    "genre_popularity": train_genre_popularity,
}

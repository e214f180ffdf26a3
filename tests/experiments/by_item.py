"""Scores that need no model."""

import numpy as np


class ByItem:
    """Scores every item by its id, for everybody."""

    def scores(self, state, cases):
        return cases.item_ids

    def losses(self, labels, scores):
        return None

    def score_blocks(self, state, cases, items):
        yield np.arange(len(cases.users)), np.tile(items.astype(np.float32), (len(cases.users), 1))

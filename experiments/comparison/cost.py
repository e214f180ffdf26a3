"""What training costs, and quality while training."""

from __future__ import annotations

import numpy as np
from pandas import DataFrame, Series

from experiments.comparison import figures
from experiments.comparison.cells import cells, sizes
from experiments.comparison.figures import over_seeds
from experiments.comparison.run_table import MB, SECONDS, Runs
from experiments.pages.sections import Block, Picture, Section, Table, Text
from fedrecon.evaluation.feedback import Feedback
from fedrecon.runs import curves

_KB = 1e3


def cost_section(runs: Runs) -> Section:
    """Returns what training costs, and the pictures of it."""
    unchanged = runs.unchanged
    means = unchanged.groupby("algorithm", observed=True).mean(numeric_only=True)
    seconds = cells(over_seeds(unchanged, "algorithm", SECONDS), digits=2)
    blocks = cost_blocks(means, seconds)
    if runs.watched is not None:
        drawn = curves_of(runs.feedback, runs.watched)
        blocks += [*drawn, *not_drawn(runs.feedback, runs.watched)]
    return Section("What it costs", tuple(blocks))


def cost_blocks(means: DataFrame, seconds: Series) -> list[Block]:
    """Returns a table of what training costs, and what it means.

    Args:
      means: A row for each algorithm, the bytes in columns.
      seconds: The cells of the time without compilation.
    """
    once = sizes(means["bytes_up_once"] / _KB) + " once"
    costs = {
        "KB down": sizes(means["bytes_down"] / _KB),
        "KB up": once.where(means["bytes_up_once"] > 0, sizes(means["bytes_up"] / _KB)),
        "device KB": sizes(means["device_bytes"] / _KB),
        "server MB": sizes(means["server_bytes"] / MB),
        # Runs of an older version do not know them.
        **({"item steps": sizes(means["item_steps"])} if "item_steps" in means else {}),
        "seconds without compilation": seconds,
    }
    return [
        Table("Bytes and seconds", DataFrame(costs).rename_axis("algorithm")),
        Text(
            "KB down and up are what a client receives and sends in a round (once: what it sends "
            "in all), device KB the state that it keeps between rounds, server MB the server's "
            "state; 1 KB is 1000 bytes. Item steps are the steps of the item rows that a client "
            "takes in a round, on average (on one machine: all steps of a round), so runs of as "
            "many rounds and clients need not have trained items equally much. Seconds without "
            "compilation are the median seconds of a round times the rounds, without evaluations "
            "too: the first run of a process compiles for the runs after it, so seconds as they "
            "pass would depend on the order of runs. The curves by seconds have the same clock."
        ),
    ]


def curves_of(feedback: Feedback, watched: DataFrame) -> list[Picture]:
    """Returns quality by rounds, bytes and seconds, of what `read_watched` returns."""
    measures = feedback.measures
    sent = watched[watched["megabytes"] > 0]
    pictures = [figures.curves_picture(watched, measures, "round")]
    if len(sent):
        pictures.append(figures.curves_picture(sent, measures, "megabytes"))
    return [*pictures, figures.curves_picture(watched, measures, "seconds")]


def not_drawn(feedback: Feedback, watched: DataFrame) -> list[Text]:
    """Returns which curves have gaps, where any has."""
    values = watched[[measure.name for measure in feedback.measures]].to_numpy(float)
    is_gap = np.isnan(curves.without_diverged(values)).any(axis=1)
    names = ", ".join(watched["algorithm"][is_gap].unique())
    if not names:
        return []
    return [Text(f"Not drawn, since they diverged: {is_gap.sum()} evaluations of {names}.")]

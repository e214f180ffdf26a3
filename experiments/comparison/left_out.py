"""How many clients of a run were left out, since their updates were not finite."""

from __future__ import annotations

from pandas import DataFrame

from experiments.comparison.run_table import LEFT_OUT, Runs
from experiments.pages.sections import Section, Table, Text

TITLE = "Clients left out"


def left_out_sections(runs: Runs) -> list[Section]:
    """Returns a section, or none where no client was left out."""
    trained = runs.unchanged.dropna(subset="rounds")
    table = trained[trained[LEFT_OUT] > 0]
    if table.empty:
        return []
    all_clients = table["rounds"] * table["clients_per_round"]
    shown = DataFrame(
        {
            "algorithm": table["algorithm"].astype(str),
            "seed": table["seed"].astype(str),
            "left out": table[LEFT_OUT].map("{:,.0f}".format),
            "of": all_clients.map("{:,.0f}".format),
        }
    ).set_index("algorithm")
    text = (
        "A client whose update is not finite is left out of its round. The model is of the others; "
        "smaller learning rates, or more regularization, would help."
    )
    return [Section(TITLE, (Table("Clients of all rounds", shown), Text(text)))]

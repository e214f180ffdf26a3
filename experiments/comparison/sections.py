"""A comparison as the sections of a report."""

from __future__ import annotations

from experiments.comparison.by_user import by_user_sections
from experiments.comparison.categories import given_sections, sweep_section
from experiments.comparison.converged import converged_sections, endings_of
from experiments.comparison.cost import cost_section
from experiments.comparison.differences import Pairing
from experiments.comparison.draws import draw_sections
from experiments.comparison.left_out import left_out_sections
from experiments.comparison.quality import difference_sections, quality_section
from experiments.comparison.recommended import top_lists_sections
from experiments.comparison.run_table import Runs, results_of
from experiments.comparison.standard_errors import standard_error_sections
from experiments.pages.sections import Points, Section
from fedrecon.evaluation.coverage import Coverage


def sections_of(runs: Runs, pairing: Pairing) -> list[Section]:
    """Returns what there is to say of a comparison, after who won."""
    return [
        quality_section(runs, pairing),
        *standard_error_sections(runs),
        *difference_sections(runs, pairing),
        *converged_sections(runs.feedback, endings_of(runs)),
        *draw_sections(runs, pairing),
        *left_out_sections(runs),
        *by_user_sections(runs, pairing),
        *top_lists_sections(runs),
        _coverage_section(runs),
        cost_section(runs),
        *given_sections(runs),
        *(sweep_section(runs, column) for column in runs.changed),
    ]


def _coverage_section(runs: Runs) -> Section:
    """Returns who was judged: a sentence or more for each seed and group."""
    told = []
    for seed, path in runs.unchanged.groupby("seed")["path"].first().items():
        results = results_of(path)
        for group in runs.groups:
            coverage = Coverage(**results.groups[group].coverage)
            sentences = " ".join(coverage.sentences(runs.feedback.name))
            told.append(f"seed {seed}, {group}: {sentences}")
    return Section("Who is judged", (Points(tuple(told)),))

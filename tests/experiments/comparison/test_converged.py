"""What a comparison says of algorithms that had not converged, from runs made by hand."""

import pytest

from experiments.comparison import report
from experiments.comparison.converged import caution
from experiments.run.convergence import ending
from fedrecon.evaluation.feedback import FEEDBACKS
from tests.experiments.comparison.runs_by_hand import (
    REFERENCE,
    SETTLED,
    explicit_results,
    implicit_results,
)

pytestmark = pytest.mark.usefixtures("without_page")
RMSE = FEEDBACKS["explicit"].chosen_by
# Over the last half of four rounds, 5/2 of a fifth, an RMSE may fall by 5/2 of 0.5%, 1.25%.
IMPROVING = ((0, 3.5, 0.0), (2, 2.0, 0.25), (4, 1.5, 0.5))


def paragraphs(path):
    return (path / "comparison.md").read_text().split("\n\n")


def table(path):
    lines = paragraphs(path)[paragraphs(path).index("## Had training converged?") + 1]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines.splitlines()]


def test_the_sentence_after_the_winner_names_whoever_had_not_converged(tmp_path, write):
    runs = [
        write(explicit_results("fed_recon", 0, 1.0, 0.5), watched=IMPROVING),
        write(explicit_results("fed_avg", 0, 1.5, 0.5), watched=SETTLED),
        write(explicit_results("popularity", 0, 2.0, 0.5, **REFERENCE), watched=None),
    ]
    report.write_report(tmp_path, runs)
    assert paragraphs(tmp_path)[1].startswith("**fed_recon has the best RMSE")
    assert paragraphs(tmp_path)[2] == (
        "**fed_recon had not converged: the validation RMSE was still improving when training "
        "ended. So the order may come from the settings, not from the algorithms. Try more rounds, "
        "or a larger rate found by `experiments.tune`.**"
    )
    heading, _, *rows = table(tmp_path)
    assert heading == ["algorithm", "at the end", "earlier", "last"]
    assert rows == [
        ["fed_recon", "still improving", "2.000 (round 2)", "1.500 (round 4)"],
        ["fed_avg", "converged", "1.250 (round 2)", "1.250 (round 4)"],
    ]
    assert "By the RMSE of validation users; no test figure is looked at." in "".join(
        paragraphs(tmp_path)
    )


def test_nothing_is_said_after_the_winner_where_all_had_converged(tmp_path, write):
    runs = [
        write(explicit_results(name, 0, rmse, 0.5), watched=SETTLED)
        for name, rmse in (("fed_recon", 1.0), ("fed_avg", 1.5))
    ]
    report.write_report(tmp_path, runs)
    assert not paragraphs(tmp_path)[2].startswith("**")
    assert [row[1] for row in table(tmp_path)[2:]] == ["converged", "converged"]


def test_the_mean_over_seeds_counts(tmp_path, write):
    # 2.0 and 1.0 become 1.0 and 2.0: 1.5 twice.
    curves = (((0, 3, 0), (2, 2.0, 0), (4, 1.0, 0)), ((0, 3, 0), (2, 1.0, 0), (4, 2.0, 0)))
    runs = [
        write(explicit_results("fed_avg", seed, 1.0, 0.5), watched=curve)
        for seed, curve in enumerate(curves)
    ]
    report.write_report(tmp_path, runs)
    assert table(tmp_path)[2:] == [
        ["fed_avg", "converged", "1.500 (round 2)", "1.500 (round 4)"],
    ]


def test_rankings_count_by_ndcg_where_higher_is_better(tmp_path, write):
    # The second measure of a row is NDCG@10: 0.25 to 0.5 after 2 of 4 rounds.
    rising = ((0, 0.1, 0.0), (2, 0.5, 0.25), (4, 0.5, 0.5))
    runs = [
        write(implicit_results("fed_ials", 0, 0.5), watched=rising),
        write(implicit_results("fed_avg", 0, 0.25), watched=SETTLED),
    ]
    report.write_report(tmp_path, runs)
    assert "fed_ials had not converged: the validation NDCG@10 was" in paragraphs(tmp_path)[2]


def test_what_was_better_earlier_has_its_round_and_both_values():
    rounds = (0, 50, 100)
    found = {
        "fed_avg": ending(rounds, (3.0, 2.0, 1.0), RMSE),
        "fed_ncf": ending(rounds, (3.0, 2.0, 1.5), RMSE),
        "fed_recon_ls": ending(rounds, (3.0, 1.125, 1.25), RMSE),
        "centralized": ending(rounds, (3.0, 1.0, 1.0), RMSE),
    }
    told = caution(found)
    assert told.text == (
        "fed_avg and fed_ncf had not converged: the validation RMSE was still improving when "
        "training ended. fed_recon_ls (validation RMSE 1.125 after round 50, 1.250 at the end) had "
        "been better earlier in training. So the order may come from the settings, not from the "
        "algorithms."
    )
    assert told.advice == (
        "Try, for fed_avg and fed_ncf: more rounds, or a larger rate found by `experiments.tune`; "
        "for fed_recon_ls: fewer rounds, or a smaller rate found by `experiments.tune`."
    )
    only = caution({"fed_recon_ls": found["fed_recon_ls"], "centralized": found["centralized"]})
    assert only.text.startswith("fed_recon_ls (validation RMSE 1.125 after round 50, 1.250 at the")
    assert only.advice == "Try fewer rounds, or a smaller rate found by `experiments.tune`."
    assert caution({"centralized": found["centralized"]}) is None
    assert caution({}) is None

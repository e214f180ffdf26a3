"""What `import fedrecon` offers, and the script that it is there for."""

import subprocess
import sys

import pytest

import fedrecon as fr


@pytest.mark.slow
def test_importing_is_instant_and_imports_nothing():
    code = "import sys, fedrecon; dir(fedrecon); print(*{m.split('.')[0] for m in sys.modules})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(run.stdout.split())
    assert "fedrecon" in loaded
    assert not loaded & {"tensorflow", "tensorflow_federated", "numpy", "pandas", "absl"}


def test_every_name_is_there_and_named_alike():
    for name in fr.__all__:
        assert getattr(fr, name).__name__ == name
    assert set(fr.__all__) <= set(dir(fr))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'fit_predict'"):
        _ = fr.fit_predict


def test_thirteen_statements_train_and_judge(in_process_runtime):
    ratings = fr.load_dataset("synthetic", num_users=120, num_items=160, seed=0)
    population = fr.divide_by_user(ratings, seed=0, max_ratings_per_user=40)
    model_fn = fr.model_fn(fr.matrix_factorization, ratings.num_items, dim=4, global_bias=True)
    options = fr.FedReconOptions(reconstruction_epochs=5, client_steps_max=10)
    fed_recon = fr.prepare_fed_recon(model_fn, options, population, clients_per_round=20)
    state = fed_recon.initialize()
    judge = fr.Judge(fed_recon, population)
    before = judge.results(state, "unseen_test").mean_over_ratings()
    for round_num in range(1, 11):
        state, metrics = fed_recon.run_round(state, round_num)
    after = judge.results(state, "unseen_test").mean_over_ratings()
    assert before["rmse"] > 3.0  # Predictions start at 0, ratings are 1 to 5.
    assert after["rmse"] < 1.3
    assert metrics["num_examples"] > 100

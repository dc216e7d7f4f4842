"""Benchmarks whose trials compute nothing follow the search as it changes."""

import pytest

from benchmarks import many_workers, overhead, soak, stand_in, worker_utilisation

pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")


@pytest.mark.parametrize(
    "evaluation",
    [overhead.Sleeper(), worker_utilisation.Unequal(0.0, 0.01), soak.Instant()],
    ids=lambda e: type(e).__name__,
)
def test_a_search_runs_with_trials_that_compute_nothing(evaluation, small_config, tmp_path):
    run = stand_in.search({**small_config, "budget": {"trials": 3}}, tmp_path / "run", evaluation, inline=True)
    assert [trial.status for trial in run.trials] == ["completed"] * 3


def test_a_search_runs_on_simulated_workers(small_config, tmp_path):
    engine = many_workers.SimulatedEngine(workers=4, steps=2)
    config = {**small_config, "budget": {"trials": 8}, "resources": {"workers": 4}}
    run = stand_in.search(config, tmp_path / "run", overhead.Sleeper(), engine)
    assert [trial.status for trial in run.trials] == ["completed"] * 8 and len(engine.submitted) == 8

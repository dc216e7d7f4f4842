"""A search that cannot succeed ends early with the reason, and one that is refused leaves nothing behind."""

import pytest

from nas_meta import load_run, resume, search
from nas_meta.controller.failure import failure_reason, repeats_itself
from nas_meta.core.objectives import Objective
from nas_meta.errors import ConfigError, DataError, NasMetaError, RunError
from nas_meta.journal.leaderboard import Leaderboard
from nas_meta.journal.records import Trial


def board(*ends):
    trials = [
        Trial(i, {}, 0, 4, status="failed", error=end)
        if isinstance(end, str)
        else Trial(i, {}, 0, 4, status="completed", metrics={"accuracy": end})
        for i, end in enumerate(ends, 1)
    ]
    return Leaderboard.of(trials, [Objective("accuracy")])


@pytest.mark.parametrize(
    ("ends", "earlier", "most", "ended"),
    [
        (["dark"] * 4, {}, 5, False),
        (["dark"] * 5, {}, 5, True),
        (["dark"] * 5, {}, None, False),
        (["dark"] * 5, {"dark": 1}, 5, False),
        (["dark"] * 4 + ["light"], {}, 5, False),
        ([f"size {i} does not fit {2 * i}" for i in range(5)], {}, 5, True),
        ([0.5] + ["dark"] * 9, {}, 5, False),
        ([], {}, 1, False),
    ],
)
def test_only_failures_alike_and_without_a_success_end_a_search(ends, earlier, most, ended):
    assert repeats_itself(board(*ends), earlier, most) is ended


def test_a_search_without_a_trial_says_what_it_lacked(tmp_path):
    reason = failure_reason(board(), tmp_path, False)
    assert "because none was started; expected a strategy that proposes an architecture" in reason
    assert failure_reason(board(0.5), tmp_path, False) is None


def test_a_search_ends_after_identical_failures_and_resumes_once_they_are_mended(
    small_config, fragile_learner, tmp_path
):
    small_config["learner"]["name"], small_config["budget"] = fragile_learner, {"trials": 8}
    run, phases = tmp_path / "run", []
    with pytest.raises(NasMetaError) as raised:
        search(small_config, run, inline=True, watch=lambda status: phases.append(status.phase))
    assert str(raised.value) == (
        "no trial was completed; the first one failed because ZeroDivisionError: too dark; all 5 failed alike, and the "
        f"search ended early (budget.max_identical_failures); 'nas-meta logs {run} 1' prints its log"
    )
    assert load_run(run).count == 5 and phases[-1] == "failed"
    assert set(phases) == {"preparing", "searching", "failed"}
    with pytest.raises(NasMetaError, match="no trial was completed"):  # the earlier failures do not count again
        resume(run, ["budget.max_identical_failures=2"], inline=True, allow_plugins=True)
    assert load_run(run).count == 7
    with pytest.raises(NasMetaError, match="too dark; 'nas-meta logs"):
        resume(run, ["budget.max_identical_failures=null"], inline=True, allow_plugins=True)
    assert load_run(run).count == 8


def test_a_refused_search_leaves_no_directory(small_config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small_config["tasks"]["ways"] = 9
    for directory in (None, "new/run"):
        with pytest.raises(DataError, match="expected at most 3"):
            search(small_config, directory, inline=True)
    assert not (tmp_path / "runs").exists() and not (tmp_path / "new").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "note").write_text("keep")
    with pytest.raises(DataError, match="expected at most 3"):
        search(small_config, "mine", inline=True)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["note"]
    small_config["tasks"]["path"] = "nowhere.jsonl"
    with pytest.raises((DataError, ConfigError), match=r"nowhere\.jsonl"):
        search(small_config, "other", inline=True)
    assert not (tmp_path / "other").exists()


def test_a_directory_that_another_search_prepares_is_left_alone(small_config, tmp_path):
    from nas_meta.controller.sessions import run_lock

    run = tmp_path / "run"
    run.mkdir()
    with run_lock(run):
        (run / "status.json").write_text("{}")
        with pytest.raises(RunError, match="another search is running"):
            search(small_config, run, inline=True)
        assert {path.name for path in run.iterdir()} == {"lock", "status.json"}

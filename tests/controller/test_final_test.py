"""What comes after the last trial, and before the first one, does not end a search if a part of it fails."""

import json

import pytest
from dying_engine import DyingEngine
from installed import marked
from shown import shown

from nas_meta import load_run, resume, search
from nas_meta.controller import phases
from nas_meta.controller.calls import Call, run_calls
from nas_meta.execution.engine import Event
from nas_meta.execution.inline_engine import InlineEngine
from nas_meta.journal.database import Journal
from nas_meta.journal.weights import weights_path

TFIDF = "TF-IDF, nearest centroid"


@pytest.fixture
def document(small_config):
    return small_config | {"evaluation": {"episodes": 5, "test_episodes": 5, "compare": False}, "budget": {"trials": 3}}


@pytest.fixture
def dying(monkeypatch):
    """Lets the worker die in calls of a method."""

    def make(method, deaths, only=None):
        monkeypatch.setattr(phases, "make_engine", lambda payload, *_: DyingEngine(payload, method, deaths, only))

    return make


def test_a_baseline_that_cannot_be_fitted_is_a_row_without_a_number(document, tmp_path):
    faces = [chr(0x1F600 + i) for i in range(60)]
    rows = [
        {"text": f"{faces[5 * label + i % 5]} {faces[5 * label + i // 5]}", "label": f"class{label}"}
        for label in range(12)
        for i in range(10)
    ]
    file = tmp_path / "emoji.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    document["tasks"] |= {"path": str(file)}
    run = search(document, tmp_path / "run", inline=True)
    assert "two letters" in run.report["unmeasured"][TFIDF]
    assert TFIDF not in run.report["references"] and run.report["trials"]
    assert "not measured" in shown(run) and f"{TFIDF} was not measured: no text" in shown(run)
    assert len(resume(tmp_path / "run", inline=True).trials) == 3


def test_a_search_that_is_stopped_starts_no_other_measurement():
    class Payload:
        def setup(self):
            return None

        def latency(self):
            raise AssertionError("a call was started")

    engine = InlineEngine(Payload())
    assert list(run_calls(engine, [Call("one", "latency")], 0, stopped=lambda: True)) == [] and engine.free()


@pytest.mark.parametrize("method", marked(["test", "test_reference", "test_baseline", "latency"], ["test"]))
def test_a_worker_that_dies_after_the_trials_is_retried(method, document, dying, tmp_path):
    dying(method, 2)
    report = search(document, tmp_path / "run", inline=True).report
    assert len(report["trials"]) == 3 and len(report["references"]) == 2 and report["latency"]["trials"]
    assert not report["unmeasured"]


@pytest.mark.parametrize(
    ("method", "name"), [("test", "trial 2"), ("latency", "latency of trial"), ("test_baseline", TFIDF)]
)
@pytest.mark.slow
def test_a_test_that_kills_every_worker_is_left_out(method, name, document, dying, tmp_path):
    dying(method, 99)
    run = search(document, tmp_path / "run", inline=True)
    reasons = {n: r for n, r in run.report["unmeasured"].items() if n.startswith(name)}
    assert reasons and set(reasons.values()) == {"the worker died: killed"}
    assert "was not measured: the worker died: killed" in shown(run)


def test_a_model_that_cannot_be_measured_is_left_out_of_the_latency_table(document, monkeypatch, tmp_path):
    class Failing(DyingEngine):
        def events(self):
            if self._pending and self._pending[:2] == (1, "latency"):
                self._pending = None
                yield Event(1, error="too large", done=True)
            else:
                yield from super().events()

    monkeypatch.setattr(phases, "make_engine", lambda payload, *_: Failing(payload, "latency", 1))
    document |= {
        "objectives": {"accuracy": "maximize", "latency": "minimize"},
        "latency": {"models": 4, "seconds": 0.01},
    }
    run = search(document, tmp_path / "run", inline=True)
    assert [s is None for s in Journal.open(tmp_path / "run").get("latencies")] == [False, True, False, False]
    assert all(t.metrics["latency"] > 0 for t in run.trials)
    assert len(resume(tmp_path / "run", ["budget.trials=4"], inline=True).trials) == 4


@pytest.mark.parametrize("size", marked([0, 5, 900], [5]))
def test_a_trial_with_truncated_weights_is_left_out(size, document, monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        patch.setattr(phases, "meta_test", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            search(document, tmp_path, inline=True)
    best = load_run(tmp_path).best.id
    file = weights_path(tmp_path, best)
    file.write_bytes(file.read_bytes()[:size])
    report = resume(tmp_path, inline=True).report
    assert len(report["trials"]) == 2 and "not a safetensors file" in report["unmeasured"][f"trial {best}"]

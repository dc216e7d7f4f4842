"""A write to the journal that fails, as on a full disk, costs no trial."""

import pytest
from installed import marked
from killing import results

from nas_meta import load_run, resume, search
from nas_meta.errors import RunError
from nas_meta.journal.database import Journal


@pytest.fixture(scope="module")
def whole(tiny_model, labelled_texts, tmp_path_factory):
    document = {
        "space": {"name": "bert-subnet", "model": str(tiny_model), "importance": "magnitude"},
        "tasks": {"source": "jsonl", "path": str(labelled_texts), "ways": 3, "queries": 3},
        "learner": {"name": "protonet", "steps": 1, "head": "none"},
        "strategy": {"name": "evolution"},
        "stopping": "none",
        "evaluation": {"episodes": 5, "test_episodes": 2, "test_best": 0},
        "budget": {"trials": 3},
        "latency": {"seconds": 0.01},
    }
    return document, results(search(document, tmp_path_factory.mktemp("whole"), inline=True))


WRITES = [range(1, 2), range(3, 4), range(4, 5), range(6, 7), range(3, 99), range(4, 99)]


@pytest.mark.parametrize("failing", marked(WRITES, [WRITES[1]]))
def test_a_failed_write_costs_no_trial(failing, whole, monkeypatch, tmp_path):
    document, expected = whole
    count, write = 0, Journal.write

    def fail(self, *arguments):
        nonlocal count
        count += 1
        if count in failing:
            raise RunError("the journal cannot be written: database or disk is full")
        write(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "write", fail)
        with pytest.raises(RunError, match="disk is full"):
            search(document, tmp_path, inline=True)
    events = Journal.open(tmp_path).ask_tell_events()
    assert {e.trial for e in events} <= {t.id for t in load_run(tmp_path).trials}
    assert results(resume(tmp_path, inline=True)) == expected

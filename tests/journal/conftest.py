"""A finished run that the tests of the journal read and damage."""

import shutil

import pytest

from nas_meta import search


@pytest.fixture(scope="module")
def finished(tiny_model, labelled_texts, tmp_path_factory):
    """A finished run with rungs, so that every table of its journal has rows."""
    run = tmp_path_factory.mktemp("finished") / "run"
    document = {
        "space": {"name": "bert-subnet", "model": str(tiny_model), "heads": [1.0, 0.5], "ffn": [1.0, 0.5]},
        "tasks": {"source": "jsonl", "path": str(labelled_texts), "ways": 3, "queries": 3},
        "learner": {"name": "protonet", "steps": 3, "lr": 1e-3, "head": "none"},
        "stopping": {"name": "median", "rungs": [1]},
        "strategy": {"name": "random"},
        "evaluation": {"episodes": 5, "test_episodes": 5, "compare": False},
        "budget": {"trials": 6},
        "latency": {"seconds": 0.01},
    }
    search(document, run, inline=True)
    shutil.rmtree(run / "tensorboard")
    return run

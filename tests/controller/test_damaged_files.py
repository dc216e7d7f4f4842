"""Files of a run that are truncated, as after a crash of the machine: they are made again, or said to be damaged."""

import os

import pytest
from installed import marked
from killing import results
from tiny_space import PLUGIN

from nas_meta import load_run, resume, search
from nas_meta.core.files import write_atomically
from nas_meta.errors import RunError
from nas_meta.journal.database import Journal
from nas_meta.journal.run import CHECKPOINT, SUPERNET
from nas_meta.journal.weights import weights_path


class Crash(Exception):
    pass


def cut(file, size=40):
    file.write_bytes(file.read_bytes()[:size])


@pytest.fixture
def document(small_config):
    return small_config | {"evaluation": {"episodes": 5, "test_episodes": 5, "compare": False}, "budget": {"trials": 3}}


@pytest.fixture
def supernet(document):
    return document | {"strategy": {"name": "supernet", "steps": 4, "checkpoint_every": 2, "judged": 6, "texts": 4}}


def crashed(document, directory, when):
    def watch(status):
        if when(status):
            raise Crash

    with pytest.raises(Crash):
        search(document, directory, inline=True, watch=watch)


@pytest.mark.slow
def test_a_trained_supernet_needs_its_workers_no_longer(supernet, tmp_path):
    whole = search(supernet, tmp_path, inline=True)
    journal = Journal.append(tmp_path)
    config = journal.get("config")
    journal.set("config", {**config, "strategy": {**config["strategy"], "workers": 2}})
    journal.close()
    assert results(resume(tmp_path, inline=True)) == results(whole)


@pytest.mark.slow
def test_a_truncated_supernet_is_trained_again(supernet, tmp_path):
    whole = search(supernet, tmp_path / "whole", inline=True)
    crashed(supernet, tmp_path / "run", lambda status: len(status.trials) == 2)
    cut(tmp_path / "run" / SUPERNET)
    with pytest.raises(RunError, match=r"supernet\.safetensors is damaged"):
        _ = load_run(tmp_path / "run").supernet
    run = resume(tmp_path / "run", inline=True)
    assert results(run) == results(whole)
    assert run.supernet.tobytes() == whole.supernet.tobytes()


@pytest.mark.parametrize("size", marked([0, 40], [40]))
@pytest.mark.slow
def test_a_truncated_checkpoint_is_left_aside(size, supernet, tmp_path):
    whole = search(supernet, tmp_path / "whole", inline=True)
    crashed(supernet, tmp_path / "run", lambda status: status.job_steps and status.steps[0] == 3)
    cut(tmp_path / "run" / CHECKPOINT, size)
    assert results(resume(tmp_path / "run", inline=True)) == results(whole)


@pytest.mark.slow
def test_truncated_pretrained_weights_are_computed_again(document, tiny_model, corpus, tmp_path):
    plugin = tmp_path / "tiny_space.py"
    plugin.write_text(PLUGIN.format(tokenizer=str(tiny_model)))
    document |= {
        "space": {"name": f"{plugin}:Tiny"},
        "strategy": {"name": "random"},
        "pretraining": {"corpus": str(corpus), "steps": 3, "batch": 4, "block": 16},
    }
    whole = search(document, tmp_path / "whole", inline=True)
    crashed(document, tmp_path / "run", lambda status: len(status.trials) == 2 and status.steps.get(2, 0) > 1)
    for file in (tmp_path / "run" / "pretrained").glob("*.safetensors"):
        cut(file)
    assert results(resume(tmp_path / "run", inline=True, allow_plugins=True)) == results(whole)


def test_truncated_weights_of_a_trial_are_named(document, tmp_path):
    run = search(document, tmp_path, inline=True)
    cut(weights_path(tmp_path, run.best.id))
    with pytest.raises(RunError, match=rf"the weights of trial {run.best.id} cannot be read: .* is damaged"):
        run.weights_of(run.best)


def test_a_file_is_written_to_disk_with_its_name_or_not_at_all(monkeypatch, tmp_path):
    synced, fsync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd)))
    file = tmp_path / "weights.safetensors"
    write_atomically(file, b"first")
    assert synced == [str(tmp_path / "weights.part"), str(tmp_path)]

    def full(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(file, b"second")
    assert file.read_bytes() == b"first" and list(tmp_path.iterdir()) == [file]

"""Domain adaptation: the model of a space reads unlabelled texts before the search."""

import signal

import pytest
import torch
import yaml
from installed import marked
from killing import results
from transformers import AutoModel

from nas_meta import load_run, resume, search
from nas_meta.core.signals import Interrupted
from nas_meta.journal.status import read_status
from nas_meta.models.state import deserialize_state
from nas_meta.outputs.rerun import rerun


@pytest.fixture
def adapting(small_config, corpus):
    section = {"of": "model", "corpus": str(corpus), "steps": 30, "batch": 4, "block": 16, "checkpoint_every": 10}
    return small_config | {"budget": {"trials": 2}, "pretraining": section}


@pytest.mark.slow
def test_the_model_of_a_space_is_adapted_before_the_search(adapting, tiny_model, tmp_path):
    run = search(adapting, tmp_path / "run", inline=True)
    before = AutoModel.from_pretrained(tiny_model).state_dict()
    after = AutoModel.from_pretrained(tmp_path / "run" / "adapted").state_dict()
    assert not torch.equal(before["encoder.layer.0.output.dense.weight"], after["encoder.layer.0.output.dense.weight"])
    # Candidates are cut from the adapted weights: with a rate that moves nothing they are its slices.
    adapting["learner"] |= {"lr": 1e-12}
    same = search(adapting, tmp_path / "same", inline=True)
    weights = deserialize_state(same.weights_of(same.best))
    table = AutoModel.from_pretrained(tmp_path / "same" / "adapted").state_dict()["embeddings.word_embeddings.weight"]
    torch.testing.assert_close(weights["model.embeddings.word_embeddings.weight"], table)
    assert not torch.equal(table, before["embeddings.word_embeddings.weight"])
    assert load_run(tmp_path / "run").config.options["space"].model == str((tmp_path / "run" / "adapted").resolve())
    assert run.config.document["seed"] == 3 and "adapted" in {p.stem for p in (tmp_path / "run" / "logs").iterdir()}
    yaml_document = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert yaml_document["space"]["model"] == str(tiny_model)
    assert rerun(load_run(tmp_path / "run"), run.trials[0])["accuracy"] == run.trials[0].metrics["accuracy"]


@pytest.mark.slow
def test_the_model_before_its_adaptation_stands_beside_the_one_after(adapting, tmp_path):
    plain = {**adapting, "budget": {"trials": 1}}
    del plain["pretraining"]
    name, before = "unsearched model, no training", "unsearched model before adaptation"
    untouched = search(plain, tmp_path / "plain", inline=True).report["references"]
    assert before not in untouched
    found = search(adapting, tmp_path / "run", inline=True).report["references"]
    assert found[before] == untouched[name] != found[name]


class Crash(Exception):
    pass


@pytest.mark.parametrize("how", marked(["crash", "interrupt"], ["interrupt"]))
@pytest.mark.slow
def test_an_adaptation_that_breaks_off_goes_on_from_its_checkpoint_bit_by_bit(how, adapting, tmp_path):
    whole = search(adapting, tmp_path / "whole", inline=True)

    def crash(status):
        if status.phase == "adapting the model" and status.steps[0] == 20:
            if how == "crash":
                raise Crash
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Crash if how == "crash" else Interrupted):
        search(adapting, tmp_path / "broken", inline=True, watch=crash)
    assert (tmp_path / "broken" / "adapted.checkpoint").is_file()
    assert not (tmp_path / "broken" / "adapted").exists()
    assert read_status(load_run(tmp_path / "broken")).phase == ("failed" if how == "crash" else "interrupted")
    steps = []
    run = resume(tmp_path / "broken", inline=True, watch=lambda s: steps.append((s.phase, s.steps[0])))
    assert {s for phase, s in steps if phase == "adapting the model"} == {0, 30}
    first, second = ((r.directory / "adapted" / "model.safetensors").read_bytes() for r in (whole, run))
    assert first == second
    assert results(run) == results(whole)
    assert not (tmp_path / "broken" / "adapted.checkpoint").exists()


@pytest.mark.slow
def test_a_supernet_is_cut_from_the_adapted_model_on_ray(adapting, tmp_path):
    adapting["strategy"] = {"name": "supernet", "steps": 4, "judged": 6, "texts": 6}
    run = search(adapting, tmp_path / "run")
    assert [t.status for t in run.trials] == ["completed"] * 2
    assert (tmp_path / "run" / "adapted" / "config.json").is_file()

"""The section ``compute``: device, precision, compilation and layers that are computed again."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from installed import EMBEDDING_LEARNERS, marked
from torch import nn
from transformers import AutoModel

from nas_meta import Architecture, search
from nas_meta.config.components import make_evaluation
from nas_meta.config.problem import load_problem
from nas_meta.config.resolved import resolve
from nas_meta.errors import ConfigError, NasMetaError, TrialError
from nas_meta.models import compute
from nas_meta.models.compute import Compute
from nas_meta.models.encoder import Encoder
from nas_meta.tasks.episodes import episode

LEARNERS = ["protonet", "matching", "ridge", "maml", "anil", "reptile", "finetune"]


def evaluation_of(document):
    resolved = resolve(document)
    space, tasks, shape = load_problem(resolved)
    return make_evaluation(resolved, space, tasks, shape, cpus=1)


def trained(evaluation, seed=0):
    """The accuracy of a trial of the first architecture that is drawn, its losses, and its weights."""
    architecture = evaluation.space.sample(np.random.default_rng(1))
    steps, losses = evaluation.trial(architecture, seed, keep_above=0.0), []
    while True:
        try:
            losses.append(next(steps).values["loss"])
        except StopIteration as end:
            return end.value.metrics["accuracy"], losses, end.value.weights


def saved_for_backward(evaluation, learner_name):
    """Bytes that a meta-training loss keeps for its backward pass, weights aside."""
    encoder = evaluation.encoder(evaluation.space.build(evaluation.space.sample(np.random.default_rng(1))))
    encoder.train()
    pool, own = evaluation.tasks["meta-train"], {p.untyped_storage().data_ptr() for p in encoder.parameters()}
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = evaluation.learner.meta_loss(encoder, pool, episode(pool, evaluation.shape, 0, 0))
    loss.backward()
    return sum(t.untyped_storage().nbytes() for pointer, t in kept.items() if pointer not in own)


@pytest.mark.parametrize("learner", marked(LEARNERS, ["protonet", "maml"]))
def test_layers_that_are_computed_again_train_to_the_same_weights(learner, small_config):
    small_config["learner"] = {"name": learner, "steps": 3}
    plain = evaluation_of(small_config)
    again = replace(plain, compute=replace(plain.compute, gradient_checkpointing=True))
    accuracy, losses, weights = trained(plain)
    accuracy_again, losses_again, weights_again = trained(again)
    assert losses_again == pytest.approx(losses, abs=1e-6) and accuracy_again == accuracy
    states = [torch.from_numpy(np.frombuffer(w[-4096:].tobytes(), np.float32).copy()) for w in (weights, weights_again)]
    torch.testing.assert_close(*states, atol=1e-5, rtol=1e-4)


def test_layers_that_are_computed_again_keep_less(small_config):
    plain = evaluation_of(small_config)
    again = replace(plain, compute=replace(plain.compute, gradient_checkpointing=True))
    assert saved_for_backward(again, "protonet") < 0.5 * saved_for_backward(plain, "protonet")


@pytest.mark.parametrize("strategy", ["darts", "supernet"])
@pytest.mark.slow
def test_a_supernet_with_layers_computed_again_finds_the_same(strategy, small_config, tmp_path):
    if strategy == "darts":
        small = {"layers": 2, "heads": [2], "kernels": [3], "gated": [], "ffn": [1.0]}
        small_config["space"] = {"name": "cell-encoder", "model": small_config["space"]["model"], **small}
        small_config["strategy"] = {"name": "darts", "steps": 6, "order": 2}
    else:
        small_config["strategy"] = {"name": "supernet", "steps": 6, "judged": 6, "texts": 6}
    small_config["learner"]["training"] = {"dropout": 0.0}
    small_config["budget"] = {"trials": 1}
    runs = [
        search(small_config | {"compute": {"gradient_checkpointing": again}}, tmp_path / str(again), inline=True)
        for again in (False, True)
    ]
    first, second = ([t.architecture for t in run.trials] for run in runs)
    assert first == second
    if strategy == "darts":
        told = [[p for row in run.findings["probabilities"].values() for p in row] for run in runs]
        assert told[1] == pytest.approx(told[0], abs=1e-6) and np.ptp(told[0]) > 0


class Flat(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(9, 4)

    def forward(self, input_ids, attention_mask):
        return self.table(input_ids)


def test_a_model_without_such_layers_is_refused_in_words():
    with pytest.raises(TrialError, match="Flat has no layer that can be recomputed"):
        Encoder(Flat(), compute=Compute(gradient_checkpointing=True))


@pytest.mark.parametrize("learner", marked(EMBEDDING_LEARNERS, ["protonet", "maml", "mann"]))
def test_in_bf16_products_are_narrow_and_what_is_learned_is_not(learner, small_config):
    small_config["learner"] = {"name": learner, "steps": 2}
    evaluation = evaluation_of(small_config | {"compute": {"precision": "bf16"}})
    accuracy, losses, weights = trained(evaluation)
    assert np.isfinite(losses).all() and 0 <= accuracy <= 1
    restored = evaluation.restored(evaluation.space.sample(np.random.default_rng(1)), weights.tobytes())
    assert {p.dtype for p in restored.parameters()} == {torch.float32}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_bf16_embeddings_are_near_those_of_fp32_and_packed_as_they_are(attention, tiny_model, small_config):
    pool = evaluation_of(small_config).tasks["meta-train"]
    model = AutoModel.from_pretrained(tiny_model, attn_implementation=attention).eval()
    seen = []
    model.encoder.layer[0].intermediate.dense.register_forward_hook(lambda *arguments: seen.append(arguments[-1].dtype))
    wide, narrow = Encoder(model).eval(), Encoder(model, compute=Compute(precision="bf16")).eval()
    assert narrow.packs_from == 0
    indices = np.arange(30)
    with torch.no_grad():
        exact, packed = wide.embed(pool, indices), narrow.embed(pool, indices)
        narrow.one_text_a_row = True
        alone = narrow.embed(pool, indices)
    assert packed.dtype == alone.dtype == torch.float32 and torch.bfloat16 in seen
    assert not torch.equal(packed, exact)
    for found in (packed, alone):
        assert torch.nn.functional.cosine_similarity(found, exact).min() > 0.999


@pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="torch.compile needs a C++ compiler")
@pytest.mark.slow  # the compiler takes half a minute
@pytest.mark.parametrize("learner", ["protonet", "maml"])
def test_a_compiled_trial_gives_the_same_numbers(learner, small_config):
    small_config["learner"] = {"name": learner, "steps": 2, "training": {"dropout": 0.0}}
    small_config["evaluation"] |= {"interim_every": 0}
    plain = evaluation_of(small_config)
    accuracy, losses, _ = trained(plain)
    calls = []
    original = compute.compile_model

    def counted(model):
        run = original(model)
        return lambda **inputs: (calls.append(1), run(**inputs))[1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nas_meta.models.encoder.compile_model", counted)
        accuracy_then, losses_then, _ = trained(replace(plain, compute=replace(plain.compute, compile=True)))
    assert calls and losses_then == pytest.approx(losses, abs=1e-4)
    assert accuracy_then == pytest.approx(accuracy, abs=0.05)


def test_what_is_not_there_is_refused_in_words(small_config, tmp_path, monkeypatch):
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match=r"compute\.device is cuda, but torch finds no GPU;"):
            search(small_config | {"compute": {"device": "cuda"}}, tmp_path / "run", inline=True)
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(ConfigError, match=r"compute\.compile needs a C\+\+ compiler"):
        Compute(compile=True).check()
    with pytest.raises(NasMetaError, match=r"compute\.precision is 'fp16'; expected 'auto', 'fp32' or 'bf16'"):
        resolve(small_config | {"compute": {"precision": "fp16"}})


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_search_on_a_gpu(precision, small_config, tmp_path):
    small_config |= {"compute": {"device": "cuda", "precision": precision}}
    run = search(small_config, tmp_path / "run", inline=True)
    assert [t.status for t in run.trials] == ["completed"] * 6 and run.best.metrics["peak_memory"] > 0
    assert Architecture(run.best.architecture).id == run.best.architecture_id


def test_the_device_follows_the_resources_unless_it_is_named(small_config, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve(small_config).sections.device == "cpu"
    small_config["resources"] = {"gpus_per_trial": 0.5}
    assert resolve(small_config).sections.device == "cuda"
    assert resolve(small_config | {"compute": {"device": "cpu"}}).sections.device == "cpu"

"""What ``learner.training`` does, against numbers by hand."""

import json
import math

import pytest
import torch

from nas_meta.cli.plugin_description import describe
from nas_meta.config.resolved import read_config
from nas_meta.errors import ConfigError
from nas_meta.learners.protonet import ProtoNet, ProtoNetOptions
from nas_meta.learners.training.options import TrainingOptions, rate_factor, set_dropout
from nas_meta.learners.training.patience import EarlyStopping
from nas_meta.models.encoder import Encoder
from nas_meta.tasks.episodes import EpisodeShape, episode

SHAPE = EpisodeShape(3, 1, 3)


@pytest.fixture
def encoder(tiny_model):
    from transformers import AutoModel

    return Encoder(AutoModel.from_pretrained(tiny_model))


def test_the_learning_rate_rises_and_falls_as_the_formulas_say():
    rates = lambda **options: [rate_factor(TrainingOptions(**options), step, 10) for step in range(10)]  # noqa: E731
    assert rates() == [1.0] * 10
    assert rates(warmup=0.2)[:3] == [0.5, 1.0, 1.0]
    assert rates(warmup=0.2, decay="linear")[2:] == pytest.approx([1 - i / 8 for i in range(8)])
    assert rates(decay="cosine") == pytest.approx([(1 + math.cos(math.pi * i / 10)) / 2 for i in range(10)])


def test_meta_training_uses_the_schedule(encoder, pool):
    """Warm-up over half of two steps: AdamW's first step moves a weight by at most its rate."""
    before = {n: p.detach().clone() for n, p in encoder.named_parameters()}
    options = {"lr": 1e-3, "steps": 10}
    slow = ProtoNetOptions(**options, training=TrainingOptions(warmup=0.9, weight_decay=0))
    next(iter(ProtoNet(slow).meta_train(encoder, pool, lambda i: episode(pool, SHAPE, 0, i))))
    moved = max((p - before[n]).abs().max().item() for n, p in encoder.named_parameters())
    assert moved == pytest.approx(1e-3 / 9, rel=0.01)


def test_dropout_zero_makes_training_and_evaluation_one(encoder):
    ids, mask = torch.tensor([[6, 7, 8]]), torch.ones(1, 3, dtype=torch.long)
    with torch.no_grad():
        encoder.train()
        assert not torch.allclose(encoder(ids, mask), encoder(ids, mask))
        set_dropout(encoder.model, TrainingOptions(dropout=0.0))
        trained = encoder(ids, mask)
        encoder.eval()
        torch.testing.assert_close(trained, encoder(ids, mask))


def test_early_stopping_goes_back_to_the_best(encoder):
    best = EarlyStopping(patience=2)
    weight = encoder.model.encoder.layer[0].output.dense.bias
    seen = []
    for value, accuracy in ((1.0, 0.5), (2.0, 0.7), (3.0, 0.6), (4.0, 0.7)):
        weight.data.fill_(value)
        best.see(accuracy, encoder)
        seen.append(best.over)
    assert seen == [False, False, False, True]
    best.restore(encoder)
    assert (weight == 2.0).all()
    never = EarlyStopping(patience=0)
    never.see(0.1, encoder)
    never.restore(encoder)
    assert not never.over and (weight == 2.0).all()


def test_a_trial_ends_early_and_scores_its_best_weights(small_config, tmp_path):
    """With a rate that ruins the model, training stops after the patience instead of after 200 steps."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from nas_meta import search

    small_config["learner"] = {"steps": 200, "lr": 0.05, "training": {"patience": 2}}
    small_config["evaluation"] |= {"interim_every": 2, "interim_episodes": 20}
    small_config["budget"]["trials"] = 1
    run = search(small_config, tmp_path / "run", inline=True)
    folder = next((run.directory / "tensorboard").glob("trial-*"))
    events = EventAccumulator(str(folder)).Reload()
    steps = [e.step for e in events.Scalars("meta-train/loss")]
    looks = [e.value for e in events.Scalars("meta-validation/accuracy")][:-1]
    assert len(steps) < 200
    assert run.best.metrics["accuracy"] == pytest.approx(max(looks), abs=0.05)


def test_patience_without_interim_validation_is_refused(small_config, tmp_path):
    from nas_meta import search

    small_config["learner"]["training"] = {"patience": 2}
    small_config["evaluation"]["interim_every"] = 0
    with pytest.raises(ConfigError, match=r"evaluation\.interim_every is 0"):
        search(small_config, tmp_path / "run", inline=True)


def test_nested_options_are_checked_overridden_and_described(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("learner:\n  training:\n    clap: 1\n")
    with pytest.raises(ConfigError, match=r"c.yaml:3: 'learner.training.clap' is not a known key; did you mean 'clip'"):
        read_config(file)
    file.write_text("seed: 1\n")
    resolved = read_config(file, ["learner.training.decay=cosine"])
    assert resolved.options["learner"].training.decay == "cosine"
    described = {o["name"]: o["default"] for o in json.loads(json.dumps(describe("learners", "protonet")))["options"]}
    assert described["training.clip"] == 1.0

"""Meta-training that another process resumes from the state of a step."""

import pytest
import torch
from installed import marked

from nas_meta.core import plugins
from nas_meta.learners.training.options import TrainingOptions
from nas_meta.models.state import restore_training, serialize_training
from nas_meta.tasks.episodes import EpisodeShape, episode

SHAPE = EpisodeShape(3, 2, 3)


@pytest.fixture
def make(encoder_for):
    return lambda learner: encoder_for(learner, SHAPE.ways)


NAMES = ["finetune", "mann", "reptile", "protonet", "matching", "ridge", "anil"]


@pytest.mark.parametrize("name", marked(NAMES, ["mann", "protonet", "anil"]))
def test_meta_training_resumes_from_the_state_of_a_step(name, make, pool):
    """Two steps, a checkpoint, a new encoder and the other two steps give the weights of four uninterrupted steps."""
    plugin = plugins.load("learners", name)
    training = TrainingOptions(warmup=0.3, decay="linear")
    learner = plugin(plugin.Options(steps=4, lr=1e-3, training=training))
    draw = lambda i: episode(pool, SHAPE, 0, i)  # noqa: E731
    whole, interrupted, resumed = (make(learner) for _ in range(3))
    torch.manual_seed(1)
    expected = [step.loss for step in learner.meta_train(whole, pool, draw)]

    torch.manual_seed(1)
    steps = learner.meta_train(interrupted, pool, draw)
    losses = [next(steps).loss]
    last = next(steps)
    checkpoint = serialize_training(interrupted, learner=last.state())
    steps.close()
    torch.manual_seed(2)
    start = restore_training(checkpoint, resumed)["learner"]
    rest = list(learner.meta_train(resumed, pool, draw, start))
    assert [step.number for step in rest] == [3, 4]
    assert [*losses, last.loss, *(step.loss for step in rest)] == pytest.approx(expected, rel=1e-5)
    for (key, one), two in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        torch.testing.assert_close(two, one, atol=1e-6, rtol=1e-5, msg=key)


def test_a_one_shot_strategy_trains_its_supernet_with_a_memory_network(small_config, tmp_path):
    """One-shot strategies pass the state to resume from to every metric learner, even when there is none."""
    from nas_meta import search

    small_config["space"] = {
        "name": "cell-encoder", "model": small_config["space"]["model"], "layers": 1,
        "heads": [2], "kernels": [3], "gated": [1.0], "ffn": [1.0],
    }  # fmt: skip
    small_config["learner"] = {"name": "mann", "steps": 1, "slots": 8, "hidden": 16}
    small_config["strategy"] = {"name": "darts", "steps": 2}
    small_config["evaluation"] = {"compare": False, "episodes": 4, "test_episodes": 4}
    small_config["budget"] = {"trials": 1}
    run = search(small_config, tmp_path / "run", inline=True)
    assert [trial.status for trial in run.trials] == ["completed"]

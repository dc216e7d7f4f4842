"""Calibration: temperatures and thresholds that hold on tasks they were not fitted to."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from nas_meta.evaluation import calibrate as fitting
from nas_meta.evaluation import calibration as c
from nas_meta.evaluation.open_set import embedded, open_set_metrics, open_tasks, scores_of
from nas_meta.evaluation.progress import EvaluationSettings
from nas_meta.learners.open_set import Units
from nas_meta.learners.protonet import ProtoNet
from nas_meta.tasks.episodes import EpisodeShape
from nas_meta.tasks.pool import Pool


class Encoder:
    """Embeds example i as the i-th row of a table: classes are noisy directions."""

    learned = SimpleNamespace()

    def __init__(self, pool, seed):
        generator = torch.Generator().manual_seed(seed)
        centres = torch.randn(len(pool.classes), 16, generator=generator)
        self.tables = {id(pool): centres[torch.from_numpy(pool.labels)] + torch.randn(
            len(pool.labels), 16, generator=generator)}  # fmt: skip

    def eval(self):
        return self

    def embed(self, pool, indices, rows):
        return self.tables[id(pool)][torch.from_numpy(indices)]

    embed_once = embed


@pytest.fixture(scope="module")
def problem():
    pools = {}
    for split in ("meta-validation", "meta-test"):
        pools[split] = Pool([str(i) for i in range(12)], ["x"] * 240, np.repeat(np.arange(12), 20))
    encoder = Encoder(pools["meta-validation"], 0)
    encoder.tables |= Encoder(pools["meta-test"], 1).tables
    shape = EpisodeShape(ways=4, shots=5, queries=5)
    return SimpleNamespace(tasks=pools, shape=shape, settings=EvaluationSettings()), encoder


def test_a_calibration_holds_on_another_split_and_is_read_again(problem):
    evaluation, encoder = problem
    learner = ProtoNet(ProtoNet.Options(scale=1.0))  # probabilities that are too even
    found = fitting.calibrate(evaluation, encoder, learner)
    assert found.measured["ece_after"] < 0.5 * found.measured["ece_before"]
    assert found.measured["oos_auroc"] > 0.8 and 0.02 < found.measured["refused"] < 0.09
    assert c.from_json(found.as_json("a"), "a") == found and c.from_json(found.as_json("a"), "b") is None
    for damaged in ("[]", "{}", found.as_json("a").replace('"temperatures"', '"t"')):
        with pytest.raises(ValueError):
            c.from_json(damaged, "a")


def test_classes_of_a_name_alone_have_thresholds_of_their_own(problem):
    plain, encoder = problem
    pools = {}
    for split, pool in plain.tasks.items():  # the last example of every class is its name
        pools[split] = replace(pool, name_rows=np.arange(19, 240, 20))
        encoder.tables[id(pools[split])] = encoder.tables[id(pool)]
    named = SimpleNamespace(**{**vars(plain), "tasks": pools})
    found, learner = fitting.calibrate(named, encoder, ProtoNet()), ProtoNet()
    assert sorted(found.quantiles) == [1, 2, 3, 6, 11]
    refused, tasks = [], open_tasks(embedded(named, encoder, "meta-test"), EpisodeShape(4, 1, 5), 0)
    split = embedded(named, encoder, "meta-test")
    for task in tasks:
        units, inside, _ = scores_of(split, replace(task, support=task.support[:, -1:]))
        assert not units.left_out
        refused.append((inside < found.threshold(units, 1, 0.05)).mean())
    assert 0.01 < np.mean(refused) < 0.12
    assert sorted(fitting.calibrate(plain, encoder, learner).quantiles) == [1, 2, 5, 10]


def test_the_measured_numbers_are_those_of_the_open_set_episodes(problem):
    evaluation, encoder = problem
    split = embedded(evaluation, encoder, "meta-test")
    tasks = open_tasks(split, evaluation.shape, seed=0, count=30)
    assert all(len(task.outside) == 4 for task in tasks)
    metrics = open_set_metrics(split, tasks)
    wins = [(inside[:, None] > outside[None]).mean() for _, inside, outside in (scores_of(split, t) for t in tasks)]
    assert metrics["oos_auroc"] == pytest.approx(np.mean(wins)) and metrics["oos_auroc_ci95"] > 0


def test_the_best_temperature_undoes_a_factor():
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(4000, 5, dtype=torch.double, generator=generator)
    targets = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    assert fitting.best_temperature(7 * logits, targets) == pytest.approx(7, rel=0.08)
    assert fitting.calibration_error(logits, targets) < 0.03 < fitting.calibration_error(7 * logits, targets)


def test_a_split_without_other_classes_gives_no_calibration(problem):
    evaluation, encoder = problem
    wide = SimpleNamespace(**{**vars(evaluation), "shape": EpisodeShape(12, 5, 5)})
    assert fitting.calibrate(wide, encoder, ProtoNet()) is None


def test_thresholds_rise_with_the_share_and_move_with_the_task():
    found = c.Calibration({1: [0.1 * i for i in range(len(c.LEVELS))], 5: list(range(len(c.LEVELS)))}, {5: 1.0})
    several, single = Units(np.array([0.4, 0.6]), 0.5, 0.1), Units(np.array([]), 0.2, 0.8)
    assert found.threshold(several, 5, 0.05) == pytest.approx(0.5 + 0.1 * c.LEVELS.index(0.05))
    assert found.threshold(several, 5, 0.1) > found.threshold(several, 5, 0.05)
    assert found.threshold(single, 1, 0.05) == pytest.approx(0.2 + 0.8 * 0.1 * c.LEVELS.index(0.05))

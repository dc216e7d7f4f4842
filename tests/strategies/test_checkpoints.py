"""A supernet whose training is killed goes on from its checkpoint, to the very same end."""

import json
import pickle

import numpy as np
import pytest
import torch

import nas_meta
from benchmarks.planted_optimum import Planted, evaluation_of
from nas_meta import Objective, SearchContext
from nas_meta.config.components import make_evaluation
from nas_meta.config.problem import load_problem
from nas_meta.config.resolved import resolve
from nas_meta.journal.run import CHECKPOINT, SUPERNET
from strategies.one_shot.darts import DARTS, GumbelDARTS
from strategies.one_shot.enas import ENAS
from strategies.one_shot.proxyless import ProxylessNAS
from strategies.one_shot.spos import SPOS


def run_job(evaluation, job, checkpoint=None):
    """What a job says of its steps, its checkpoints by step, and its result."""
    said, kept = {}, {}
    steps = evaluation.run(pickle.loads(pickle.dumps(job)), checkpoint)
    while True:
        try:
            progress = next(steps)
        except StopIteration as end:
            return said, kept, end.value
        said[progress.step] = dict(progress.values)
        if progress.checkpoint is not None:
            kept[progress.step] = progress.checkpoint


def check_goes_on(evaluation, job, at):
    """The job from its checkpoint after step ``at`` does what it did when it was not interrupted."""
    said, kept, whole = run_job(evaluation, job)
    torch.manual_seed(99)  # another process has other random numbers
    np.random.seed(99)
    said_then, _, end = run_job(evaluation, job, kept[at])
    assert min(said_then) == at + 1 and max(said_then) == max(said)
    assert said_then == {step: values for step, values in said.items() if step > at}
    assert json.dumps(end.findings) == json.dumps(whole.findings)
    assert end.weights.tobytes() == whole.weights.tobytes()


@pytest.mark.parametrize(
    ("strategy", "options"),
    [
        (DARTS, {"arch_lr": 0.05}),
        (DARTS, {"arch_lr": 0.05, "order": 2}),
        (GumbelDARTS, {"arch_lr": 0.05}),
        (ProxylessNAS, {"arch_lr": 0.05, "warmup": 0}),
        (SPOS, {"generations": 2, "population": 4, "search_episodes": 2}),
        pytest.param(
            ENAS,
            {"update_every": 3, "warmup": 0, "reward_episodes": 1, "candidates": 3, "search_episodes": 2},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_one_shot(strategy, options):
    space = Planted(0)
    context = SearchContext(space, [Objective("accuracy")], trials=2, workers=1, seed=3)
    options = strategy.Options(steps=9, checkpoint_every=3, **options)
    check_goes_on(evaluation_of(space, 3), strategy(context, options).job(), at=6)


@pytest.mark.parametrize("method", ["reptile", "fomaml"])
def test_metanas(method, small_config):
    cells = {"layers": 1, "heads": [2], "kernels": [3], "gated": [1.0], "ffn": [1.0]}
    small_config["space"] = {"name": "cell-encoder", "model": small_config["space"]["model"], **cells}
    strategy = {"steps": 4, "checkpoint_every": 2, "judged": 2, "inner_steps": 2, "adapt_steps": 2, "method": method}
    small_config["strategy"] = {"name": "metanas", **strategy}
    check_goes_on(*job_of(small_config), at=2)


def test_supernet(small_config):
    small_config["strategy"] = {"name": "supernet", "steps": 4, "checkpoint_every": 2, "judged": 6, "texts": 4}
    check_goes_on(*job_of(small_config), at=2)
    check_goes_on(*job_of(small_config), at=4)  # killed while it judged


def job_of(document):
    resolved = resolve(document)
    space, tasks, shape = load_problem(resolved)
    strategy = resolved.plugin("strategy")
    context = SearchContext(space, resolved.sections.optimised, trials=2, workers=1, seed=3)
    return make_evaluation(resolved, space, tasks, shape, 1), strategy(context, resolved.options["strategy"]).job()


@pytest.mark.slow
def test_a_search_goes_on_from_the_checkpoint(small_config, tmp_path):
    small_config["strategy"] = {"name": "supernet", "steps": 4, "checkpoint_every": 2, "judged": 6, "texts": 4}
    small_config["budget"] = {"trials": 2}
    whole = nas_meta.search(small_config, tmp_path / "whole", inline=True)

    def interrupt(status):
        if status.phase == "training the supernet" and status.steps[0] == 3:
            raise KeyError("interrupted")

    with pytest.raises(KeyError):
        nas_meta.search(small_config, tmp_path / "run", inline=True, watch=interrupt)
    assert (tmp_path / "run" / CHECKPOINT).exists() and not (tmp_path / "run" / SUPERNET).exists()
    steps = []

    def watch(status):
        if status.phase == "training the supernet":
            steps.append(status.steps[0])

    run = nas_meta.resume(tmp_path / "run", inline=True, watch=watch)
    assert 3 in steps and 1 not in steps and 2 not in steps
    assert [t.metrics["accuracy"] for t in run.trials] == [t.metrics["accuracy"] for t in whole.trials]
    assert (tmp_path / "run" / SUPERNET).read_bytes() == (tmp_path / "whole" / SUPERNET).read_bytes()
    assert not (tmp_path / "run" / CHECKPOINT).exists()
    # Once more: the supernet is not trained a second time.
    more = nas_meta.resume(tmp_path / "run", ["budget.trials=2"], inline=True)
    assert [t.finished for t in more.trials] == [t.finished for t in run.trials]

"""Zero-cost scores against closed forms; ranking by them; and a prefilter that resumes exactly."""

import json
import logging
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from installed import EMBEDDING_LEARNERS, marked, strategy_names
from landscapes import Landscape, context, run, score
from torch import nn
from typer.testing import CliRunner

from nas_meta import Architecture, SearchContext, load_run, search
from nas_meta.cli.main import app
from nas_meta.core import plugins
from nas_meta.errors import ConfigError, RunError
from nas_meta.evaluation.proxies import PROXIES, load_proxy
from nas_meta.evaluation.proxies.base import ProxyInputs
from nas_meta.evaluation.proxies.scoring import (
    CLASS_QUERIES,
    CLASSES,
    EPISODES,
    episodes_of_few_examples,
    proxy_scores,
)
from nas_meta.learners.anil import ANIL, ANILOptions
from nas_meta.learners.metric import MetricLearner
from nas_meta.models.encoder import Encoder
from nas_meta.outputs.proxy_ranking import agreement, load_evaluation, parse_proxies
from nas_meta.strategy.prefilter import FILE, Prefilter, ProxyScores, read_scores
from nas_meta.tasks.episodes import EpisodeShape
from nas_meta.tasks.pool import Pool

PREFILTERED = marked(strategy_names(lambda strategy: strategy.withdraws), ["random", "evolution", "tpe", "nsga2"])


class Chain(nn.Module):
    """Embeddings of width 3, then linear layers without biases."""

    def __init__(self, *weights):
        super().__init__()
        self.table = nn.Embedding(10, 3)
        self.layers = nn.ModuleList(nn.Linear(len(w[0]), len(w), bias=False) for w in weights)
        for layer, weight in zip(self.layers, weights, strict=True):
            layer.weight = nn.Parameter(torch.tensor(weight, dtype=torch.float))

    def forward(self, input_ids, attention_mask):
        states = self.table(input_ids)
        for layer in self.layers:
            states = layer(states)
        return states


class Normed(nn.Module):
    """A linear layer behind a normalisation."""

    def __init__(self):
        super().__init__()
        self.table, self.norm, self.layer = nn.Embedding(10, 2), nn.LayerNorm(2), nn.Linear(2, 1, bias=False)
        self.norm.weight = nn.Parameter(torch.tensor([2.0, -5.0]))
        self.layer.weight = nn.Parameter(torch.tensor([[3.0, 1.0]]))

    def forward(self, input_ids, attention_mask):
        return self.layer(self.norm(self.table(input_ids)))


@pytest.fixture
def evaluation(small_config):
    from nas_meta.config.resolved import resolve

    return load_evaluation(resolve(small_config))


@pytest.fixture
def sample(evaluation):
    from nas_meta.tasks.episodes import episode

    pool = evaluation.tasks["meta-train"]
    return ProxyInputs(pool, [episode(pool, evaluation.shape, 0, i) for i in range(3)], evaluation.learner)


def test_synflow_of_linear_layers_is_their_number_times_the_flow():
    """Σ θ ∂R/∂θ is R for every layer (Tanaka et al. 2020, theorem 1), and R is 1ᵀ |W₂| |W₁| 1."""
    first, second = [[1.0, -2.0, 3.0], [0.5, 0.0, -1.0]], [[2.0, -4.0]]
    flow = 2 * (1 + 2 + 3) + 4 * (0.5 + 1)
    model = Chain(first, second)
    before = [p.detach().clone() for p in model.parameters()]
    assert load_proxy("synflow")(Encoder(model), None) == pytest.approx(math.log10(2 * flow))
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert load_proxy("synflow")(Encoder(Chain(np.zeros((1, 3)).tolist())), None) == -400


def test_a_normalisation_only_scales_the_flow():
    # Of the layer 2·3 + 5·1, of the norm's weights the same; its bias is zero, its input ones, of size one.
    assert load_proxy("synflow")(Encoder(Normed()), None) == pytest.approx(math.log10(2 * 11))


def test_the_number_of_parameters_is_the_models(evaluation):
    architecture = evaluation.space.sample(np.random.default_rng(0))
    expected = sum(p.numel() for p in evaluation.space.build(architecture).parameters())
    assert proxy_scores(evaluation, architecture, ["parameters"], 0) == {"parameters": expected}


def test_untrained_is_the_accuracy_of_a_learner_that_compares_embeddings(evaluation, sample):
    encoder = Encoder(evaluation.space.build(evaluation.space.sample(np.random.default_rng(0)))).eval()
    right = [
        (evaluation.learner.classify(encoder, sample.pool, t).argmax(1).numpy() == t.labels).mean()
        for t in sample.tasks
    ]
    assert load_proxy("untrained")(encoder, sample) == pytest.approx(np.mean(right))


def test_untrained_is_the_loss_of_a_learner_with_an_inner_loop(evaluation, sample):
    learner = ANIL(ANILOptions())
    model = evaluation.space.build(evaluation.space.sample(np.random.default_rng(0)))
    encoder = replace(evaluation, learner=learner).encoder(model).eval()
    losses = []
    for task in sample.tasks:
        logits = learner.classify(encoder, sample.pool, task).detach()
        losses.append(nn.functional.cross_entropy(logits, torch.from_numpy(task.labels)).item())
    assert load_proxy("untrained")(encoder, replace(sample, learner=learner)) == pytest.approx(-np.mean(losses))


@pytest.mark.parametrize("learner", marked(EMBEDDING_LEARNERS, ["protonet", "anil"]))
def test_models_are_scored_whatever_the_learner(learner, small_config):
    from nas_meta.config.resolved import resolve

    evaluation = load_evaluation(resolve(small_config | {"learner": {"name": learner}}))
    found = proxy_scores(evaluation, evaluation.space.sample(np.random.default_rng(0)), ["untrained"], 0)
    assert (0 < found["untrained"] <= 1) == isinstance(evaluation.learner, MetricLearner)


@given(
    sizes=st.lists(st.integers(3, 9), min_size=4, max_size=60), groups=st.sampled_from([1, 2]),
    named=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_many_episodes_share_few_examples(sizes, groups, named, seed):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    names = None
    if named:
        names = len(labels) + np.arange(len(sizes))
        labels = np.concatenate([labels, np.arange(len(sizes))])
    classes = [f"c{i}" for i in range(len(sizes))]
    of = [str(i % groups) for i in range(len(sizes))] if groups > 1 else ()
    pool, shape = Pool(classes, [""] * len(labels), labels, groups=of, name_rows=names), EpisodeShape(2, 1, 2)
    tasks = episodes_of_few_examples(pool, shape, seed)
    assert len(tasks) == EPISODES
    used = np.unique(np.concatenate([t.indices for t in tasks]))
    assert len(np.unique(labels[used])) <= CLASSES + shape.ways
    for task in tasks:
        of_support, of_query = labels[task.support], labels[task.query]
        assert (of_support == of_support[:, :1]).all() and (of_query == of_support[:, :1]).all()
        assert len(set(of_support[:, 0])) == 2 and not set(task.support.ravel()) & set(task.query.ravel())
        assert task.support.shape == (2, 1 + named) and 2 <= task.query.shape[1] <= CLASS_QUERIES
        assert not named or (task.support[:, -1] == names[of_support[:, 0]]).all()
        assert groups == 1 or len({of[c] for c in of_support[:, 0]}) == 1


@pytest.mark.parametrize("name", PROXIES)
def test_a_score_follows_from_the_seed_and_leaves_random_numbers_alone(name, evaluation):
    architecture = evaluation.space.sample(np.random.default_rng(1))
    state = torch.random.get_rng_state()
    one, two = (proxy_scores(evaluation, architecture, [name], 3)[name] for _ in range(2))
    assert one == two
    assert torch.equal(torch.random.get_rng_state(), state)


def test_kendalls_tau_and_its_interval():
    found = agreement([1, 2, 3, 4], [1, 2, 4, 3])
    assert found.tau == pytest.approx(4 / 6)  # five pairs agree, one does not
    rng = np.random.default_rng(0)
    a = rng.normal(size=60)
    alike, unlike = agreement(a, a + 0.1 * rng.normal(size=60)), agreement(a, rng.normal(size=60))
    assert 0.7 < alike.low < alike.tau < alike.high <= 1
    assert unlike.low < 0 < unlike.high
    assert agreement([1, 1, 1], [1, 2, 3]).tau == 0


def total(architecture):
    return float(sum(architecture.values.values()))


@pytest.mark.parametrize("name", PREFILTERED)
def test_the_best_of_so_many_proposals_is_tried(name):
    """Best of 8 by a score lies far above the mean of what is proposed; nothing is tried twice."""
    gains = []
    for seed in (1, 2, 3):
        plain, inside = (plugins.load("strategies", name)(context(trials=24, seed=seed)) for _ in range(2))
        proposed = run(plain, 24, lambda a: 0.0, in_flight=2)
        chosen = run(Prefilter(inside, total, 8), 24, lambda a: 0.0, in_flight=2)
        assert len({a.id for a, _ in chosen}) == 24
        gains.append(np.mean([total(a) for a, _ in chosen]) - np.mean([total(a) for a, _ in proposed]))
    assert np.mean(gains) > 2  # of a standard deviation of about 4; the proposals of surrogate differ least


@pytest.mark.parametrize("name", PREFILTERED)
def test_a_prefiltered_strategy_follows_from_its_seed(name):
    def proposals(seed):
        inside = plugins.load("strategies", name)(context(trials=20, seed=seed))
        return [a.id for a, _ in run(Prefilter(inside, total, 4), 20, score, in_flight=3)]

    assert proposals(1) == proposals(1) != proposals(2)


def test_evolution_learns_nothing_of_what_it_took_back():
    """Its parents are architectures that were tried: each child differs from one of these in few choices."""
    inside = plugins.load("strategies", "evolution")(context(trials=40))
    done = [a for a, _ in run(Prefilter(inside, total, 4), 40, score)]
    for i, child in enumerate(done[20:], start=20):
        assert min(sum(child[n] != parent[n] for n in child.values) for parent in done[:i]) <= 5


def test_nothing_is_warned_of_for_what_evolution_took_back():
    rows, logger = [], logging.getLogger("nni.nas.strategy.evolution")
    handler = logging.Handler(logging.WARNING)
    handler.emit = rows.append
    logger.addHandler(handler)
    run(Prefilter(plugins.load("strategies", "evolution")(context(trials=8)), total, 4), 8, score)
    logger.removeHandler(handler)
    assert not rows


def test_what_a_strategy_took_back_may_be_proposed_again():
    class Few(Landscape):
        def choices(self):
            return {"a": [0, 1, 2], "b": [0, 1, 2]}

    for name in ("evolution", "tpe"):
        inside = plugins.load("strategies", name)(SearchContext(Few(), context().objectives, 7, 1, 0))
        assert len({a.id for a, _ in run(Prefilter(inside, total, 4), 7, total)}) == 7, name


@pytest.mark.parametrize("strategy", marked(["grid", "rl", "supernet"], ["grid"]))
def test_a_strategy_that_takes_nothing_back_is_refused(strategy, small_config, tmp_path):
    small_config["strategy"] = {"name": strategy, "prefilter": {"score": "parameters"}}
    with pytest.raises(ConfigError, match=rf"can withdraw proposals, but '{strategy}' cannot; expected one of auto"):
        search(small_config, tmp_path / "run", inline=True)


def test_an_unknown_score_is_a_sentence(small_config, tmp_path):
    small_config["strategy"] = {"name": "random", "prefilter": {"score": "untraind"}}
    with pytest.raises(
        ConfigError, match=r"strategy.prefilter.score.*'untraind' is not a zero-cost proxy; did you mean 'untrained'"
    ):
        search(small_config, tmp_path / "run", inline=True)
    with pytest.raises(ConfigError, match="--scores: 'x' is not a zero-cost proxy"):
        parse_proxies("x")


@pytest.mark.slow
def test_a_prefiltered_search_goes_on_as_if_nothing_had_happened(small_config, tmp_path):
    small_config |= {"strategy": {"name": "evolution", "prefilter": {"score": "untrained", "of": 3}}}
    whole = search(small_config, tmp_path / "whole", inline=True)
    half = search(small_config | {"budget": {"trials": 3}}, tmp_path / "half", inline=True)
    before = [t.architecture_id for t in half.trials]
    kept = read_scores(half.directory / FILE, "untrained")
    assert set(kept) >= set(before)
    from nas_meta import resume

    again = resume(half.directory, ["budget.trials=6"], inline=True)
    assert [t.architecture_id for t in again.trials][:3] == before
    assert len(again.trials) == len(whole.trials) == 6
    assert {t.status for t in again.trials} == {"completed"}


def test_scores_are_kept_and_half_a_line_is_left_out(evaluation, tmp_path):
    asked = []

    def make():
        asked.append(1)
        return evaluation

    architecture = evaluation.space.sample(np.random.default_rng(0))
    file = tmp_path / FILE
    value = ProxyScores("parameters", make, 0, file)(architecture)
    assert value == proxy_scores(evaluation, architecture, ["parameters"], 0)["parameters"]
    with open(file, "a") as stream:
        stream.write('{"architecture": "abc", "param')
    assert ProxyScores("parameters", make, 0, file)(architecture) == value
    assert len(asked) == 1
    assert json.loads(file.read_text())["architecture"] == architecture.id
    unbuildable = Architecture({"layer0.keep": "nonsense"})
    assert ProxyScores("parameters", make, 0, file)(unbuildable) == -math.inf


@pytest.mark.slow
def test_rank_shows_random_architectures_and_the_trials_of_a_run(small_config, small_config_file, tmp_path):
    names = list(PROXIES)
    told = CliRunner().invoke(app, ["rank", str(small_config_file), "--architectures", "3", "--json"])
    rows = json.loads(told.output)["architectures"]
    assert len({row["id"] for row in rows}) == 3
    first = [row["scores"][names[0]] for row in rows]
    assert first == sorted(first, reverse=True)
    small_config["learner"]["steps"] = 0
    search(small_config, tmp_path / "run", inline=True)
    told = CliRunner().invoke(app, ["rank", str(tmp_path / "run"), "--scores", "parameters", "--json"])
    found = json.loads(told.output)
    trials = {t.id: t for t in load_run(tmp_path / "run").trials}
    for row in found["architectures"]:
        assert row["scores"] == {"parameters": trials[row["trial"]].metrics["params"]}
    from scipy.stats import kendalltau

    sizes, accuracies = zip(*[(t.metrics["params"], t.metrics["accuracy"]) for t in trials.values()], strict=True)
    assert found["agreement"]["parameters"]["tau"] == pytest.approx(np.nan_to_num(kendalltau(sizes, accuracies)[0]))
    told = CliRunner().invoke(app, ["rank", str(tmp_path / "run"), "--scores", "parameters"])
    assert "Kendall's τ" in told.output


def test_a_run_without_trials_cannot_be_ranked(small_config, fragile_learner, tmp_path):
    from nas_meta.errors import NasMetaError
    from nas_meta.outputs.proxy_ranking import rank_run

    small_config |= {"learner": {"name": fragile_learner, "steps": 1}, "budget": {"trials": 2}}
    with pytest.raises(NasMetaError, match="no trial was completed"):
        search(small_config, tmp_path / "run", inline=True)
    with pytest.raises(RunError, match="has 0 completed trials; expected two or more"):
        rank_run(load_run(tmp_path / "run", allow_plugins=True), ["parameters"])

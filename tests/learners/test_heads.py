"""Heads that are fitted after the training, and distances of evaluation."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from command_line import nas_meta
from installed import marked

from nas_meta import load_classifier
from nas_meta.config.resolved import resolve
from nas_meta.controller.launch import search
from nas_meta.errors import ConfigError
from nas_meta.learners.head_fitting import _fit
from nas_meta.learners.heads import SHRINKAGE, Head, Map, apply, linear, parts, whitening
from nas_meta.learners.matching import Matching, MatchingOptions
from nas_meta.learners.protonet import ProtoNet, ProtoNetOptions, cosine_logits
from nas_meta.learners.ridge import Ridge, RidgeOptions
from nas_meta.outputs.export.exported_model import LEARNED, evaluate_folder
from nas_meta.outputs.export.folder import export
from nas_meta.tasks.episodes import EpisodeShape, episodes
from nas_meta.tasks.pool import Pool, Tasks

WIDTH, CLASSES, EXAMPLES = 12, 10, 20
SHAPE = EpisodeShape(5, 1, 5)


def pool_of(seed, noise=3.0):
    """Embeddings whose classes differ in the first half of the dimensions; the other half is noise."""
    rng = np.random.default_rng(seed)
    means = np.zeros((CLASSES, WIDTH))
    means[:, : WIDTH // 2] = rng.normal(size=(CLASSES, WIDTH // 2))
    z = np.repeat(means, EXAMPLES, 0) + 0.3 * rng.normal(size=(CLASSES * EXAMPLES, WIDTH))
    z[:, WIDTH // 2 :] += noise * rng.normal(size=(CLASSES * EXAMPLES, WIDTH // 2))
    labels = np.repeat(np.arange(CLASSES), EXAMPLES)
    return torch.tensor(z, dtype=torch.float32), Pool([str(i) for i in range(CLASSES)], [""] * len(labels), labels)


class Given(torch.nn.Module):
    """Stands in for an encoder: the embedding of an example is given."""

    def __init__(self, by_pool):
        super().__init__()
        self.by_pool, self.width, self.learned = by_pool, WIDTH, torch.nn.Module()

    def embed(self, pool, indices, rows=64):
        return next(z for z, other in self.by_pool if other is pool)[torch.as_tensor(indices)]

    embed_once = embed


def problem(learner, noise=3.0):
    """An encoder that needs a head if there is noise, with its tasks."""
    pools = [pool_of(seed, noise) for seed in (0, 1, 2)]
    encoder = Given(pools)
    encoder.learned = learner.learned(encoder, SHAPE.ways)
    names = ("meta-train", "meta-validation", "meta-test")
    return encoder, Tasks(dict(zip(names, (pool for _, pool in pools), strict=True)), [])


def accuracy(learner, encoder, tasks):
    pool = tasks["meta-test"]
    return learner.accuracies(encoder, pool, list(episodes(pool, SHAPE, 5, 100))).mean()


LEARNERS = [(ProtoNet, ProtoNetOptions), (Matching, MatchingOptions), (Ridge, RidgeOptions)]


@pytest.mark.parametrize(("learner_class", "options_class"), LEARNERS)
@pytest.mark.parametrize("head", ["whitening", "linear", "auto"])
def test_a_head_removes_the_noise_of_embeddings_for_every_metric_learner(learner_class, options_class, head):
    plain, learner = learner_class(options_class()), learner_class(options_class(head=head, shrinkage=0.1))
    encoder, tasks = problem(learner)
    before = accuracy(plain, encoder, tasks)
    assert accuracy(learner, encoder, tasks) == before, "an unfitted head changes nothing"
    learner.finish(encoder, tasks, SHAPE, seed=0, episodes=60)
    gain = accuracy(learner, encoder, tasks) - before
    assert gain > (0 if head == "linear" else 0.1), "a linear head starts at the identity and moves slowly"
    if head == "auto":
        assert encoder.learned.head.name == "whitening"


def test_auto_takes_no_head_where_none_helps():
    learner = ProtoNet(ProtoNetOptions(head="auto", shrinkage=0.0))
    encoder, tasks = problem(learner)
    encoder.by_pool = [(F.one_hot(torch.tensor(p.labels), WIDTH).float(), p) for _, p in encoder.by_pool]
    learner.finish(encoder, tasks, SHAPE, seed=0, episodes=30)
    assert encoder.learned.head.name == "none"
    assert accuracy(learner, encoder, tasks) == 1


def test_whitened_embeddings_have_equal_variance_within_classes():
    z, pool = pool_of(0)
    unit = apply(whitening(z, pool.labels, shrinkage=0.0), z)
    within = torch.cat([unit[pool.labels == c] - unit[pool.labels == c].mean(0) for c in range(CLASSES)])
    variances = torch.linalg.eigvalsh(within.T @ within / (len(z) - CLASSES))
    torch.testing.assert_close(variances, torch.full_like(variances, variances.mean()), rtol=1e-3, atol=0)
    kept = apply(whitening(z, pool.labels, shrinkage=1.0), z)
    torch.testing.assert_close(kept, F.normalize(z, dim=-1) - F.normalize(z, dim=-1).mean(0), rtol=1e-4, atol=1e-5)


def test_the_shrinkage_of_ledoit_and_wolf_is_computed():
    from sklearn.covariance import ledoit_wolf

    z, pool = pool_of(0)
    unit = F.normalize(z.double(), dim=-1)
    within = torch.cat([unit[pool.labels == c] - unit[pool.labels == c].mean(0) for c in range(CLASSES)])
    shrinkage = float(ledoit_wolf(within.numpy(), assume_centered=True)[1])
    torch.testing.assert_close(whitening(z, pool.labels, None).matrix, whitening(z, pool.labels, shrinkage).matrix)
    assert 0 < shrinkage < SHRINKAGE


def test_a_linear_head_lowers_the_loss_of_its_episodes():
    z, pool = pool_of(0, noise=1.0)
    fitted = linear(z, pool, lambda s, q: cosine_logits(s, q, 10.0), SHAPE, seed=0)

    def loss(mapped):
        tasks = list(episodes(pool, SHAPE, 9, 50))
        logits = [cosine_logits(*parts(mapped, t), 10.0) for t in tasks]
        return np.mean([float(F.cross_entropy(y, torch.tensor(t.labels))) for y, t in zip(logits, tasks, strict=True)])

    assert loss(apply(fitted, z)) < loss(z)
    again = linear(z, pool, lambda s, q: cosine_logits(s, q, 10.0), SHAPE, seed=0)
    assert torch.equal(again.matrix, fitted.matrix)


def test_heads_are_fitted_on_the_support_sets_of_the_search():
    """With class names, the episodes of a linear head have them, and no name is an example of whitening."""
    learner = ProtoNet(ProtoNetOptions(head="linear"))
    z, plain = pool_of(0)
    far = torch.cat([z, 100 * torch.randn(CLASSES, WIDTH)])
    labels = np.concatenate([plain.labels, np.arange(CLASSES)])
    named = Pool(plain.classes, [""] * len(labels), labels, name_rows=len(z) + np.arange(CLASSES))
    encoder = Given([(z, plain), (far, named)])
    encoder.learned = learner.learned(encoder, SHAPE.ways)
    fitted = [_fit(learner, encoder, pool, SHAPE, 0, ("linear", "whitening")) for pool in (plain, named)]
    assert torch.equal(fitted[0]["whitening"].matrix, fitted[1]["whitening"].matrix)
    assert not torch.allclose(fitted[0]["linear"].matrix, fitted[1]["linear"].matrix, atol=1e-2)


def test_heads_of_few_and_equal_examples_are_finite():
    z, labels = torch.ones(4, WIDTH), np.array([0, 0, 1, 1])
    for shrinkage in (0.0, None, 1.0):
        fitted = whitening(z, labels, shrinkage)
        assert torch.isfinite(fitted.matrix).all() and torch.isfinite(fitted.mean).all()


def test_training_leaves_a_head_alone():
    learner = ProtoNet(ProtoNetOptions(head="linear", distance="cosine"))
    module = learner.learned(problem(learner)[0], 5)
    assert [name for name, _ in module.named_parameters()] == ["temperature"]
    head = Head(WIDTH)
    head.set("linear", Map(torch.zeros(WIDTH), 2 * torch.eye(WIDTH)))
    other = Head(WIDTH)
    other.load_state_dict(head.state_dict())
    z = torch.randn(3, WIDTH)
    torch.testing.assert_close(other(z), 2 * F.normalize(z, dim=-1))


def test_the_distance_of_evaluation_may_differ_from_that_of_training():
    """Without unit norm, both distances give different classes."""
    z = torch.tensor([[1.0, 0.0], [10.0, 10.0], [2.0, 2.1]])
    support, query = z[:2, None], z[2:]
    for training in ("euclidean", "cosine"):
        learner = ProtoNet(ProtoNetOptions(distance=training, evaluation_distance="cosine", normalize=False))
        encoder = Given([])
        encoder.learned = learner.learned(encoder, 2)
        assert learner.form(encoder) == "cosine"
        near = {f: int(learner.evaluation_logits(encoder, support, query, f).argmax()) for f in ("euclidean", "cosine")}
        assert near == {"euclidean": 0, "cosine": 1}
        assert int(learner.logits(encoder, support, query).argmax()) == near[training]


@pytest.mark.parametrize("training", ["euclidean", "cosine"])
def test_auto_chooses_the_distance_that_is_better_on_meta_validation(training):
    """All classes lie in one direction and differ in length only, so the cosine knows nothing."""
    learner = ProtoNet(ProtoNetOptions(distance=training, evaluation_distance="auto", normalize=False))
    encoder, tasks = problem(learner)
    assert learner.form(encoder) == training, "before the choice"
    direction = F.normalize(torch.randn(WIDTH, generator=torch.manual_seed(0)), dim=0)
    encoder.by_pool = [
        ((1.0 + torch.tensor(p.labels)[:, None]) * direction + 0.01 * torch.randn(len(p), WIDTH), p)
        for _, p in encoder.by_pool
    ]
    learner.finish(encoder, tasks, SHAPE, seed=0, episodes=30)
    assert learner.form(encoder) == "euclidean"
    assert accuracy(learner, encoder, tasks) > 0.9


@pytest.fixture
def exported(small_config, tmp_path):
    """Return a function that searches with options of the learner and exports the winner."""

    def run(**options):
        small_config["learner"] |= options
        small_config["budget"]["trials"] = 1
        found = search(small_config, tmp_path / "run", inline=True)
        return found, export(found, tmp_path / "model")

    return run


def config_of(run, **options):
    document = run.config.document
    return resolve({**document, "learner": {**document["learner"], **options}}, recorded=True)


def test_a_model_is_evaluated_with_another_distance_or_head(exported):
    run, folder = exported(distance="cosine", head="linear")
    score = evaluate_folder(folder, run.config, episodes=20)["accuracy"]
    assert score == pytest.approx(run.test_of(run.best)["test_accuracy"], abs=1e-6), "the head is part of the model"
    for options in (
        {"distance": "euclidean"},
        {"head": "none"},
        {"head": "whitening"},
        {"evaluation_distance": "auto"},
    ):
        assert 0.3 < evaluate_folder(folder, config_of(run, **options), episodes=20)["accuracy"] <= 1
    (folder / LEARNED).unlink()
    assert 0.3 < evaluate_folder(folder, run.config, episodes=20)["accuracy"] <= 1, "the head is fitted anew"


@pytest.mark.parametrize("head", marked(["whitening", "linear"], ["linear"]))
def test_a_classifier_has_the_head_of_its_run(head, exported):
    run, folder = exported(distance="cosine", head=head)
    texts, labels = [f"alpha {i} one" for i in range(6)], ["a", "b"] * 3
    of_run, of_folder = (load_classifier(place, device="cpu").fit(texts, labels) for place in (run.directory, folder))
    assert of_run.parts.encoder.learned.head.name == of_folder.parts.encoder.learned.head.name == head
    np.testing.assert_allclose(of_run.predict_proba(texts), of_folder.predict_proba(texts), atol=1e-5)


@pytest.mark.slow
def test_a_model_with_a_head_is_evaluated_with_a_learner_that_has_none(exported):
    run, folder = exported(distance="euclidean", head="linear")
    other = resolve({**run.config.document, "learner": {"name": "finetune", "adapt_steps": 1}}, recorded=True)
    with_file = evaluate_folder(folder, other, episodes=3)["accuracy"]
    (folder / LEARNED).unlink()
    assert evaluate_folder(folder, other, episodes=3)["accuracy"] == with_file, "the head plays no part"


@pytest.mark.slow
def test_the_command_line_evaluates_with_another_distance(exported):
    _, folder = exported(distance="cosine")
    config = folder / "nas_meta.yaml"
    command = ("evaluate", folder, "--config", config, "--episodes", 20, "--json")
    for options in (["--set", "learner.distance=euclidean"], ["--set", "learner.head=auto", "--shots", 2]):
        assert json.loads(nas_meta(*command, *options).stdout)["accuracy"] > 0.3


@pytest.mark.slow
def test_what_a_learner_needs_is_still_required(exported):
    run, folder = exported(name="ridge")
    wrong = config_of(run)
    document = {**wrong.document, "learner": {"name": "matching", "full_context": True}}
    with pytest.raises(
        ConfigError, match="does not fit the learner 'matching' with 3 ways; expected the config of its"
    ):
        evaluate_folder(folder, resolve(document, recorded=True), episodes=20)

"""Learners against numbers by hand."""

import numpy as np
import pytest
import torch

from nas_meta.errors import TrialError
from nas_meta.learners.finetune import FineTune, FineTuneOptions
from nas_meta.learners.protonet import ProtoNet, ProtoNetOptions, prototype_logits
from nas_meta.models.encoder import Encoder
from nas_meta.models.profiling import interval95
from nas_meta.tasks.episodes import Episode, EpisodeShape, episode, episodes
from nas_meta.tasks.sources.files import FileOptions, JSONLines
from nas_meta.tasks.tokenization import load_tasks, load_tokenizer


@pytest.fixture(scope="module")
def tasks(tiny_model, labelled_texts):
    return load_tasks(JSONLines(FileOptions(path=labelled_texts)), load_tokenizer(str(tiny_model)), 16)


@pytest.fixture
def encoder(tiny_model):
    from transformers import AutoModel

    torch.manual_seed(0)
    return Encoder(AutoModel.from_pretrained(tiny_model))


def test_prototype_logits_equal_numbers_by_hand():
    support = torch.tensor([[[0.0, 0.0], [2.0, 0.0]], [[0.0, 3.0], [0.0, 5.0]]])  # prototypes (1, 0) and (0, 4)
    query = torch.tensor([[1.0, 1.0], [0.0, 4.0]])
    expected = torch.tensor([[-1.0, -10.0], [-17.0, 0.0]])
    torch.testing.assert_close(prototype_logits(support, query), expected)
    torch.testing.assert_close(prototype_logits(support, query, 2.0), 2 * expected)


def test_embeddings_do_not_depend_on_the_batching(encoder, tasks):
    pool = tasks["meta-train"]
    indices = np.array([5, 0, 17, 3, 30, 8, 21])
    encoder.eval()
    one_by_one = torch.cat([encoder.embed(pool, indices[i : i + 1]) for i in range(len(indices))])
    for rows in (2, 3, 64):
        torch.testing.assert_close(encoder.embed(pool, indices, rows), one_by_one, atol=1e-5, rtol=1e-4)


def test_mean_pooling_ignores_padding(encoder, tasks):
    pool = tasks["meta-train"]
    index = np.array([int(pool.lengths.argmin())])
    ids, mask = map(torch.from_numpy, pool.batch(index))
    wide = torch.nn.functional.pad(ids, (0, 5)), torch.nn.functional.pad(mask, (0, 5))
    encoder.eval()
    torch.testing.assert_close(encoder(*wide), encoder(ids, mask), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("learner", [ProtoNet(), FineTune(FineTuneOptions(body_lr=0, adapt_steps=3))])
def test_scoring_many_episodes_at_once_equals_one_by_one(learner, encoder, tasks):
    pool = tasks["meta-validation"]
    drawn = list(episodes(pool, EpisodeShape(3, 2, 3), 1, 8))
    at_once = learner.accuracies(encoder, pool, drawn)
    singly = [float((learner.classify(encoder, pool, t).argmax(1).numpy() == t.labels).mean()) for t in drawn]
    np.testing.assert_allclose(at_once, singly)


@pytest.mark.parametrize(
    "learner",
    [ProtoNet(ProtoNetOptions(steps=40, lr=3e-3)), FineTune(FineTuneOptions(steps=40, lr=3e-3, learned_lr=1e-2))],
)
@pytest.mark.slow
def test_meta_training_lowers_the_loss_and_keeps_the_tables(learner, encoder, tasks):
    pool = tasks["meta-train"]
    table = encoder.model.embeddings.word_embeddings.weight.clone()
    losses = [s.loss for s in learner.meta_train(encoder, pool, lambda i: episode(pool, EpisodeShape(3, 1, 3), 0, i))]
    assert len(losses) == 40 and np.mean(losses[-10:]) < 0.9 * np.mean(losses[:10])
    assert torch.equal(encoder.model.embeddings.word_embeddings.weight, table)


def test_fine_tuning_leaves_the_encoder_as_it_was(encoder, tasks):
    pool = tasks["meta-validation"]
    before = {n: t.clone() for n, t in encoder.state_dict().items()}
    learner = FineTune(FineTuneOptions(body_lr=1e-2, adapt_steps=3))
    logits = learner.classify(encoder, pool, episode(pool, EpisodeShape(3, 2, 3), 0, 0))
    assert logits.shape == (9, 3)
    assert all(torch.equal(before[n], t) for n, t in encoder.state_dict().items())


def test_the_first_step_of_the_head_follows_the_gradient(encoder, tasks):
    """From zero weights the gradient of class n is Σ (1/N - 1[y=n]) z / S, and AdamW's first step has its sign."""
    pool = tasks["meta-validation"]
    task = episode(pool, EpisodeShape(3, 1, 2), 0, 0)
    encoder.eval()
    with torch.no_grad():
        z = torch.nn.functional.normalize(encoder.embed(pool, task.indices), dim=-1)
    support, query = z[:3], z[3:]
    gradient = (torch.full((3, 3), 1 / 3) - torch.eye(3)) @ support / 3
    bias_gradient = (torch.full((3, 3), 1 / 3) - torch.eye(3)).sum(1) / 3
    expected = query @ (-0.01 * gradient / (gradient.abs() + 1e-8)).T
    logits = FineTune(FineTuneOptions(body_lr=0, adapt_steps=1)).classify(encoder, pool, task)
    assert bias_gradient.abs().max() < 1e-6
    torch.testing.assert_close(logits - logits.mean(), expected - expected.mean(), atol=0.02, rtol=0)


def test_divergence_is_a_sentence(encoder, tasks):
    pool = tasks["meta-train"]
    with torch.no_grad():
        encoder.model.encoder.layer[0].output.dense.weight.fill_(float("nan"))
    with pytest.raises(TrialError, match="not finite: training diverged"):
        list(ProtoNet().meta_train(encoder, pool, lambda i: episode(pool, EpisodeShape(3, 1, 3), 0, i)))


def test_the_interval_equals_the_formula_by_hand():
    # mean 0.5, sample variance (0.25 + 0.25) / 1 = 0.5
    assert interval95(np.array([0.0, 1.0])) == pytest.approx(1.96 * 0.5**0.5 / 2**0.5)


def test_labels_follow_the_order_of_the_indices():
    task = Episode(np.array([[1], [2]]), np.array([[3, 4], [5, 6]]))
    assert task.indices.tolist() == [1, 2, 3, 4, 5, 6] and task.labels.tolist() == [0, 0, 1, 1]

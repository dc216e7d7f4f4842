"""Scores for texts of no class, against direct computations; measures of such scores, against scikit-learn."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score

from nas_meta.learners.open_set import SCORES, auroc, conformal_threshold, fpr95, prototype_cosines, units_of


def support(seed=0, sizes=(3, 1, 2)):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    return np.random.default_rng(seed).normal(size=(len(labels), 4)).astype(np.float32), labels


def unit(z):
    return z / np.linalg.norm(z, axis=-1, keepdims=True)


@pytest.mark.parametrize("name", SCORES)
def test_leave_one_out_scores_are_those_of_the_example_as_a_query(name):
    z, labels = support(sizes=(3, 2, 4))
    own = SCORES[name](z, labels, 3, None)
    for i in range(len(z)):
        rest = np.arange(len(z)) != i
        expected = SCORES[name](z[rest], labels[rest], 3, z[i : i + 1])
        assert np.allclose(own[i], expected[0], atol=1e-5)


def test_cosines_are_those_to_the_mean_of_unit_embeddings():
    z, labels = support()
    query = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)
    means = np.stack([unit(z[labels == c]).mean(0) for c in range(3)])
    expected = F.cosine_similarity(torch.from_numpy(query)[:, None], torch.from_numpy(means)[None], dim=-1).numpy()
    assert np.allclose(prototype_cosines(z, labels, 3, query), expected, atol=1e-6)


def test_a_single_example_has_no_class_when_it_is_left_out():
    z, labels = support()
    assert prototype_cosines(z, labels, 3, None)[3, 1] == -1


def test_units_are_those_of_leave_one_out_scores_or_of_different_classes():
    z, labels = support(sizes=(3, 1, 2))
    own = SCORES["largest cosine"](z, labels, 3, None)[[0, 1, 2, 4, 5]]
    units = units_of(z, labels, 3)
    assert np.allclose(units.own, own) and units.standardised(own).mean() == pytest.approx(0, abs=1e-6)
    single = units_of(z[:3], np.arange(3), 3)
    cosines = unit(z[:3]) @ unit(z[:3]).T
    mean = float(cosines[~np.eye(3, dtype=bool)].mean())
    assert not single.left_out and single.standardised(np.array([mean, 1.0])).tolist() == pytest.approx(
        [0, 1], abs=1e-6
    )


def test_softmax_and_energy_are_those_of_the_logits_of_a_prototypical_network():
    z, labels = support()
    query = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)
    means = torch.stack([torch.from_numpy(unit(z[labels == c]).mean(0)) for c in range(3)])
    logits = -10 * torch.cdist(torch.from_numpy(unit(query)), means).square()
    assert np.allclose(SCORES["softmax probability"](z, labels, 3, query), logits.softmax(1).amax(1), atol=1e-5)
    assert np.allclose(SCORES["energy"](z, labels, 3, query), logits.logsumexp(1), atol=1e-4)


def test_auroc_is_that_of_scikit_learn_also_with_ties():
    rng = np.random.default_rng(0)
    inside, outside = rng.integers(2, 9, 40).astype(float), rng.integers(0, 7, 60).astype(float)
    expected = roc_auc_score([1] * 40 + [0] * 60, np.concatenate([inside, outside]))
    assert auroc(inside, outside) == pytest.approx(expected)


def test_fpr95_counts_others_above_the_score_that_95_percent_reach():
    inside = np.arange(100.0)
    assert fpr95(inside, np.array([3.0, 4.0, 50.0, -1.0])) == 0.5  # 4 and 50: the 5% quantile is 4


def test_the_conformal_threshold_refuses_at_most_the_share():
    """Over many tasks, a new score falls below the threshold in at most 10 % of cases."""
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(4000, 30))
    below = [row[0] < conformal_threshold(row[1:], 0.1) for row in scores]
    assert 0.04 < np.mean(below) <= 0.1 + 3 * np.sqrt(0.1 * 0.9 / 4000)
    assert conformal_threshold(np.arange(39.0), 0.05) == 1.0, "the second smallest of 39"
    assert conformal_threshold(np.arange(18.0), 0.05) == -np.inf

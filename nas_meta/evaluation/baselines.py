"""Baselines that a search has to beat: nearest centroid on vectors that are not learned.

They are tested on the same meta-test episodes as the best trials.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nas_meta.errors import TrialError
from nas_meta.tasks.episodes import Episode
from nas_meta.tasks.examples import IMAGE, IMAGE_TEXT, TEXT
from nas_meta.tasks.pool import Pool


def tfidf(pool: Pool, indices: np.ndarray) -> Any:
    """Compute TF-IDF vectors of texts.

    Args:
        pool: The examples.
        indices: ``[n]``, indices of the texts, which the inverse document frequencies are fitted to.

    Returns:
        Sparse matrix ``[n, terms]``, rows of unit length.

    Raises:
        TrialError: The texts have no terms, for example because they consist of emoji.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer, texts = TfidfVectorizer(sublinear_tf=True), [pool.texts[i] for i in indices]
    terms = vectorizer.build_analyzer()
    if not any(map(terms, texts)):
        raise TrialError("no text of the meta-test episodes has a word of at least two letters or digits")
    return vectorizer.fit_transform(texts)


def raw_pixels(pool: Pool, indices: np.ndarray) -> Any:
    """Flatten images and subtract their mean.

    Args:
        pool: The examples.
        indices: ``[n]``, indices of the images, which the mean is taken over.

    Returns:
        ``[n, channels * height * width]``.
    """
    pixels = pool.pixels[indices].reshape(len(indices), -1).astype(np.float64)
    return pixels - pixels.mean(0)


def tfidf_and_pixels(pool: Pool, indices: np.ndarray) -> Any:
    """Concatenate TF-IDF and pixel vectors of unit length, so that the cosine is the mean of both cosines.

    Args:
        pool: Examples with text and image.
        indices: ``[n]``, indices of the examples.

    Returns:
        Sparse matrix ``[n, terms + channels * height * width]``.
    """
    from scipy.sparse import hstack
    from sklearn.preprocessing import normalize

    return hstack([normalize(tfidf(pool, indices)), normalize(raw_pixels(pool, indices))], format="csr")


BASELINES: dict[str, dict[str, Callable[[Pool, np.ndarray], Any]]] = {
    TEXT: {"TF-IDF, nearest centroid": tfidf},
    IMAGE: {"raw pixels, nearest centroid": raw_pixels},
    IMAGE_TEXT: {
        "TF-IDF, nearest centroid": tfidf,
        "raw pixels, nearest centroid": raw_pixels,
        "TF-IDF and raw pixels": tfidf_and_pixels,
    },
}


def baseline_accuracies(name: str, pool: Pool, tasks: Sequence[Episode]) -> np.ndarray:
    """Test a baseline: classify queries by the nearest class centroid under the cosine.

    Args:
        name: A key of ``BASELINES[pool.modality]``.
        pool: The examples.
        tasks: Episodes to score.

    Returns:
        ``[len(tasks)]``, the accuracy on each episode, from 0 to 1.
    """
    from sklearn.preprocessing import normalize

    used = np.unique(np.concatenate([t.indices for t in tasks]))
    position = {index: row for row, index in enumerate(used)}
    vectors = BASELINES[pool.modality][name](pool, used)

    def dense(indices: np.ndarray) -> np.ndarray:
        rows = vectors[[position[i] for i in indices.ravel()]]
        return rows.toarray() if hasattr(rows, "toarray") else rows

    scores = []
    for task in tasks:
        ways, shots = task.support.shape
        support = dense(task.support).reshape(ways, shots, -1)
        query = dense(task.query)
        similarity = query @ normalize(support.mean(1)).T
        scores.append((similarity.argmax(1) == task.labels).mean())
    return np.array(scores)

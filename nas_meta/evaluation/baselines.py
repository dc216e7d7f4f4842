"""What a search has to beat: nearest centroid on vectors that nobody learned, on the same meta-test episodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nas_meta.tasks.episodes import Episode
from nas_meta.tasks.examples import IMAGE, IMAGE_TEXT, TEXT
from nas_meta.tasks.pool import Pool


def tfidf(pool: Pool, indices: np.ndarray) -> Any:
    """TF-IDF vectors of texts, fitted to these."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(sublinear_tf=True).fit_transform([pool.texts[i] for i in indices])


def raw_pixels(pool: Pool, indices: np.ndarray) -> Any:
    """The pixels of images, less the mean over these images of each."""
    pixels = pool.pixels[indices].reshape(len(indices), -1).astype(np.float64)
    return pixels - pixels.mean(0)


def both(pool: Pool, indices: np.ndarray) -> Any:
    """Both vectors at unit length, side by side: their cosine is the mean of the two."""
    from scipy.sparse import hstack
    from sklearn.preprocessing import normalize

    return hstack([normalize(tfidf(pool, indices)), normalize(raw_pixels(pool, indices))], format="csr")


BASELINES: dict[str, dict[str, Callable[[Pool, np.ndarray], Any]]] = {
    TEXT: {"TF-IDF, nearest centroid": tfidf},
    IMAGE: {"raw pixels, nearest centroid": raw_pixels},
    IMAGE_TEXT: {
        "TF-IDF, nearest centroid": tfidf,
        "raw pixels, nearest centroid": raw_pixels,
        "TF-IDF and raw pixels": both,
    },
}


def baseline_accuracies(name: str, pool: Pool, tasks: Sequence[Episode]) -> np.ndarray:
    """Accuracy of the nearest class centroid by cosine, per episode, on the vectors that the name says."""
    from sklearn.preprocessing import normalize

    used = np.unique(np.concatenate([t.indices for t in tasks]))
    position = {index: row for row, index in enumerate(used)}
    vectors = BASELINES[pool.modality][name](pool, used)

    def dense(indices: np.ndarray) -> np.ndarray:
        found = vectors[[position[i] for i in indices.ravel()]]
        return found.toarray() if hasattr(found, "toarray") else found

    scores = []
    for task in tasks:
        ways, shots = task.support.shape
        support = dense(task.support).reshape(ways, shots, -1)
        query = dense(task.query)
        similarity = query @ normalize(support.mean(1)).T
        scores.append((similarity.argmax(1) == task.labels).mean())
    return np.array(scores)

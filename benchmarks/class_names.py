"""What the names of classes gain as support examples, without any training.

The whole MiniLM, untouched, with prototypes under the cosine, and TF-IDF, on 600 5-way episodes of the meta-test
classes of ICD-10-CM and, if they lie beside this checkout, of BANKING77 and CLINC150. All rows of a data set have the
same queries, so that gains are paired.

usage: python -m benchmarks.run class_names
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.heads import Cached
from benchmarks.recipe import DATA, source_of
from benchmarks.table import Table

EPISODES, SEED = 600, 1
SHOTS = (1, 5)
MODELS = ("MiniLM", "TF-IDF")


def accuracies(data: str) -> dict[str, dict[tuple[int, bool], np.ndarray]]:
    """Score models with and without class names.

    Args:
        data: a name in ``recipe.DATA``.

    Returns:
        For each model, the accuracy on each episode by the number of shots and whether names are used.
    """
    from nas_meta.config.components import make_evaluation
    from nas_meta.config.problem import load_problem
    from nas_meta.config.resolved import resolve
    from nas_meta.evaluation.baselines import baseline_accuracies
    from nas_meta.tasks.episodes import Episode, EpisodeShape, episodes

    with tempfile.TemporaryDirectory() as folder:
        resolved = resolve(
            {
                "space": {"name": "bert-subnet", "importance_episodes": 1},
                "tasks": {**source_of(data, Path(folder)), "ways": 5, "class_names": True},
                "learner": {"name": "protonet", "distance": "cosine"},
            }
        )
        space, tasks, shape = load_problem(resolved)
    evaluation = make_evaluation(resolved, space, tasks, shape, cpus=1)
    evaluation.setup()
    encoder = Cached(evaluation.encoder(space.reference()))
    pool = tasks["meta-test"]
    found: dict[str, dict[tuple[int, bool], np.ndarray]] = {model: {} for model in MODELS}
    for shots in SHOTS:
        named = list(episodes(pool, EpisodeShape(5, shots, 5), SEED, EPISODES))
        sets: dict[tuple[int, bool], Any] = {
            (shots, True): named,
            (shots, False): [Episode(task.support[:, :-1], task.query) for task in named],
        }
        if shots == SHOTS[0]:
            sets[0, True] = [Episode(task.support[:, -1:], task.query) for task in named]
        for key, chosen in sets.items():
            found["MiniLM"][key] = evaluation.learner.accuracies(encoder, pool, chosen)
            found["TF-IDF"][key] = baseline_accuracies("TF-IDF, nearest centroid", pool, chosen)
    return found


def measure() -> Table:
    """Accuracy with and without names, one row per data set and model."""
    from nas_meta.models.profiling import interval95

    rows = []
    for data, folder in DATA.items():
        if folder is not None and not folder.is_dir():
            continue
        for model, found in accuracies(data).items():
            cells = [f"{100 * found[0, True].mean():.1f}"]
            for shots in SHOTS:
                without, names = (100 * found[shots, used] for used in (False, True))
                gain = names - without
                cells += [f"{without.mean():.1f}", f"{names.mean():.1f}"]
                cells.append(f"{gain.mean():+.1f} ± {interval95(gain):.1f}")
            rows.append([data, model, *cells])
    titles = [f"{shots} shot{'s' * (shots > 1)}{more}" for shots in SHOTS for more in ("", ", names", ", gain")]
    return Table(
        ("data", "model, not trained", "names alone", *titles),
        rows,
        f"Accuracy in % over {EPISODES} episodes with the same queries; gains in points, paired, with 95% intervals.",
    )

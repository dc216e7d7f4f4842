"""Two or more runs side by side: their winners, paired where they were tested on the same episodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nas_meta.journal.run import Run
from nas_meta.journal.verdict import paired_difference
from nas_meta.outputs.report.setting import recorded

EPISODES = (
    *(("tasks", key) for key in ("ways", "shots", "queries", "class_names")), ("evaluation", "protocol"), ("seed",),
)  # fmt: skip
"""Keys of the config that decide which meta-test episodes are drawn from the same data."""


def pairs_of(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Compare the winner of the first run with that of every other run.

    Args:
        runs: The runs.

    Returns:
        For each pair the positions of both runs, the difference in points with its interval (None if the episodes
        differ), and ``words``.
    """
    return [{"first": 0, "second": i, **_pair(runs[0], other)} for i, other in enumerate(runs) if i]


def _pair(first: Run, second: Run) -> dict[str, Any]:
    """Return the paired difference of two winners."""
    none = {"mean": None, "low": None, "high": None}
    if why := different_episodes(first, second):
        return {**none, "words": f"cannot be compared episode by episode: {why}"}
    own, other = (run.report["right"]["trials"][str(run.best.id)] for run in (first, second))
    difference = paired_difference(own, other, first.report["queries"])
    if difference is None:
        return {**none, "words": "cannot be compared episode by episode: there are fewer than two episodes"}
    low, high = difference.mean - difference.half, difference.mean + difference.half
    words = str(difference) if difference.sign else f"not distinguishable ({low:+.1f} to {high:+.1f} points)"
    return {"mean": difference.mean, "low": low, "high": high, "words": words}


def different_episodes(first: Run, second: Run) -> str:
    """Return why the winners of two runs were not tested on the same episodes.

    Args:
        first: A run.
        second: Another run.

    Returns:
        A clause; empty if the episodes are the same: equal data, shape, protocol, seed and number, and equal results of
        the baselines that both have, which do not depend on a search.
    """
    answers = []
    for run in (first, second):
        tested = run.report.get("right", {}).get("trials", {}) if run.report else {}
        if not any(t.status == "completed" for t in run.trials) or str(run.best.id) not in tested:
            return f"the winner of {run.directory.name} was not tested"
        answers.append(tested[str(run.best.id)])
    prints = [run.fingerprint for run in (first, second)]
    data = [None if p is None else p.data.get("meta-test") for p in prints]
    if not data[0] or data[0] != data[1]:
        return "their meta-test data differ, or are not recorded"
    for keys in EPISODES:
        values = [_value(recorded(run)[0], keys) or None for run in (first, second)]  # a key may be younger than a run
        if values[0] != values[1]:
            return f"{'.'.join(keys)} differs"
    if len(answers[0]) != len(answers[1]) or first.report.get("queries") != second.report.get("queries"):
        return "the number of episodes or queries differs"
    baselines = [run.report.get("right", {}).get("references", {}) for run in (first, second)]
    if any(baselines[1].get(name, right) != right for name, right in baselines[0].items() if name.startswith("TF-IDF")):
        return "a baseline has different results on their episodes"
    return ""


def _value(document: Any, keys: Sequence[str]) -> Any:
    for key in keys:
        document = document.get(key) if isinstance(document, Mapping) else None
    return document

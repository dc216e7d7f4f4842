"""Meta-training as it was before today's default training, to measure the tables of then again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SHARES = {"heads": [1.0, 0.5], "ffn": [1.0, 0.5, 0.25]}  # the defaults of ``bert-subnet`` then
WITH_HEADS = ("protonet", "ridge", "matching")  # learners that have an option ``head``


def plain(document: Mapping[str, Any]) -> dict[str, Any]:
    """A config with episodes of the same shape in training and evaluation, a constant rate, no head, and fp32.

    Args:
        document: sections of a config; the keys that they have stay as they are.

    Returns:
        A copy.
    """
    tasks, learner = document.get("tasks", {}), document.get("learner", {})
    training = {"warmup": 0.0, "decay": "none", **learner.get("training", {})}
    head = {"head": "none"} if learner.get("name", "protonet") in WITH_HEADS else {}
    return {
        **document,
        "tasks": {"train_ways": None, "train_queries": None, **tasks},
        "learner": {**head, **learner, "training": training},
        "compute": {"precision": "fp32", **document.get("compute", {})},
    }

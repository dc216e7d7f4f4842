"""The default training: what a config leaves out is filled in with what suits the search space and the learner.

Episodes with few classes are soon too easy, so learners that compare embeddings are meta-trained on more classes than
they are judged on (Snell et al. 2017, section 2.6). The learning rate rises over the first steps and then falls to
zero. After the training, learners that compare embeddings choose a head on meta-validation, which maps the embeddings
first. ``benchmarks/README.md`` measures each part, for pretrained models and for models from scratch.

One learning rate serves all data: for pretrained models, with this schedule, twice the rate is 0.3 points better with
one example per class, and less than half of it 0.4 points worse. Models from scratch need a higher one and train their
token embeddings, too.

Pretrained models of learners that compare embeddings compute in bf16 on a CPU with AMX, which is as accurate. Learners
with an inner loop keep fp32, in which they batch their tasks.

The journal of a run has every value, so a run keeps the training that it began with, also if that of a later version
differs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nas_meta.core import plugins
from nas_meta.evaluation.hyperparameters import CHOICE

AUTO = "auto"
EPISODES = {"train_ways": AUTO, "train_queries": AUTO}
HEAD = ("learner", "head")
PRECISION = ("compute", "precision")
SCHEDULE = {"warmup": 0.1, "decay": "cosine"}
PRETRAINED = {"lr": 5e-5}
FROM_SCRATCH = {"lr": 5e-4, "train_embeddings": True}

Path = tuple[str, ...]


def with_recipe(document: Mapping[str, Any], space: str) -> tuple[Mapping[str, Any], frozenset[Path]]:
    """Fill in the training where a config leaves it out.

    Args:
        document: The config as plain data, not validated yet.
        space: Name of its search space.

    Returns:
        The config, and the keys that were filled in.

    Raises:
        PluginError: The space or a learner cannot be loaded.
    """
    models = plugins.load("spaces", space)
    tasks, learner, compute = (document.get(name) or {} for name in ("tasks", "learner", "compute"))
    if not all(isinstance(section, Mapping) for section in (tasks, learner, compute)):
        return document, frozenset()
    training = learner.get("training") or {}
    added: dict[Path, Any] = {}
    if isinstance(training, Mapping) and CHOICE not in training:
        added |= {("learner", "training", k): v for k, v in SCHEDULE.items() if k not in training}
    if "head" not in learner and all(_has_head(name) for name in _learners(learner)):
        added[HEAD] = AUTO
    compares = all(_many_ways(name) for name in _learners(learner))
    if compares:
        added |= {("tasks", key): value for key, value in EPISODES.items() if key not in tasks}
        if models.pretrained and PRECISION[-1] not in compute:
            added[PRECISION] = AUTO
    values = FROM_SCRATCH if models.from_scratch else PRETRAINED if models.pretrained and compares else {}
    added |= {("learner", key): value for key, value in values.items() if key not in learner}
    if not added:
        return document, frozenset()
    filled: dict[str, Any] = {**document, "tasks": {**tasks}, "learner": {**learner}, "compute": {**compute}}
    for (section, *inner, key), value in added.items():
        target = filled[section]
        for name in inner:
            target[name] = target = {**(target.get(name) or {})}
        target[key] = value
    return filled, frozenset(added)


def _learners(section: Mapping[str, Any]) -> Sequence[Any]:
    """Return the learners of a config: one, or all values of a choice."""
    name = section.get("name", "protonet")
    return name[CHOICE] if isinstance(name, Mapping) and isinstance(name.get(CHOICE), list) else [name]


def _many_ways(name: Any) -> bool:
    """Return whether a learner is meta-trained on more classes than it is judged on; not if it cannot be loaded."""
    learner = _loaded(name)
    return learner is not None and learner.many_ways and learner.any_ways


def _has_head(name: Any) -> bool:
    """Return whether a learner can have a head; not if it cannot be loaded."""
    learner = _loaded(name)
    return learner is not None and "head" in learner.Options.model_fields


def _loaded(name: Any) -> Any:
    """Return a learner; None if it cannot be loaded, which is reported when the section is resolved."""
    try:
        return plugins.load("learners", name) if isinstance(name, str) else None
    except Exception:  # a plugin file may raise anything
        return None

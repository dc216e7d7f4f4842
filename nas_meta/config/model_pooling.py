"""How a pretrained model's own folder pools token states: the default of ``tasks.pooling``.

Sentence Transformers writes the pooling beside a model: ``modules.json`` lists the modules, and the folder of the
module ``Pooling`` has a ``config.json``. A model that was trained with one pooling is worse with another.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas_meta.core.files import regular_file
from nas_meta.errors import NasMetaError
from nas_meta.tasks.packaged_models import MINILM, MPNET, SMOLLM2

if TYPE_CHECKING:
    from nas_meta.config.resolved import ResolvedConfig

MOST_BYTES = 1024 * 1024
POOLINGS = {
    "mean": "mean", "mean_tokens": "mean", "cls": "cls", "cls_token": "cls", "last": "last", "lasttoken": "last",
}  # fmt: skip
"""Names of poolings here, by those of Sentence Transformers."""


def own_pooling(folder: str | Path) -> str | None:
    """Return how the folder of a pretrained model pools token states.

    Args:
        folder: A folder; the name of a hub model or of a packaged model gives None.

    Returns:
        ``mean``, ``cls`` or ``last``; the name that Sentence Transformers uses if nas-meta has no such pooling; None if
        the folder says nothing.
    """
    if str(folder) in (MINILM, MPNET, SMOLLM2) or not (Path(folder) / "modules.json").is_file():
        return None
    try:
        modules = _json(Path(folder) / "modules.json")
        path = next(module["path"] for module in modules if str(module["type"]).endswith(".Pooling"))
        config = _json(Path(folder) / str(path) / "config.json")
        mode = config.get("pooling_mode")
        if mode is None:
            flags = [name.removeprefix("pooling_mode_") for name, value in config.items() if value is True]
            mode = "+".join(name for name in flags if f"pooling_mode_{name}" in config)
        name = str(mode if isinstance(mode, str) else "+".join(mode))
    except (NasMetaError, OSError, ValueError, KeyError, TypeError, AttributeError, StopIteration, RecursionError):
        return None
    return POOLINGS.get(name, name) if re.fullmatch("[a-z_+]{1,100}", name) else None


def with_own_pooling(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a config with the pooling of its pretrained model, unless it names one.

    Args:
        document: The config as plain data, not validated yet.

    Returns:
        The same config, or a copy with ``tasks.pooling``.
    """
    space, tasks = document.get("space"), document.get("tasks", {})
    model = space.get("model") if isinstance(space, Mapping) else None
    if not isinstance(model, str) or not isinstance(tasks, Mapping | None) or "pooling" in (tasks or {}):
        return document
    own = own_pooling(model)
    return document if own not in POOLINGS.values() else {**document, "tasks": {**(tasks or {}), "pooling": own}}


def pooling_difference(resolved: ResolvedConfig) -> str | None:
    """Return a sentence if a config pools in another way than the folder of its pretrained model.

    Args:
        resolved: The config.

    Returns:
        The sentence; None if both are the same, if the folder says nothing, or if the pooling is searched.
    """
    model, used = getattr(resolved.options["space"], "model", None), resolved.sections.tasks.pooling
    own = own_pooling(model) if isinstance(model, str) and "tasks.pooling" not in resolved.searched.choices else None
    if own is None or own == used:
        return None
    return (
        f"tasks.pooling is {used}, but the folder of space.model '{model}' says that the model was trained with "
        f"the pooling {own}; its embeddings may be worse"
    )


def _json(file: Path) -> Any:
    return json.loads(regular_file(file, MOST_BYTES).read_text(encoding="utf-8"))

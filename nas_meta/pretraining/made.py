"""What a run has made before its trials, in the place of what its config names: a tokenizer, an adapted model."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from nas_meta.config import ResolvedConfig
from nas_meta.core.guard import asking

if TYPE_CHECKING:
    from nas_meta.space.search_space import SearchSpace
    from nas_meta.tasks.pool import Tasks

ADAPTED = "adapted"  # in a run directory, the folder of the model
TOKENIZER = "tokenizer"


def made(resolved: ResolvedConfig, directory: Path) -> ResolvedConfig:
    """The config as a run goes on with it: with its own model and tokenizer, as far as they are there."""
    section, directory = resolved.config.pretraining, directory.resolve()
    if section is None:
        return resolved
    options, tokenizer = resolved.options, None
    if section.of == "model" and (directory / ADAPTED).is_dir():
        space = options["space"].model_copy(update={"model": str(directory / ADAPTED)})
        options = {**options, "space": space}
    if section.tokenizer is not None and (directory / TOKENIZER).is_dir():
        tokenizer = str(directory / TOKENIZER)
    return dataclasses.replace(resolved, options=options, tokenizer=tokenizer)


def before_adaptation(resolved: ResolvedConfig, directory: Path, tasks: Tasks) -> SearchSpace | None:
    """The prepared space of a config as it was before the run adapted its model; None where the run has not."""
    if not (directory / ADAPTED).is_dir():
        return None
    from nas_meta.assembly import make_space

    space = make_space(resolved)
    with asking(space, "prepare"):
        space.prepare(tasks, resolved.config.seed)
    return space

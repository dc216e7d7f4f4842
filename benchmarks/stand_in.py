"""Searches whose trials compute nothing: what is left is the cost of the search itself."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

if TYPE_CHECKING:
    from nas_meta.journal.run import Run


class StandIn:
    """What a search needs of an evaluation besides ``trial``, which subclasses add."""

    learner = SimpleNamespace(options=SimpleNamespace(steps=1))
    pretraining = None

    def with_rungs(self, *_: object) -> StandIn:
        return self

    def of(self, _: object) -> StandIn:
        return self

    def setup(self) -> None:
        time.sleep(0)


def search(
    config: Mapping[str, Any], directory: Path, evaluation: StandIn, engine: Any = None, **options: Any
) -> Run:  # fmt: skip
    """Runs a search whose trials are those of a stand-in. Nothing is checked before them, tested or timed after them.

    Args:
        config: config of the search.
        directory: run directory to create.
        evaluation: runs the trials.
        engine: runs the evaluation; by default the engine that the config asks for.
        options: further arguments of :func:`nas_meta.search`.

    Returns:
        The run.
    """
    from nas_meta.controller import launch, phases

    replaced = {
        "make_evaluation": lambda *_: evaluation,
        "meta_test": lambda *_: {},
        "measured_front": lambda *_: ({}, {}),
    }
    if engine is not None:
        replaced["make_engine"] = lambda *_: engine
    evaluation_section = {**config.get("evaluation", {}), "test_best": 0, "check_models": False}
    with ExitStack() as stack:
        for name, value in replaced.items():
            stack.enter_context(patch.object(phases, name, value))
        return launch.search({**config, "evaluation": evaluation_section}, directory, **options)

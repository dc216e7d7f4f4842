"""What a search gets from Python besides its config: callbacks, an earlier run to learn from, architectures to try."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from nas_meta.config.resolved import ResolvedConfig
from nas_meta.controller.sessions import Session, new_session, next_session
from nas_meta.core import plugins
from nas_meta.core.guard import type_name
from nas_meta.errors import ConfigError, one_line
from nas_meta.journal.records import Trial
from nas_meta.journal.run import Run, load_run
from nas_meta.space.architecture import Architecture
from nas_meta.space.search_space import SearchSpace
from nas_meta.strategy.given import with_given
from nas_meta.strategy.protocol import Strategy

Callback = Callable[[Any, Trial], Any]


@dataclass(frozen=True)
class Extras:
    """What a search gets from Python besides its config.

    Attributes:
        callbacks: Functions that are called with the run and the trial after every trial.
        warm_start: An earlier run whose results the strategy learns from before its first proposal; None without one.
        enqueue: Architectures that are tried first.
        hooks: Hooks by their key in the config; :func:`nas_meta.controller.launch.search` loads them.
    """

    callbacks: Sequence[Callback] = ()
    warm_start: Run | None = None
    enqueue: Sequence[Mapping[str, Any] | Architecture] = ()
    hooks: Mapping[str, Any] = field(default_factory=dict)


def checked_extras(
    callbacks: Sequence[Callback],
    warm_start: Run | str | Path | None,
    enqueue: Sequence[Mapping[str, Any] | Architecture],
) -> Extras:
    """Check the types of what the user gave, before data are read.

    Args:
        callbacks: Functions of the run and a trial.
        warm_start: A run, or its directory.
        enqueue: Architectures as mappings from choices to values.

    Returns:
        The extras.

    Raises:
        ConfigError: One of them has another type.
        RunError: The directory of ``warm_start`` is not a run.
    """
    if isinstance(callbacks, (str, Mapping)) or not isinstance(callbacks, Sequence):
        raise ConfigError(f"callbacks is {type_name(callbacks)}; expected a list of functions")
    for position, callback in enumerate(callbacks):
        if not callable(callback):
            raise ConfigError(
                f"callbacks[{position}] is {type_name(callback)}; expected a function of a run and a trial"
            )
    if isinstance(warm_start, (str, Path)):
        warm_start = load_run(warm_start)
    if warm_start is not None and not isinstance(warm_start, Run):
        raise ConfigError(f"warm_start is {type_name(warm_start)}; expected a run, or the path of its directory")
    if isinstance(enqueue, (str, Mapping)) or not isinstance(enqueue, Sequence):
        raise ConfigError(f"enqueue is {type_name(enqueue)}; expected a list of architectures")
    for position, given in enumerate(enqueue):
        if not isinstance(given, (Mapping, Architecture)):
            raise ConfigError(f"enqueue[{position}] is {type_name(given)}; expected a dict from choices to values")
    return Extras(tuple(callbacks), warm_start, tuple(enqueue))


def session_of(
    extras: Extras, resolved: ResolvedConfig, inline: bool, space: SearchSpace, resumed: bool, directory: Path
) -> Session:
    """Return the session of a search, with the architectures and results that it begins with.

    Args:
        extras: What the user gave.
        resolved: The config of the search.
        inline: Whether trials run in this process.
        space: The prepared space of the search.
        resumed: Whether the search is resumed: it begins with what its journal has, whatever the user gives.
        directory: Run directory.

    Returns:
        The session, which the journal keeps.

    Raises:
        ConfigError: An architecture is not in the space, the earlier run searched another space, or the strategy
            cannot learn from results of others.
    """
    if resumed:
        return next_session(directory)
    enqueued = []
    for position, given in enumerate(extras.enqueue):
        try:
            values = given.values if isinstance(given, Architecture) else given
            enqueued.append(dict(space.architecture(values).values))
        except ConfigError as error:
            raise ConfigError(f"enqueue[{position}]: {error}") from error
    known = [] if extras.warm_start is None else _known(extras.warm_start, resolved, space)
    return replace(new_session(resolved.sections, inline), enqueued=enqueued, known=known)


def begun_with(session: Session, strategy: Strategy) -> Strategy:
    """Return a strategy that begins with the architectures and results of a session.

    Args:
        session: The session.
        strategy: The strategy of the search.
    """
    return with_given(strategy, session.enqueued, session.known)


def _known(run: Run, resolved: ResolvedConfig, space: SearchSpace) -> list[tuple[dict[str, Any], dict[str, float]]]:
    """Return the completed trials of an earlier run of the same space, as pairs of architecture and metrics."""
    name, strategy = resolved.sections.strategy.name, cast(type[Strategy], resolved.plugin("strategy"))
    if not strategy.learns:
        raise ConfigError(
            f"warm_start: the strategy '{name}' learns only from its own proposals; "
            f"expected one of {', '.join(learning_strategies())}"
        )
    before, now = run.recorded.get("space"), resolved.document["space"]
    if before != now:
        before = before if isinstance(before, Mapping) else {}
        key = next((k for k in dict.fromkeys([*before, *now]) if before.get(k) != now.get(k)), "name")
        raise ConfigError(
            f"warm_start: {run.directory} searched another space: space.{key} is {_shown(before.get(key))} there and "
            f"{_shown(now.get(key))} here; expected a run of the same space"
        )
    known = []
    for trial in run.trials:
        if trial.status != "completed":
            continue
        try:
            architecture = space.canonical(trial.architecture)
        except ConfigError as error:
            raise ConfigError(
                f"warm_start: {run.directory} searched another space: trial {trial.id}: {error}"
            ) from error
        known.append((dict(architecture.values), dict(trial.metrics)))
    return known


def learning_strategies() -> list[str]:
    """Return the names of the installed strategies that learn from results of others."""
    rows: list[Any] = plugins.installed("strategies")
    return [row.name for row in rows if row.broken is None and plugins.load("strategies", row.name).learns]


def _shown(value: Any) -> str:
    return one_line(repr(value))

"""Resuming a run: the lock on its directory, the config that it resumes with, and the facts that replay depends on.

A session is one process of a search. A run directory may come from somebody else, so a resumed run does not execute
anything that only the run names: plugin files, hooks, Ray clusters and links out of the directory are refused.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field

from nas_meta.config.given_data import with_own_data
from nas_meta.config.plugin_trust import plugin_files, refuse_plugin_files
from nas_meta.config.provenance import Source, apply_overrides
from nas_meta.config.recipe import AUTO
from nas_meta.config.relative_limits import as_recorded
from nas_meta.config.resolved import ResolvedConfig, resolve
from nas_meta.config.sections import Config
from nas_meta.config.watching_section import HOOKS, WatchingSection
from nas_meta.controller.directory_lock import Taken, locked
from nas_meta.errors import ConfigError, PluginError, RunError
from nas_meta.journal.database import Journal
from nas_meta.journal.row_checks import recorded_config, validated
from nas_meta.space.architecture import Value

LOCK = "lock"
RELATIVE = "relative_limits"  # key of the journal: limits as the config gave them, by metric and bound
SECONDS = "seconds"  # key of the journal: the time of all sessions, without sleep of the machine
# Null or auto here leaves the value to the search, which records it.
DECIDED = (
    "strategy", "stopping", ("tasks", "ways"), ("tasks", "train_ways"), ("tasks", "train_queries"),
    ("compute", "precision"),
)  # fmt: skip
MAY_CHANGE = ("final_training", "budget", "resources", "watching", "run_dir")


@dataclass(frozen=True)
class Session:
    """What every process of a search has in common, and the time that the earlier ones took.

    The fields are keys of the journal and keep their names.

    Attributes:
        trials: The trial budget that the search started with; the strategy is built with it.
        workers: The number of workers that the search started with; the strategy is built with it.
        started: When the current process started, in seconds since the epoch.
        before: Seconds that earlier processes took in total.
        enqueued: Architectures that the search tries first.
        known: Results of an earlier run that the strategy learns from: pairs of an architecture and its metrics.
    """

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")  # for the session of a damaged journal

    trials: int
    workers: int
    started: float
    before: float = 0.0
    enqueued: Sequence[Mapping[str, Value]] = ()
    known: Sequence[tuple[Mapping[str, Value], Mapping[str, float]]] = ()


def new_session(config: Config, inline: bool) -> Session:
    """Return the session of a new search.

    Args:
        config: The config of the search.
        inline: Whether trials run in this process: there is one worker then.

    Returns:
        The session, started now.
    """
    return Session(config.budget.trials, 1 if inline else config.resources.workers, time.time())


def next_session(directory: Path) -> Session:
    """Return the session of a search that is resumed.

    Args:
        directory: The run directory.

    Returns:
        The session in the journal, started now, with the time of all earlier processes.

    Raises:
        RunError: The directory holds no run, or its journal is damaged.
    """
    journal = Journal.open(directory)
    try:
        session = Session(**validated(Session, journal.get("session"), "session"))
        seconds = validated(Annotated[float, Field(ge=0, le=1e12)] | None, journal.get(SECONDS), SECONDS)
        times = [t for trial in journal.trials() for t in (trial.started, trial.finished or trial.started)]
    finally:
        journal.close()
    if seconds is None:
        # An older version wrote the run. The last time that its process wrote stands in for the time when it ended.
        seconds = session.before + max([session.started, *times]) - session.started
    return replace(session, started=time.time(), before=seconds)


def open_journal(directory: Path, info: Mapping[str, Any], resumed: bool) -> Journal:
    """Open the journal of a search for writing.

    Args:
        directory: The run directory.
        info: What the search knows before its first trial, by the keys of the journal.
        resumed: Whether the directory holds the journal of the run already.

    Returns:
        The journal, with ``info`` in it.
    """
    if not resumed:
        return Journal.create(directory, **info)
    journal = Journal.append(directory)
    for key, value in info.items():
        journal.set(key, value)
    return journal


def config_to_resume(
    directory: Path, given: ResolvedConfig | None = None, overrides: Sequence[str] = (), allow_plugins: bool = False
) -> ResolvedConfig:
    """Return the config that a run is resumed with: its own, with the sections in :data:`MAY_CHANGE` replaced.

    Args:
        directory: The run directory.
        given: The config that the user gives; by default that of the run with ``overrides``.
        overrides: ``section.key=value``, each of a section in :data:`MAY_CHANGE`; not used if ``given`` is set.
        allow_plugins: Whether the code of plugin files and hooks that only the run names may be run.

    Returns:
        The resolved config.

    Raises:
        ConfigError: Another section differs, or the run names a Ray cluster that ``overrides`` do not.
        PluginError: The run names a plugin file that ``given`` does not, or a hook, and that is not allowed.
        RunError: The directory holds no run.
    """
    journal = Journal.open(directory)
    try:
        document = with_own_data(recorded_config(journal.get("config")), directory)
        if not allow_plugins:
            refuse_plugin_files(document, directory, plugin_files(given.given) if given else ())
        recorded = resolve(document, Source(str(directory)), recorded=True)
        relative = validated(dict[str, str], journal.get(RELATIVE, {}), RELATIVE)
    finally:
        journal.close()
    from_file = given is not None
    if given is None:
        _refuse_cluster(recorded.sections.resources.address, directory, overrides)
        if not allow_plugins:
            refuse_hooks(recorded.sections.watching, directory, overrides)
        given = resolve(apply_overrides(recorded.document, overrides), Source("--set"), recorded=True)
    wanted = as_recorded(given.document, recorded.document, relative)
    differences = list(_differences(recorded.document, wanted, given.implied))
    if differences:
        raise ConfigError(
            f"{directory} cannot be resumed with a different config: {'; '.join(differences)}; "
            "expected changes only in final_training, budget, resources and watching, or another run directory for a "
            "new run"
        )
    changed = {name: given.document[name] for name in MAY_CHANGE}
    if from_file and changed["resources"]["gpus_per_trial"] is None:  # was decided when the run began
        changed["resources"] = {**changed["resources"], "gpus_per_trial": recorded.sections.resources.gpus_per_trial}
    return resolve({**recorded.document, **changed}, Source(str(directory)), recorded=True)


def _refuse_cluster(address: str | None, directory: Path, overrides: Sequence[str]) -> None:
    """Raise ConfigError if only the run names a Ray cluster: a driver executes what its cluster sends."""
    if address not in (None, "auto") and not any(o.startswith("resources.address=") for o in overrides):
        raise ConfigError(
            f"{directory} names the Ray cluster {address}, which would be trusted; "
            f"expected --set resources.address={address} if it is your cluster"
        )


def refuse_hooks(section: WatchingSection, directory: Path, overrides: Sequence[str]) -> None:
    """Refuse the hooks of a run that the user has not named.

    Args:
        section: The section ``watching`` of the run's config.
        directory: The run directory, for the message.
        overrides: ``section.key=value`` of the user; a hook that these set is allowed.

    Raises:
        PluginError: The run names a hook, and the user does not.
    """
    overridden = {override.partition("=")[0] for override in overrides}
    for key in HOOKS:
        hook = getattr(section, key)
        if hook is not None and overridden.isdisjoint({"watching", f"watching.{key}"}):
            raise PluginError(
                f"{directory} names the hook {hook!r} as watching.{key}, which would be run; "
                f"expected --allow-plugins if you trust it, or --set watching.{key}=null"
            )


def _refuse_links(directory: Path) -> None:
    """Raise RunError if a run directory holds a link that leads out of it, or a pipe or device.

    A run from somebody else could otherwise make the search overwrite files of the user. Links that stay inside, such
    as those of W&B, are fine.
    """
    root = Path(os.path.realpath(directory))
    for folder, folders, files in os.walk(directory):
        for name in [*folders, *files]:
            path = Path(folder) / name
            leaves = path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(root)
            if leaves or not (path.is_file() or path.is_dir() or not path.exists()):
                raise RunError(
                    f"{path} is a link out of the run directory, or not a regular file; "
                    "expected a run directory with only regular files and folders"
                )


def _differences(
    recorded: Mapping[str, Any], given: Mapping[str, Any], implied: Collection[tuple[str, ...]],
    path: tuple[str, ...] = (),
) -> Iterator[str]:  # fmt: skip
    """Yield one sentence for each key whose value differs, without those that may change or that only we filled in."""
    keys = dict.fromkeys([*recorded, *given])
    for plugin in ("name", "source"):
        if plugin in recorded and plugin in given and recorded[plugin] != given[plugin]:
            keys = {plugin: None}  # the options of two different plugins cannot be compared
    for key in keys:
        if not path and key in MAY_CHANGE:
            continue
        before, now = recorded.get(key), given.get(key)
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            yield from _differences(before, now, implied, (*path, key))
        elif (*path, key) in implied:
            continue
        # Options that were left out became numbers when the search began; leaving them out again is no change.
        elif before != now and not (now in (None, AUTO) and path and (path[0] in DECIDED or (*path, key) in DECIDED)):
            yield f"{'.'.join((*path, str(key)))} is {now!r}, but the run began with {before!r}"


@contextmanager
def run_lock(directory: Path) -> Iterator[None]:
    """Lock a run directory, so that no other search uses it.

    Args:
        directory: The run directory.

    Yields:
        Nothing; the lock is released at the end.

    Raises:
        RunError: Another search uses the directory, it cannot be written, or a link leads out of it.
    """
    _refuse_links(directory)
    with ExitStack() as lock:
        try:
            lock.enter_context(locked(directory / LOCK))
        except Taken:
            raise RunError(f"another search is running in {directory}; expected a separate run directory") from None
        except OSError as error:
            raise RunError(f"{directory} cannot be written: {error.strerror}") from error
        yield

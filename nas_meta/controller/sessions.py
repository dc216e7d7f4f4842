"""Going on with a run: who may, with which config, and what its strategy was told when the search began."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from nas_meta.config.plugin_trust import plugin_files, refuse_plugin_files
from nas_meta.config.provenance import Source, apply_overrides
from nas_meta.config.resolved import ResolvedConfig, resolve
from nas_meta.config.sections import HOOKS, Config, WatchingSection
from nas_meta.errors import ConfigError, PluginError, RunError
from nas_meta.journal.database import Journal
from nas_meta.journal.row_checks import validated

LOCK = "lock"
MAY_CHANGE = ("budget", "resources", "watching", "run_dir")


@dataclass(frozen=True)
class Session:
    """What stays the same however often a search is resumed, and the time that it took so far.

    Attributes:
        trials, workers: those that the search began with: its strategy follows from them.
        started: when the last process began, in seconds since the epoch.
        before: seconds that the processes before it took.
    """

    trials: int
    workers: int
    started: float
    before: float = 0.0


def new_session(config: Config, inline: bool) -> Session:
    """The session of a new search."""
    return Session(config.budget.trials, 1 if inline else config.resources.workers, time.time())


def next_session(directory: Path) -> Session:
    """The session of a search that goes on."""
    journal = Journal.open(directory)
    try:
        session = Session(**validated(Session, journal.get("session"), "session"))
        times = [t for trial in journal.trials() for t in (trial.started, trial.finished or trial.started)]
    finally:
        journal.close()
    # A process that was killed could not say when: it lived as long as the last thing that it wrote.
    took = max([session.started, *times]) - session.started
    return replace(session, started=time.time(), before=session.before + took)


def config_to_resume(
    directory: Path, given: ResolvedConfig | None = None, overrides: Sequence[str] = (), allow_plugins: bool = False
) -> ResolvedConfig:
    """The config that a run goes on with: its own, but for what :data:`MAY_CHANGE`, from ``given`` or ``overrides``.

    Raises:
        ConfigError: something else differs; the sentence shows it.
        PluginError: the run names a plugin file that ``given`` does not, or a hook, and that is not allowed.
        RunError: the directory holds no run.
    """
    journal = Journal.open(directory)
    try:
        document = validated(dict[str, Any], journal.get("config", {}), "config")
        if not allow_plugins:
            refuse_plugin_files(document, directory, plugin_files(given.given) if given else ())
        own = resolve(document, Source(str(directory)))
    finally:
        journal.close()
    from_file = given is not None
    if given is None:
        _refuse_cluster(own.sections.resources.address, directory, overrides)
        if not allow_plugins:
            refuse_hooks(own.sections.watching, directory, overrides)
        given = resolve(apply_overrides(own.document, overrides), Source("--set"))
    differences = list(_differences(own.document, given.document))
    if differences:
        raise ConfigError(
            f"{directory} cannot go on with another config: {'; '.join(differences)}; "
            "expected the same but for budget, resources and watching, or another --run-dir"
        )
    changed = {name: given.document[name] for name in MAY_CHANGE}
    if from_file and changed["resources"]["gpus_per_trial"] is None:  # was decided when the run began
        changed["resources"] = {**changed["resources"], "gpus_per_trial": own.sections.resources.gpus_per_trial}
    return resolve({**own.document, **changed}, Source(str(directory)))


def _refuse_cluster(address: str | None, directory: Path, overrides: Sequence[str]) -> None:
    """A cluster and its driver execute what the other sends: one that only the run names is not joined."""
    if address not in (None, "auto") and not any(o.startswith("resources.address=") for o in overrides):
        raise ConfigError(
            f"{directory} names the Ray cluster {address}, which would be trusted; "
            f"expected --set resources.address={address} if it is yours"
        )


def refuse_hooks(section: WatchingSection, directory: Path, overrides: Sequence[str]) -> None:
    """Raises PluginError where a run names a hook, which would be run, and the user did not."""
    said = {override.partition("=")[0] for override in overrides}
    for key in HOOKS:
        hook = getattr(section, key)
        if hook is not None and said.isdisjoint({"watching", f"watching.{key}"}):
            raise PluginError(
                f"{directory} names the hook {hook!r} as watching.{key}, which would be run; "
                f"expected --allow-plugins if you trust it, or --set watching.{key}=null"
            )


def _refuse_links(directory: Path) -> None:
    """Raises RunError where writing into a run would write somewhere else: in one from somebody else it may.

    Links that stay within it, such as W&B's own, do not.
    """
    own = directory.resolve()
    for folder, folders, files in os.walk(directory):
        for name in [*folders, *files]:
            path = Path(folder) / name
            leaves = path.is_symlink() and not path.resolve().is_relative_to(own)
            if leaves or not (path.is_file() or path.is_dir() or not path.exists()):
                raise RunError(
                    f"{path} is a link or no file; a search goes on only where its run holds files of its own"
                )


def _differences(own: Mapping[str, Any], given: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[str]:
    keys = dict.fromkeys([*own, *given])
    for plugin in ("name", "source"):
        if plugin in own and plugin in given and own[plugin] != given[plugin]:
            keys = {plugin: None}  # the options of another one say nothing
    for key in keys:
        if not path and key in MAY_CHANGE:
            continue
        before, now = own.get(key), given.get(key)
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            yield from _differences(before, now, (*path, key))
        # What was left open became a number when the search began, and is still left open.
        elif before != now and not (now is None and path and path[0] in ("strategy", "stopping")):
            yield f"{'.'.join((*path, str(key)))} is {now!r}, but the run began with {before!r}"


@contextmanager
def run_lock(directory: Path) -> Iterator[None]:
    """Keeps other searches out of a run directory.

    Raises:
        RunError: another one is at work there, or the directory cannot be written.
    """
    _refuse_links(directory)
    lock = FileLock(directory / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RunError(f"another search is at work in {directory}; expected a directory of its own") from None
    except OSError as error:
        raise RunError(f"{directory} cannot be written: {error.strerror}") from error
    try:
        yield
    finally:
        lock.release()

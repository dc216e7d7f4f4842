"""Starting and resuming a search: what :func:`nas_meta.search` and the command line call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from nas_meta.config.decisions import with_precision
from nas_meta.config.given_data import in_folder
from nas_meta.config.gpu_sharing import with_shared_gpus
from nas_meta.config.resolved import ResolvedConfig
from nas_meta.controller.changes import refuse_changed_models
from nas_meta.controller.extras import Extras, checked_extras
from nas_meta.controller.given import config_and_data, keep_data, refuse_other_data
from nas_meta.controller.phases import SearchRun
from nas_meta.controller.run_folder import run_folder
from nas_meta.controller.sessions import config_to_resume
from nas_meta.controller.supernet_job import check_workers
from nas_meta.controller.traceback_log import logged_traceback
from nas_meta.core.signals import interruptible
from nas_meta.execution.engine import EngineDied
from nas_meta.journal.database import Journal
from nas_meta.journal.records import Trial
from nas_meta.journal.run import Run as RecordedRun
from nas_meta.journal.status import Status, Watcher
from nas_meta.outputs.run import Run
from nas_meta.space.architecture import Architecture


def search(
    config: ResolvedConfig | Mapping[str, Any] | str | Path,
    run_dir: str | Path | None = None,
    inline: bool = False,
    watch: Watcher | None = None,
    resume: bool = False,
    *,
    progress: bool = False,
    callbacks: Sequence[Callable[[Run, Trial], Any]] = (),
    warm_start: RecordedRun | str | Path | None = None,
    enqueue: Sequence[Mapping[str, Any] | Architecture] = (),
    data: Any = None,
) -> Run:
    """Run a search.

    Without ``watch`` and ``progress``, a line per trial is logged by the logger ``nas_meta`` at the level INFO; it is
    printed unless logging is configured.

    Args:
        config: Path of a YAML file, the same as plain data, or what :func:`nas_meta.config.read_config` returns.
        run_dir: A new or empty directory; by default the config's, or a new one under ``runs/``.
        inline: Run trials in this process, without Ray.
        watch: Called with the status after every event.
        resume: Resume the run that the directory holds, if it holds one; with the callbacks, but with the earlier run
            and the enqueued architectures that it began with.
        progress: Show the progress bar of ``nas-meta search``; in a notebook, an output that is updated.
        callbacks: Functions that are called with the run and the trial after every trial. One that raises is logged
            and does not end the search.
        warm_start: An earlier run of the same space, or its directory: the strategy learns from its completed trials
            before its first proposal.
        enqueue: Architectures, as dicts from choices to values, that are tried first.
        data: Labelled texts in place of the config's task source: ``{"texts": [...], "labels": [...]}``, pairs (text,
            label), a data frame of pandas, a dataset of Hugging Face datasets, or a dict of these by split.
            ``tasks.text`` and ``tasks.label`` name columns that are called otherwise. The run keeps the data in its
            directory, so resuming needs none; other data than it began with are refused.

    Returns:
        The finished run.

    Raises:
        ConfigError: The config, its data or its models cannot be used, or differ from those of the run to resume.
        RunError: The directory holds a run already, is in use by another search, or cannot be written.
        Interrupted: By SIGINT; finished trials are in the journal.
    """
    resolved, given = config_and_data(config, data, run_dir, resume)
    directory = run_dir or resolved.sections.run_dir
    extras = checked_extras(callbacks, warm_start, enqueue)
    if resume and directory is not None and Journal.exists(Path(directory)):
        if given is not None:
            resolved = in_folder(resolved, directory)
            refuse_other_data(resolved, Path(directory), given)
        resumed = config_to_resume(Path(directory), resolved)
        return _run(resumed, Path(directory), inline, watch, True, progress, extras, given)
    return _run(resolved, directory, inline, watch, False, progress, extras, given)


def resume(
    run_dir: str | Path,
    overrides: Sequence[str] = (),
    inline: bool = False,
    watch: Watcher | None = None,
    allow_plugins: bool = False,
    *,
    progress: bool = False,
    callbacks: Sequence[Callable[[Run, Trial], Any]] = (),
) -> Run:
    """Resume a search where its journal ends, with its own config.

    Args:
        run_dir: The run directory.
        overrides: ``section.key=value`` of the sections ``final_training``, ``budget``, ``resources`` and ``watching``.
        inline: Run trials in this process, without Ray.
        watch: Called with the status after every event.
        allow_plugins: Whether the code of plugin files and hooks that the run names may be run.
        progress: Show the progress bar of ``nas-meta search``.
        callbacks: Functions that are called with the run and the trial after every trial.

    Returns:
        The finished run.

    Raises:
        ConfigError: An override changes another section, or data or models differ from those that the run began with.
        PluginError: The run names a plugin file or a hook, and ``allow_plugins`` is not set.
        RunError: The directory holds no run, is in use by another search, or cannot be written.
        Interrupted: By SIGINT; finished trials are in the journal.
    """
    directory, extras = Path(run_dir), checked_extras(callbacks, None, ())
    resolved = config_to_resume(directory, None, overrides, allow_plugins)
    return _run(resolved, directory, inline, watch, True, progress, extras)


def _run(
    resolved: ResolvedConfig, directory: str | Path | None, inline: bool, watch: Watcher | None, resumed: bool,
    progress: bool, extras: Extras, given: bytes | None = None,
) -> Run:  # fmt: skip
    from nas_meta.outputs.monitors.callbacks import visible_lines
    from nas_meta.outputs.monitors.from_config import check_monitors
    from nas_meta.outputs.report.live import progress_display

    extras = replace(extras, hooks=check_monitors(resolved, inline))
    resolved = with_precision(with_shared_gpus(resolved, inline))
    if not resumed:  # before data are read and Ray starts; a resumed search may have trained its supernet already
        needed = getattr(resolved.options["strategy"], "workers", 1)
        check_workers(needed, 1 if inline else resolved.sections.resources.workers)
    with ExitStack() as ends:
        if progress:
            watch = _both(ends.enter_context(progress_display()), watch)
        elif watch is None:
            ends.enter_context(visible_lines())
        folder = ends.enter_context(run_folder(directory, resumed))
        stop = ends.enter_context(interruptible())
        ends.enter_context(logged_traceback(folder))
        if given is not None:
            resolved = in_folder(resolved, folder)
            keep_data(folder, given, resumed)
        if resumed:
            refuse_changed_models(resolved, folder)
        try:
            SearchRun(resolved, folder, inline, watch or (lambda status: None), stop, resumed, extras).run()
        except EngineDied as error:
            raise EngineDied(
                f"{error}; finished trials are kept, and 'nas-meta resume {folder}' resumes the search"
            ) from error
    return Run(folder, allow_plugins=True)


def _both(first: Watcher, second: Watcher | None) -> Watcher:
    """Return a watcher that calls two others; the first one alone if there is no second."""
    if second is None:
        return first
    other = second

    def watch(status: Status) -> None:
        first(status)
        other(status)

    return watch

"""Starting and resuming a search: what :func:`nas_meta.search` and the command line call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nas_meta.config.gpu_sharing import with_shared_gpus
from nas_meta.config.resolved import ResolvedConfig, read_config, resolve
from nas_meta.controller.changes import refuse_changed_models
from nas_meta.controller.phases import SearchRun
from nas_meta.controller.run_folder import run_folder
from nas_meta.controller.sessions import config_to_resume
from nas_meta.controller.supernet_job import check_workers
from nas_meta.controller.traceback_log import logged_traceback
from nas_meta.core.guard import type_name
from nas_meta.core.signals import interruptible
from nas_meta.errors import ConfigError
from nas_meta.execution.engine import EngineDied
from nas_meta.journal.database import Journal
from nas_meta.journal.run import Run
from nas_meta.journal.status import Watcher


def search(
    config: ResolvedConfig | Mapping[str, Any] | str | Path,
    run_dir: str | Path | None = None,
    inline: bool = False,
    watch: Watcher | None = None,
    resume: bool = False,
) -> Run:
    """Run a search.

    Args:
        config: Path of a YAML file, the same as plain data, or what :func:`nas_meta.config.read_config` returns.
        run_dir: A new or empty directory; by default the config's, or a new one under ``runs/``.
        inline: Run trials in this process, without Ray.
        watch: Called with the status after every event.
        resume: Resume the run that the directory holds, if it holds one.

    Returns:
        The finished run.

    Raises:
        ConfigError: The config, its data or its models cannot be used, or differ from those of the run to resume.
        RunError: The directory holds a run already, is in use by another search, or cannot be written.
        Interrupted: By SIGINT; finished trials are in the journal.
    """
    if isinstance(config, (str, Path)):
        resolved = read_config(config)
    elif isinstance(config, (ResolvedConfig, Mapping)):
        resolved = config if isinstance(config, ResolvedConfig) else resolve(config)
    else:
        raise ConfigError(f"config is {type_name(config)}; expected the path of a YAML file, or sections as a dict")
    directory = run_dir or resolved.sections.run_dir
    if resume and directory is not None and Journal.exists(Path(directory)):
        return _run(config_to_resume(Path(directory), resolved), Path(directory), inline, watch, True)
    return _run(resolved, directory, inline, watch, False)


def resume(
    run_dir: str | Path,
    overrides: Sequence[str] = (),
    inline: bool = False,
    watch: Watcher | None = None,
    allow_plugins: bool = False,
) -> Run:
    """Resume a search where its journal ends, with its own config.

    Args:
        run_dir: The run directory.
        overrides: ``section.key=value`` of the sections ``budget``, ``resources`` and ``watching``.
        inline: Run trials in this process, without Ray.
        watch: Called with the status after every event.
        allow_plugins: Whether the code of plugin files and hooks that the run names may be run.

    Returns:
        The finished run.

    Raises:
        ConfigError: An override changes another section, or data or models differ from those that the run began with.
        PluginError: The run names a plugin file or a hook, and ``allow_plugins`` is not set.
        RunError: The directory holds no run, is in use by another search, or cannot be written.
        Interrupted: By SIGINT; finished trials are in the journal.
    """
    directory = Path(run_dir)
    return _run(config_to_resume(directory, None, overrides, allow_plugins), directory, inline, watch, True)


def _run(
    resolved: ResolvedConfig, directory: str | Path | None, inline: bool, watch: Watcher | None, resumed: bool
) -> Run:
    from nas_meta.outputs.monitors.from_config import check_monitors

    hooks = check_monitors(resolved, inline)
    resolved = with_shared_gpus(resolved, inline)
    if not resumed:  # before data are read and Ray starts; a resumed search may have trained its supernet already
        needed = getattr(resolved.options["strategy"], "workers", 1)
        check_workers(needed, 1 if inline else resolved.sections.resources.workers)
    with run_folder(directory, resumed) as folder, interruptible() as stop, logged_traceback(folder):
        if resumed:
            refuse_changed_models(resolved, folder)
        try:
            SearchRun(resolved, folder, inline, watch or (lambda status: None), stop, resumed, hooks).run()
        except EngineDied as error:
            raise EngineDied(
                f"{error}; finished trials are kept, and 'nas-meta resume {folder}' resumes the search"
            ) from error
    return Run(folder, allow_plugins=True)

"""Create the monitors of a search from the section ``watching`` of its config."""

from __future__ import annotations

import importlib.util
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nas_meta.config.resolved import ResolvedConfig
from nas_meta.config.watching_section import HOOKS
from nas_meta.errors import ConfigError
from nas_meta.journal.records import Trial
from nas_meta.outputs.monitors.callbacks import Callbacks, TrialLines
from nas_meta.outputs.monitors.hooks import Hook, Hooks, load_hook
from nas_meta.outputs.monitors.logs import TrialLogs
from nas_meta.outputs.monitors.monitor import Monitors
from nas_meta.outputs.monitors.report_file import ReportFile
from nas_meta.outputs.monitors.tensorboard import TensorBoardLog
from nas_meta.space.search_space import SearchSpace

# Modules that Ray's exporter imports, from ray[default].
EXPORTER = ("aiohttp", "opencensus", "opentelemetry.exporter.prometheus", "prometheus_client")


def check_monitors(resolved: ResolvedConfig, inline: bool) -> dict[str, Hook]:
    """Check that the monitors of a config can be created, and load its hooks.

    Loading a hook that is a Python function executes its file or module.

    Args:
        resolved: The config.
        inline: Whether the search runs without Ray.

    Returns:
        Hooks by their key in the config.

    Raises:
        ConfigError: A hook does not exist, a package is not installed, or the port is in use; with the line of the
            config.
    """
    section, hooks = resolved.sections.watching, {}
    for key in HOOKS:
        target = getattr(section, key)
        if target is not None:
            try:
                hooks[key] = load_hook(target, section.hook_seconds)
            except ConfigError as error:
                raise ConfigError(f"{_where(resolved, key)}: {error}") from error
    if section.prometheus is not None:
        _check_prometheus(resolved, section.prometheus, inline)
    if section.wandb is not None and not _installed("wandb"):
        raise ConfigError(
            f"{_where(resolved, 'wandb')}: Weights & Biases is not installed; expected pip install 'nas-meta[wandb]'"
        )
    if section.mlflow is not None and not _installed("mlflow"):
        raise ConfigError(
            f"{_where(resolved, 'mlflow')}: MLflow is not installed; expected pip install 'nas-meta[mlflow]'"
        )
    return hooks


def _check_prometheus(resolved: ResolvedConfig, port: int, inline: bool) -> None:
    """Raise ConfigError if Ray cannot export metrics on the port."""
    where = _where(resolved, "prometheus")
    if inline:
        raise ConfigError(f"{where} needs Ray's exporter; expected a search without --inline")
    if not all(map(_installed, EXPORTER)):
        raise ConfigError(f"{where}: Ray's exporter is not installed; expected pip install 'nas-meta[prometheus]'")
    if resolved.sections.resources.address is None:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a recently closed port is free
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                raise ConfigError(f"{where}: port {port} is not available: {error.strerror}") from error


def _where(resolved: ResolvedConfig, key: str) -> str:
    """Return the line and the name of a key of the section."""
    return f"{resolved.source.at(('watching', key))}: watching.{key}"


def _installed(module: str) -> bool:
    """Return whether a module can be imported, without importing it."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # its parent package does not exist
        return False


def make_monitors(
    resolved: ResolvedConfig, hooks: Mapping[str, Hook], directory: Path, space: SearchSpace, document: dict[str, Any],
    created: float, callbacks: Sequence[Callable[[Any, Trial], Any]] = (),
) -> Monitors:  # fmt: skip
    """Create the monitors of a search.

    Args:
        resolved: The config.
        hooks: Hooks, as :func:`check_monitors` returns them.
        directory: Run directory.
        space: The prepared search space.
        document: The config as plain data, as W&B and MLflow show it.
        created: When the search was created, in seconds since the epoch.
        callbacks: Functions of the user, called with the run and the trial after every trial.

    Returns:
        A dispatcher for all monitors. Monitors that cannot be created are reported in its ``troubles``.
    """
    section, objectives = resolved.sections.watching, resolved.sections.optimised
    monitors = Monitors()
    monitors.add("logs", TrialLogs, directory)
    monitors.add("TensorBoard", TensorBoardLog, directory, space, objectives)
    if section.report:
        monitors.add("report", ReportFile, directory)  # before hooks, which may send it somewhere
    monitors.add("log lines", TrialLines)
    if callbacks:
        monitors.add("callbacks", Callbacks, callbacks, directory)
    if section.prometheus is not None:
        from nas_meta.outputs.monitors.prometheus import PrometheusMetrics

        monitors.add("Prometheus", PrometheusMetrics, directory.resolve().name, objectives[0])
    if section.wandb is not None:
        from nas_meta.outputs.monitors.wandb import WandbLog

        settings = section.wandb
        monitors.add("Weights & Biases", WandbLog, directory, created, document, settings.project, settings.mode)
    if section.mlflow is not None:
        from nas_meta.outputs.monitors.mlflow import MlflowLog

        server = section.mlflow
        monitors.add("MLflow", MlflowLog, directory, created, document, server.experiment, server.uri)
    if hooks:
        monitors.add("hooks", Hooks, hooks, directory, section.hook_seconds, monitors.trouble)
    return monitors

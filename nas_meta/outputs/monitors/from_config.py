"""From the section ``watching`` of a config to what watches a search."""

from __future__ import annotations

import importlib.util
import socket
from pathlib import Path
from typing import Any

from nas_meta.config.resolved import ResolvedConfig
from nas_meta.config.sections import HOOKS
from nas_meta.errors import ConfigError
from nas_meta.outputs.monitors.hooks import Hook, Hooks, load_hook
from nas_meta.outputs.monitors.logs import TrialLogs
from nas_meta.outputs.monitors.monitor import Monitors
from nas_meta.outputs.monitors.tensorboard import TensorBoardLog
from nas_meta.space.search_space import SearchSpace

EXPORTER = ("aiohttp", "opencensus", "opentelemetry.exporter.prometheus", "prometheus_client")  # of ray[default]


def check_monitors(resolved: ResolvedConfig, inline: bool) -> dict[str, Hook]:
    """The hooks of a config, loaded; executes the file or module of one that is a function.

    Raises:
        ConfigError: a hook, a package or a port is not there; with the line of the config.
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
    return hooks


def _check_prometheus(resolved: ResolvedConfig, port: int, inline: bool) -> None:
    where = _where(resolved, "prometheus")
    if inline:
        raise ConfigError(f"{where} goes through Ray's exporter; expected a search without --inline")
    if not all(map(_installed, EXPORTER)):
        raise ConfigError(f"{where}: Ray's exporter is not installed; expected pip install 'nas-meta[prometheus]'")
    if resolved.sections.resources.address is None:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one that was closed just now is free
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                raise ConfigError(f"{where}: the port {port} cannot be listened on: {error.strerror}") from error


def _where(resolved: ResolvedConfig, key: str) -> str:
    return f"{resolved.source.at(('watching', key))}: watching.{key}"


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # not even the package that it would be in
        return False


def make_monitors(
    resolved: ResolvedConfig, hooks: dict[str, Hook], directory: Path, space: SearchSpace, document: dict[str, Any],
    created: float,
) -> Monitors:  # fmt: skip
    """Everything that watches the search of a config."""
    section, objectives = resolved.sections.watching, resolved.sections.optimised
    observers = Monitors()
    observers.add("logs", TrialLogs, directory)
    observers.add("TensorBoard", TensorBoardLog, directory, space, objectives)
    if section.prometheus is not None:
        from nas_meta.outputs.monitors.prometheus import PrometheusMetrics

        observers.add("Prometheus", PrometheusMetrics, directory.resolve().name, objectives[0])
    if section.wandb is not None:
        from nas_meta.outputs.monitors.wandb import WandbLog

        settings = section.wandb
        observers.add("Weights & Biases", WandbLog, directory, created, document, settings.project, settings.mode)
    if hooks:
        observers.add("hooks", Hooks, hooks, directory, section.hook_seconds, observers.trouble)
    return observers

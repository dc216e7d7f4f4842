"""Decide in which precision the models of a search compute, where the config leaves it open."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from nas_meta.config.recipe import AUTO
from nas_meta.config.resolved import ResolvedConfig


def with_precision(resolved: ResolvedConfig) -> ResolvedConfig:
    """Return the config with ``fp32`` or ``bf16`` for ``compute.precision``.

    The decision becomes part of the run, so that all of its trials compute alike wherever it is resumed.

    Args:
        resolved: The config of a search, from :func:`nas_meta.config.gpu_sharing.with_shared_gpus`.

    Returns:
        The config.
    """
    if resolved.sections.compute.precision != AUTO:
        return resolved
    return decided(resolved, "compute", precision=resolved.sections.precision)


def with_recorded_precision(given: Mapping[str, Any], recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config with the precision that a run began with, if it leaves the precision open.

    Args:
        given: The whole config that the user gives, as plain data.
        recorded: That of the run.

    Returns:
        A copy of the given config.
    """
    if given["compute"]["precision"] != AUTO:
        return dict(given)
    return {**given, "compute": {**given["compute"], "precision": recorded["compute"]["precision"]}}


def decided(resolved: ResolvedConfig, section: str, **values: Any) -> ResolvedConfig:
    """Return a config with values for what it leaves open, as if the user had written them.

    Args:
        resolved: The config.
        section: Name of the section.
        **values: Valid values by key.

    Returns:
        A copy of the config.
    """
    changed = getattr(resolved.sections, section).model_copy(update=values)
    return dataclasses.replace(
        resolved,
        sections=resolved.sections.model_copy(update={section: changed}),
        given={**resolved.given, section: {**(resolved.given.get(section) or {}), **values}},
    )

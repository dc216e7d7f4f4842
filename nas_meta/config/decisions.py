"""What a search decides where its config leaves it open: the decision becomes part of the run.

A run therefore computes alike wherever it is resumed.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from nas_meta.config.resolved import ResolvedConfig


def with_precision(resolved: ResolvedConfig) -> ResolvedConfig:
    """Return the config with ``fp32`` or ``bf16`` for ``compute.precision``.

    Args:
        resolved: The config of a search, from :func:`nas_meta.config.gpu_sharing.with_shared_gpus`.

    Returns:
        The config.
    """
    precision = resolved.sections.precision
    if precision == resolved.sections.compute.precision:
        return resolved
    return decided(resolved, "compute", precision=precision)


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

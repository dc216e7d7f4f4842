"""Limits that are relative to a model, such as half of its FLOPs: turned into numbers before a search starts.

The journal keeps the numbers, so that a resumed search has the same limits, and the texts that they come from, so that
the config of the user still counts as the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from nas_meta.config.resolved import ResolvedConfig
from nas_meta.core.guard import first_line, plugin_call
from nas_meta.core.objectives import Share
from nas_meta.errors import ConfigError
from nas_meta.evaluation.metrics import metric_of
from nas_meta.space.search_space import SearchSpace
from nas_meta.space.wrappers import LimitedSpace, space_name
from nas_meta.tasks.examples import TEXT

BOUNDS = ("min", "max")


def number_limits(space: SearchSpace) -> list[str]:
    """Turn the relative limits of a space into numbers, in place.

    Args:
        space: The prepared search space.

    Returns:
        A sentence about every limit that was relative.

    Raises:
        ConfigError: The space has no untouched model, or a named model cannot be read.
        PluginError: The space raised another exception.
    """
    if not isinstance(space, LimitedSpace) or not any(limit.shares for limit in space.limits):
        return []
    key = next(f"objectives.{limit.metric}" for limit in space.limits if limit.shares)
    sizes = cache(lambda name: _sizes(space, name, key))
    relative, space.limits = space.limits, [limit.of_sizes(sizes) for limit in space.limits]
    return [
        _sentence(limit.metric, side, share, sizes(share.of)[limit.metric])
        for limit in relative
        for side, share in (("at least", limit.least), ("at most", limit.most))
        if isinstance(share, Share)
    ]


def with_numbers(resolved: ResolvedConfig, space: SearchSpace) -> ResolvedConfig:
    """Return a config with the numbers of its relative limits.

    Args:
        resolved: The config.
        space: Its prepared space, whose limits are numbers already.

    Returns:
        The config; the same one if no limit is relative.
    """
    if not isinstance(space, LimitedSpace) or not relative_limits(resolved):
        return resolved
    numbers = {limit.metric: {"min": limit.least, "max": limit.most} for limit in space.limits}
    objectives = [o.model_copy(update=numbers.get(o.metric, {})) for o in resolved.sections.objectives]
    return replace(
        resolved,
        sections=resolved.sections.model_copy(update={"objectives": objectives}),
        given={**resolved.given, "objectives": [o.model_dump(mode="json") for o in objectives]},
    )


def relative_limits(resolved: ResolvedConfig) -> dict[str, str]:
    """Return the relative limits of a config as the journal keeps them.

    Args:
        resolved: The config.

    Returns:
        Texts such as ``0.5x`` by metric and bound, such as ``flops.max``.
    """
    bounds = {f"{o.metric}.{b}": getattr(o, b) for o in resolved.sections.objectives for b in BOUNDS}
    return {name: value for name, value in bounds.items() if isinstance(value, str)}


def as_recorded(given: Mapping[str, Any], recorded: Mapping[str, Any], texts: Mapping[str, str]) -> dict[str, Any]:
    """Return a config with the recorded numbers of the relative limits that a run began with.

    Args:
        given: The whole config that the user gives, as plain data.
        recorded: That of the run, with numbers.
        texts: What :func:`relative_limits` returned when the run began.

    Returns:
        A copy of the given config; limits with another text keep it, and differ from those of the run.
    """
    numbers = {f"{o['metric']}.{b}": o.get(b) for o in recorded.get("objectives", []) for b in BOUNDS}

    def number(name: str, value: Any) -> Any:
        return numbers.get(name, value) if isinstance(value, str) and texts.get(name) == value else value

    objectives = [{**o, **{b: number(f"{o['metric']}.{b}", o[b]) for b in BOUNDS}} for o in given["objectives"]]
    return {**given, "objectives": objectives}


def _sizes(space: SearchSpace, name: str, key: str) -> dict[str, float]:
    """Return the parameters and the FLOPs of the untouched model, or of a named one."""
    from nas_meta.models.inputs import example_inputs
    from nas_meta.models.profiling import flops, parameters

    assert isinstance(space, LimitedSpace)
    if name:
        model = _named(space, name, key)
    else:
        with plugin_call(space, "reference"):
            model = space.reference()
    if model is None:
        raise ConfigError(
            f"{key} has a limit that is relative to the untouched model, but the search space {space_name(space)} has "
            "none; expected a number, or the name of a model after the factor, such as 0.5x starter:minilm"
        )
    device = next(model.parameters()).device
    inputs = example_inputs(space, 1, space.tokens, device)
    return {"params": float(parameters(model)), "flops": float(flops(model, inputs))}


def _named(space: SearchSpace, name: str, key: str) -> Any:
    """Return a named model of texts with random weights, which its size does not depend on."""
    import torch
    from transformers import AutoConfig, AutoModel

    from nas_meta.tasks.packaged_models import model_path

    if space.modality != TEXT:
        raise ConfigError(
            f"{key} has a limit that is relative to '{name}', a model of texts, but the search space "
            f"{space_name(space)} takes other inputs; expected a number"
        )
    path = model_path(name)
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
        with torch.random.fork_rng(devices=[]):
            return AutoModel.from_config(config)
    except Exception as error:  # a corrupt folder can make the libraries raise anything
        raise ConfigError(f"{key}: the model '{name}' cannot be read: {first_line(error, with_type=False)}") from error


def _sentence(metric: str, side: str, share: Share, size: float) -> str:
    """Return what a relative limit means in numbers."""
    row = metric_of(metric)
    unit = "" if row.unit or row.title == metric else f" {row.title}"
    limit, whole = (row.format({metric: value}) + unit for value in (share.factor * size, size))
    model = share.of or "the untouched model"
    return f"{metric} is limited to {side} {limit}, {share.factor:g} of the {whole} of {model}"

"""Decide on which device the trials of a search run, where the config leaves it open."""

from __future__ import annotations

import logging
import math
from pathlib import Path

from nas_meta.config.components import cpus_per_trial
from nas_meta.config.decisions import decided
from nas_meta.config.resolved import ResolvedConfig
from nas_meta.config.sections import Config

log = logging.getLogger(__name__)
DRIVERS = {"NVIDIA": Path("/dev/nvidiactl"), "AMD": Path("/dev/kfd")}  # files that drivers of GPUs make


def with_shared_gpus(resolved: ResolvedConfig, inline: bool) -> ResolvedConfig:
    """Return the config with a number for ``resources.gpus_per_trial``.

    Where the config leaves it open, the workers share all GPUs of this machine or, with ``resources.address``, of the
    cluster. The number becomes part of the run, which therefore stays on its device wherever it is resumed.

    Args:
        resolved: The config of a search.
        inline: Whether trials run in this process.

    Returns:
        The config, with ``gpus_per_trial: 0`` for trials on the CPU.

    Raises:
        NasMetaError: The cluster cannot be joined.
    """
    if resolved.sections.resources.gpus_per_trial is not None:
        return resolved
    return decided(resolved, "resources", gpus_per_trial=_shared_gpus(resolved.sections, inline))


def on_this_machine(resolved: ResolvedConfig) -> ResolvedConfig:
    """Return the config with the device of this machine, for what computes outside of a search.

    With ``compute.device: auto``, models of a search on GPUs can be used on a machine without one.

    Args:
        resolved: The config of a run or of an exported model.

    Returns:
        The config, with ``gpus_per_trial: 0`` if torch finds no GPU.

    Raises:
        ConfigError: ``compute.device`` is ``cuda``, but torch finds no GPU.
    """
    from nas_meta.models.compute import Compute, available_gpus

    if resolved.sections.compute.device != "auto":
        Compute(resolved.sections.compute.device).check()
        return resolved
    return resolved if available_gpus() else decided(resolved, "resources", gpus_per_trial=0.0)


def _shared_gpus(config: Config, inline: bool) -> float:
    if config.compute.device == "cpu":
        return 0.0
    from nas_meta.execution.gpu_shares import cluster_gpu_share, gpu_share

    section = config.resources
    if section.address and not inline:
        from nas_meta.execution.ray_placement import Resources

        resources = Resources(section.workers, cpus_per_trial(config, inline), address=section.address)
        return cluster_gpu_share(resources, required=config.compute.device == "cuda")
    from nas_meta.models.compute import available_gpus

    gpus = available_gpus()
    if not gpus:
        _warn_about_build()
    return gpu_share(gpus, section.workers)


def _warn_about_build() -> None:
    """Log a warning if this machine has a GPU that the installed build of torch cannot use."""
    import torch

    found = [maker for maker, file in DRIVERS.items() if file.exists()]
    if found and torch.version.cuda is None and torch.version.hip is None:
        log.warning(
            "this machine has a GPU (%s), but the installed torch computes on CPUs only, so trials run on the CPU; "
            "install a build of torch for this GPU, or set compute.device: cpu",
            found[0],
        )


def describe_device(config: Config, inline: bool) -> str:
    """Return where trials run, in words.

    Args:
        config: A config from :func:`with_shared_gpus`.
        inline: Whether trials run in this process.

    Returns:
        For example ``cpu``, ``cpu in bf16``, or ``cuda, 2 trials per GPU``.
    """
    gpus = config.resources.gpus_per_trial
    device = config.device + (" in bf16" if config.precision == "bf16" else "")
    if config.device == "cpu" or inline or not gpus:
        return device
    if gpus >= 1:
        return f"{device}, {gpus:g} GPU{'s' * (gpus > 1)} per trial"
    return f"{device}, {math.floor(1 / gpus)} trials per GPU"

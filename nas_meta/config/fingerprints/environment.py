"""What one process of a search runs with: plugin files, versions of packages, and the processor.

A change of these is no reason to refuse a run, but it explains why a number differs.
"""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from nas_meta.config.fingerprints.files import named_files
from nas_meta.config.sections import PLUGIN_SECTIONS
from nas_meta.core import plugins

if TYPE_CHECKING:
    from nas_meta.config.resolved import ResolvedConfig

PACKAGES = ("nas-meta", "torch", "transformers", "tokenizers", "peft", "numpy", "nni", "optuna")
PROPOSING = ("nni", "optuna")  # decide what is proposed, not what a trial measures
DATA_PACKAGES = {
    "icd10": "simple-icd-10-cm", "botocore": "botocore", "digits": "scikit-learn", "digit-captions": "scikit-learn",
    "image-folder": "pillow", "image-text": "pillow",
}  # fmt: skip
"""Packages that hold or decode the data, by the task source that reads them."""
IMAGE_DECODER = "pillow"


@dataclass(frozen=True)
class Environment:
    """What one process of a search runs with.

    The fields are keys of the journal and keep their names.

    Attributes:
        since: When the process prepared the search, in seconds since the epoch; its trials start later.
        files: Digests of plugin files by their path.
        versions: Versions of packages.
        processor: Descriptions by ``device``, ``CPU``, ``GPU`` and ``number of threads``.
    """

    since: float
    files: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    processor: Mapping[str, str] = field(default_factory=dict)


def environment_of(resolved: ResolvedConfig, cpus: float) -> Environment:
    """Return the environment of this process.

    Args:
        resolved: The config of the search.
        cpus: CPUs per trial; rounded down, they are its threads.

    Returns:
        The environment. On a cluster, the processor is that of the machine where the search was started.
    """
    return Environment(time.time(), named_files(resolved), _versions(resolved), _processor(resolved, cpus))


def environment_differences(before: Environment, now: Environment, same_trial: bool = False) -> Iterator[str]:
    """Yield a clause for each difference between two environments.

    Args:
        before: The environment of a run.
        now: The environment of this process.
        same_trial: Whether the number of one trial is explained: packages that only propose architectures do not
            matter then, but the processor does.

    Yields:
        Such as ``torch was 2.6.0 and is 2.13.0``.
    """
    for path in before.files:
        if path not in now.files:
            yield f"the plugin file {path} is gone"
        elif before.files[path] != now.files[path]:
            yield f"the plugin file {path} has changed"
    ignored = (*DATA_PACKAGES.values(), *(PROPOSING if same_trial else ()))
    for name, old in before.versions.items():
        new = now.versions.get(name, "not installed")
        if name not in ignored and old != new:
            yield f"{name} was {old} and is {new}"
    for name, old in before.processor.items() if same_trial else ():
        if name in now.processor and old != now.processor[name]:
            yield f"the {name} was {old} and is {now.processor[name]}"


def data_package_difference(resolved: ResolvedConfig, before: Environment, now: Environment) -> str | None:
    """Return in words how the package that holds the data, or nas-meta that reads them, differs.

    Args:
        resolved: The config of the search.
        before: The environment of a run.
        now: The environment of this process.

    Returns:
        Such as ``botocore was 1.44.5 and is 1.45.0``; None if the versions are equal.
    """
    for name in (DATA_PACKAGES.get(resolved.sections.tasks.source), "nas-meta"):
        old, new = before.versions.get(name or ""), now.versions.get(name or "")
        if old != new and old is not None:
            return f"{name} was {old} and is {new or 'not installed'}"
    return None


def _versions(resolved: ResolvedConfig) -> dict[str, str]:
    """Return the versions of the packages that decide numbers, those of installed plugins included."""
    names = [*PACKAGES, DATA_PACKAGES.get(resolved.sections.tasks.source, "nas-meta")]
    for section, (_, kind, key) in PLUGIN_SECTIONS.items():
        names.append(plugins.distribution_of(kind, getattr(getattr(resolved.sections, section), key)) or "nas-meta")
    versions = {}
    for name in dict.fromkeys(names):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def _processor(resolved: ResolvedConfig, cpus: float) -> dict[str, str]:
    """Describe the processor without starting CUDA, which would take GPU memory from the trials."""
    import torch

    found = {
        "device": resolved.sections.device,
        "CPU": f"{_model('/proc/cpuinfo', 'model name') or platform.machine()} with "
        f"{torch.backends.cpu.get_cpu_capability()}",
        "number of threads": str(max(1, math.floor(cpus))),
    }
    gpus = {_model(str(file), "Model") for file in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))}
    if found["device"] == "cuda" and any(gpus):
        found["GPU"] = ", ".join(sorted(filter(None, gpus)))
    return found


def _model(file: str, key: str) -> str | None:
    """Return the value of the first line ``key : value`` of a file of Linux; None where there is no such file."""
    try:
        with open(file, encoding="utf-8", errors="replace") as lines:
            return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), None)
    except OSError:
        return None

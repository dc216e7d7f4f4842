"""Share GPUs out among workers, where nobody has said how many each of them gets."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nas_meta.execution.ray_placement import Resources

log = logging.getLogger(__name__)
UNITS = 10_000  # Ray counts GPUs in ten-thousandths


def gpu_share(gpus: int, workers: int) -> float:
    """Return the number of GPUs per worker with which all workers find room on the GPUs.

    A worker uses one GPU at most, and never parts of two. The share is rounded down to what Ray can count.

    Example: 2 GPUs and 5 workers give 0.3333, three workers on one GPU and two on the other.

    Args:
        gpus: Number of GPUs.
        workers: Number of workers.

    Returns:
        1.0, a fraction of 1, or 0.0 if there are no GPUs.
    """
    return UNITS // math.ceil(workers / gpus) / UNITS if gpus else 0.0


def cluster_gpu_share(resources: Resources, required: bool) -> float:
    """Return the number of GPUs per worker on an existing cluster, whose nodes may have GPUs or not.

    Args:
        resources: Number and CPUs of the workers, and the address of the cluster.
        required: Whether workers need a GPU. If not, they get none where GPUs would leave some of them without room,
            such as on a cluster with many nodes of which one has a GPU.

    Returns:
        1.0, a fraction of 1, or 0.0 for no GPU.

    Raises:
        NasMetaError: The cluster cannot be joined.
    """
    import ray  # only here: searches in one process use this module without Ray

    from nas_meta.execution.ray_connection import connect
    from nas_meta.execution.ray_placement import Placement

    with connect(resources):
        share = gpu_share(int(ray.cluster_resources().get("GPU", 0)), resources.workers)
        with_gpus, without = (Placement(replace(resources, gpus=gpus)).room for gpus in (share, 0))
    if required or not share or with_gpus >= min(without, resources.workers):
        return share
    log.warning(
        "the nodes with GPUs have room for %g of %d workers, so trials run on the CPUs of all nodes; "
        "set resources.gpus_per_trial to use the GPUs",
        with_gpus,
        resources.workers,
    )
    return 0.0

"""Data-parallel training of one model by several workers, each on different episodes (``torch.distributed``).

Every worker has the whole model. Each step averages the gradients over all workers, so that n workers with meta-batches
of m episodes take the same step as one worker with n · m episodes, and their weights stay equal.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import psutil
import torch
import torch.distributed as dist
from torch import nn

Item, Result = TypeVar("Item"), TypeVar("Result")
TIMEOUT = timedelta(minutes=30)
"""How long workers wait for the slowest one before they fail."""


@dataclass(frozen=True)
class Rank:
    """One worker of a group and where the group meets.

    Attributes:
        number: Rank of the worker, from 0; worker 0 reports for the group.
        workers: Number of workers in the group.
        host: Address of the store through which the workers find each other.
        port: Port of that store.
        backend: ``gloo``, or ``nccl`` if every worker has its own GPU.
    """

    number: int
    workers: int
    host: str
    port: int
    backend: str = "gloo"


@contextmanager
def meeting_place(host: str, workers: int, backend: str) -> Iterator[Sequence[Rank]]:
    """Open a store on this machine through which workers find each other; close it on exit.

    Args:
        host: An address of this machine. The store listens on this address only.
        workers: Number of workers.
        backend: ``gloo`` or ``nccl``, for the collective operations of the workers.

    Yields:
        The rank of each worker, to be passed to its :func:`process_group`.
    """
    listener = socket.create_server((host, 0))
    port = listener.getsockname()[1]
    # A store that opens its own socket listens on every network interface.
    store = dist.TCPStore(
        host, port, workers + 1, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach()
    )
    try:
        yield [Rank(number, workers, host, port, backend) for number in range(workers)]
    finally:
        del store


@contextmanager
def process_group(rank: Rank | None) -> Iterator[None]:
    """Join a group of workers; leave it on exit.

    Args:
        rank: This worker's rank from :func:`meeting_place`; None works alone.
    """
    if rank is None:
        yield
        return
    name = interface_to(rank.host, rank.port)
    os.environ.update({"GLOO_SOCKET_IFNAME": name, "NCCL_SOCKET_IFNAME": name})
    store = dist.TCPStore(rank.host, rank.port, is_master=False, timeout=TIMEOUT)
    dist.init_process_group(rank.backend, store=store, rank=rank.number, world_size=rank.workers, timeout=TIMEOUT)
    try:
        yield
    finally:
        dist.destroy_process_group()


def interface_to(host: str, port: int) -> str:
    """Return the name of the network interface through which this machine reaches another one.

    Workers use this interface only, so that they do not listen on any other.

    Args:
        host: Address of the other machine.
        port: Any port of it; nothing is sent.
    """
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        probe.connect((host, port))
        local = probe.getsockname()[0]
    interfaces = psutil.net_if_addrs().items()
    return next(name for name, addresses in interfaces if any(a.address == local for a in addresses))


def rank() -> int:
    """Return this worker's rank; 0 if it works alone."""
    return dist.get_rank() if dist.is_initialized() else 0


def ranks() -> int:
    """Return the number of workers in the group; 1 if this worker works alone."""
    return dist.get_world_size() if dist.is_initialized() else 1


def average_over_ranks(loss: float, parameters: Iterable[nn.Parameter]) -> float:
    """Replace the gradients of parameters by their means over all workers.

    Loss and gradients travel in one message: if the loss of one worker is not finite, the mean is not finite on any
    worker, and all of them fail in the same step. A parameter that has a gradient on no worker keeps none.

    Args:
        loss: This worker's loss.
        parameters: The parameters, the same on every worker and in the same order.

    Returns:
        The mean loss over all workers.
    """
    if ranks() == 1:
        return loss
    trained = [p for p in parameters if p.requires_grad]
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
    header = torch.tensor([loss, *(p.grad is not None for p in trained)]).to(gradients[0])
    message = torch.cat([header, *(g.flatten() for g in gradients)])
    dist.all_reduce(message)
    message /= ranks()
    mean_loss, *shares = message[: len(header)].tolist()
    means = message[len(header) :].split([p.numel() for p in trained])
    # A share is the part of the workers on which the parameter has a gradient.
    for parameter, mean, share in zip(trained, means, shares, strict=True):
        parameter.grad = mean.view_as(parameter) if share else None
    return mean_loss


def split_evenly(items: Sequence[Item], work: Callable[[list[Item]], Iterable[tuple[int, Result]]]) -> Iterator[Any]:
    """Split work on items evenly over the workers, and give every worker all results.

    Args:
        items: The items, the same on every worker.
        work: Processes a list of items; yields the index of an item in that list, and its result.

    Yields:
        The index of an item in ``items``, and its result; the same on every worker.
    """
    if ranks() == 1:
        yield from work(list(items))
        return
    share = range(rank(), len(items), ranks())
    results = [(share[i], result) for i, result in work([items[i] for i in share])]
    gathered: list[Any] = [None] * ranks()
    dist.all_gather_object(gathered, results)
    for part in gathered:
        yield from part

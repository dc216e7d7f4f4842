"""Several workers that train one model together, each on episodes of its own (data parallel, ``torch.distributed``).

Every worker has the whole model. In each step its gradients become the mean over all workers, so that n workers with
meta-batches of m episodes take the step that one with n · m would take, and their weights stay equal.
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

Item, Found = TypeVar("Item"), TypeVar("Found")
PATIENCE = timedelta(minutes=30)  # for the slowest worker


@dataclass(frozen=True)
class Rank:
    """One worker among those that work together.

    Attributes:
        number: from 0; the first one speaks for all.
        of: how many there are.
        host, port: of the store through which they find each other.
        backend: ``gloo``, or ``nccl`` where every worker has a GPU of its own.
    """

    number: int
    of: int
    host: str
    port: int
    backend: str = "gloo"


@contextmanager
def meeting_place(host: str, workers: int, backend: str) -> Iterator[Sequence[Rank]]:
    """Opens a store at an address of this machine; within, so many workers may find each other there."""
    listener = socket.create_server((host, 0))
    port = listener.getsockname()[1]
    # The store listens on this socket alone: by itself it would on every interface.
    store = dist.TCPStore(
        host, port, workers + 1, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach()
    )
    try:
        yield [Rank(number, workers, host, port, backend) for number in range(workers)]
    finally:
        del store


@contextmanager
def process_group(rank: Rank | None) -> Iterator[None]:
    """Within, this process works together with the others; on its own without a rank."""
    if rank is None:
        yield
        return
    name = interface_to(rank.host, rank.port)
    os.environ.update({"GLOO_SOCKET_IFNAME": name, "NCCL_SOCKET_IFNAME": name})
    store = dist.TCPStore(rank.host, rank.port, is_master=False, timeout=PATIENCE)
    dist.init_process_group(rank.backend, store=store, rank=rank.number, world_size=rank.of, timeout=PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()


def interface_to(host: str, port: int) -> str:
    """The network interface by which this machine reaches another: nothing listens on the others."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        probe.connect((host, port))
        own = probe.getsockname()[0]
    addresses = psutil.net_if_addrs().items()
    return next(name for name, known in addresses if any(a.address == own for a in known))


def rank() -> int:
    """This worker's number; 0 where it works alone."""
    return dist.get_rank() if dist.is_initialized() else 0


def ranks() -> int:
    """How many workers work together; 1 where this one works alone."""
    return dist.get_world_size() if dist.is_initialized() else 1


def average_over_ranks(loss: float, parameters: Iterable[nn.Parameter]) -> float:
    """Makes the gradients of the parameters the mean over all workers; returns that of the loss.

    In one message: a worker whose loss is no number tells the others with it. What has no gradient anywhere has none.
    """
    if ranks() == 1:
        return loss
    learning = [p for p in parameters if p.requires_grad]
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in learning]
    told = torch.tensor([loss, *(p.grad is not None for p in learning)]).to(gradients[0])
    message = torch.cat([told, *(g.flatten() for g in gradients)])
    dist.all_reduce(message)
    message /= ranks()
    mean_loss, *there = message[: len(told)].tolist()
    means = message[len(told) :].split([p.numel() for p in learning])
    for parameter, mean, known in zip(learning, means, there, strict=True):
        parameter.grad = mean.view_as(parameter) if known else None
    return mean_loss


def split_evenly(items: Sequence[Item], work: Callable[[list[Item]], Iterable[tuple[int, Found]]]) -> Iterator[Any]:
    """Does work on items, every worker on its share, and tells every worker what was found.

    Args:
        work: yields the index of an item in the list that it is given, and what it found.

    Yields:
        The same for all items.
    """
    if ranks() == 1:
        yield from work(list(items))
        return
    own = range(rank(), len(items), ranks())
    found = [(own[i], value) for i, value in work([items[i] for i in own])]
    everybody: list[Any] = [None] * ranks()
    dist.all_gather_object(everybody, found)
    for part in everybody:
        yield from part

"""Runs calls on Ray: long-lived workers that import once and hold the payload for their whole life.

A call is an actor method that streams: what it yields arrives while it runs, and the driver sleeps in ``ray.wait``
until something does. What comes fast travels in bundles, the larger the more workers there are: a message costs the
driver about a millisecond. Where the call pauses, the stream ends and the worker keeps the generator; the driver's
decision starts the next stream.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import pickle
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import cloudpickle
import numpy as np

from nas_meta.core.guard import first_line
from nas_meta.errors import ConfigError, NasMetaError
from nas_meta.execution.captured_output import Output
from nas_meta.execution.engine import Event, call
from nas_meta.execution.ray_placement import Placement, Resources

os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from ray.exceptions import RayError

log = logging.getLogger(__name__)
TICK = 0.5  # seconds of silence after which the driver may look at something else
MOST_FAILED_STARTS = 10
MESSAGES = 100  # a second, of all workers together, about: a tenth of the driver's time
PATIENCE = 60  # seconds without a first worker after which it is said what is waited for
REPORT_EVERY = 2000  # milliseconds; Ray's own 10 s are longer than short searches


class _Worker:
    def __init__(self, pickled: tuple[bytes, list[np.ndarray]], gather: float):
        self._gather = gather
        # An actor whose constructor raises gives back no sentence, so the first call tells.
        self._failure: str | None = None
        self._running: Generator[Event, bool | None, None] | None = None
        # For good, and before anything is imported: a handler of logging keeps the stream that it finds.
        self._output = Output(through=False).__enter__()
        try:
            data, buffers = pickled
            self._payload = cloudpickle.loads(data, buffers=buffers)
            self._payload.setup()
        except Exception as error:
            self._failure = f"the worker cannot start: {first_line(error)}"

    def ready(self) -> None:
        """Returns once the worker has started."""

    @ray.method(num_returns="streaming")
    def call(self, method: str, arguments: bytes):
        if self._failure:
            yield [Event(None, error=self._failure, done=True)]
        else:
            self._running = call(None, self._output, getattr(self._payload, method), *cloudpickle.loads(arguments))
            yield from self._to_pause(None)

    @ray.method(num_returns="streaming")
    def proceed(self, go_on: bool):
        yield from self._to_pause(go_on)

    def _to_pause(self, answer: bool | None) -> Iterator[list[Event]]:
        """What the call does until it pauses or ends; the first at once, then what has gathered."""
        event, gathered, sent = self._running.send(answer), [], -math.inf
        while not (event.paused or event.done):
            gathered.append(event)
            if time.monotonic() - sent >= self._gather:
                yield gathered
                gathered, sent = [], time.monotonic()
            event = next(self._running)
        if event.done:
            self._running = None
        yield [*gathered, event]


def pickled(payload: Any) -> tuple[bytes, list[np.ndarray]]:
    """The payload with its arrays apart, which Ray then maps into every worker of a node without a copy.

    Ray's own cloudpickle would send classes of file plugins by name, and workers do not have the file.
    """
    buffers: list[pickle.PickleBuffer] = []
    data = cloudpickle.dumps(payload, protocol=5, buffer_callback=buffers.append)
    return data, [np.frombuffer(buffer.raw(), dtype=np.uint8) for buffer in buffers]


@contextmanager
def _exporting(port: int | None) -> Iterator[dict[str, Any]]:
    """Options of ``ray.init`` with which its exporter listens on a port of 127.0.0.1."""
    if port is None:
        yield {}
        return
    # Ray's exporter listens everywhere, unless its node has the address 127.0.0.1; only one without others may have it.
    from ray._private import ray_constants

    before, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    try:
        yield {"_metrics_export_port": port, "_system_config": {"metrics_report_interval_ms": REPORT_EVERY}}
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def _check_gpus(resources: Resources) -> None:
    """Ray would wait forever for a GPU that this machine does not have."""
    here, needed = ray.cluster_resources().get("GPU", 0), resources.gpus * resources.workers
    if needed > here:
        ray.shutdown()
        raise ConfigError(
            f"resources: {resources.workers} workers with {resources.gpus:g} GPUs each need {needed:g}; "
            f"this machine has {here:g}"
        )


class RayEngine:
    """``workers`` actors on an embedded Ray, or on the cluster at ``address``.

    Raises:
        NasMetaError: the cluster cannot be reached.
        ConfigError: this machine has fewer GPUs than the workers need.
    """

    def __init__(self, payload: Any, resources: Resources):
        self._resources = resources
        self._started = not ray.is_initialized()
        if self._started:
            try:
                if resources.address:
                    ray.init(address=resources.address, log_to_driver=False, logging_level=logging.ERROR)
                else:
                    with _exporting(resources.metrics_port) as options:
                        ray.init(
                            address="local",  # not one that somebody started on this machine
                            num_cpus=max(1, round(resources.cpus * resources.workers)),
                            include_dashboard=False,
                            log_to_driver=False,
                            logging_level=logging.ERROR,
                            **options,
                        )
            except (RayError, ConnectionError, RuntimeError, ValueError) as error:
                raise NasMetaError(f"Ray cannot be started: {first_line(error)}") from error
            if not resources.address:
                _check_gpus(resources)
        self._placement = Placement(resources)
        self._placement.warn()
        self._gather = resources.workers / MESSAGES
        self._since, self._warned = time.monotonic(), False
        self._shared = ray.put(pickled(payload))
        self._actor = ray.remote(num_cpus=resources.cpus, num_gpus=resources.gpus, max_restarts=0)(_Worker)
        self._starting: dict[Any, Any] = {}
        self._idle: list[Any] = []
        self._running: dict[Any, tuple[Any, Any]] = {}
        self._paused: dict[Any, Any] = {}
        self._failed_starts = 0
        for _ in range(resources.workers):
            self._start_worker()

    def free(self) -> int:
        self._look(0)
        return len(self._idle)

    def await_worker(self) -> bool:
        self._look(0 if self._idle else TICK)
        return bool(self._idle)

    def _look(self, seconds: float) -> None:
        """Waits so long for a worker that is starting."""
        if not self._starting:
            return
        self._welcome(ray.wait(list(self._starting), num_returns=1, timeout=seconds)[0])
        if not self._warned and time.monotonic() - self._since > PATIENCE:
            self._warned = True
            log.warning("no worker has started for %d seconds: %s", PATIENCE, self._placement.needs)

    def submit(self, key: Any, method: str, *arguments: Any) -> None:
        while not self.await_worker():
            assert self._starting, "every worker is busy"
        worker = self._idle.pop()
        # Pickled by value here: a file plugin's module does not exist in a worker.
        stream = worker.call.remote(method, cloudpickle.dumps(arguments))
        self._running[stream] = (key, worker)

    def proceed(self, key: Any, go_on: bool) -> None:
        worker = self._paused.pop(key)
        self._running[worker.proceed.remote(go_on)] = (key, worker)

    def cancel(self, key: Any) -> None:
        worker = self._paused.pop(key, None)
        if worker is None:
            stream = next(s for s, (running, _) in self._running.items() if running == key)
            _, worker = self._running.pop(stream)
        self._replace(worker)

    def events(self) -> Iterator[Event | None]:
        while self._running:
            waited_for = [*self._running, *self._starting]
            ready, _ = ray.wait(waited_for, num_returns=1, timeout=TICK, fetch_local=False)
            if ready:  # and whatever else has come meanwhile
                ready, _ = ray.wait(waited_for, num_returns=len(waited_for), timeout=0, fetch_local=False)
            self._welcome([reference for reference in ready if reference in self._starting])
            ready = [stream for stream in ready if stream in self._running]
            if not ready:
                yield None
            for stream in ready:
                if stream not in self._running:
                    continue  # it was cancelled while others were told of
                key, worker = self._running[stream]
                try:
                    *earlier, event = ray.get(next(stream))
                except (RayError, StopIteration) as error:
                    earlier = []
                    event = Event(None, error=f"the worker died: {first_line(error)}", done=True, died=True)
                for progress in earlier:
                    yield dataclasses.replace(progress, key=key)
                    if stream not in self._running:
                        break
                if stream not in self._running:
                    continue
                if event.done or event.paused:
                    del self._running[stream]
                if event.died:
                    # The others do not notice: a fresh worker takes its place, on another node if need be.
                    self._replace(worker)
                elif event.done:
                    self._idle.append(worker)
                elif event.paused:
                    self._paused[key] = worker
                yield dataclasses.replace(event, key=key)

    def host(self) -> str:
        return ray.util.get_node_ip_address() if self._resources.address else "127.0.0.1"

    def _start_worker(self) -> None:
        strategy = self._placement.strategy()
        worker = self._actor.options(scheduling_strategy=strategy).remote(self._shared, self._gather)
        self._placement.took(worker, strategy)
        self._starting[worker.ready.remote()] = worker

    def _replace(self, worker: Any) -> None:
        ray.kill(worker)
        self._placement.left(worker)
        self._start_worker()

    def _welcome(self, ready: list[Any]) -> None:
        """Workers that have started are idle; one that died of it is replaced, but not for ever."""
        for reference in ready:
            worker = self._starting.pop(reference)
            self._warned = True  # the others may come later, but the search runs
            try:
                ray.get(reference)
            except RayError as error:
                self._failed_starts += 1
                if self._failed_starts > MOST_FAILED_STARTS:
                    raise NasMetaError(f"workers die while they start: {first_line(error)}") from error
                self._replace(worker)
            else:
                self._idle.append(worker)

    def close(self) -> None:
        running = (worker for _, worker in self._running.values())
        workers = [*self._idle, *running, *self._paused.values(), *self._starting.values()]
        for known in (self._idle, self._running, self._paused, self._starting):
            known.clear()
        for worker in workers:
            ray.kill(worker)
        if self._started:
            ray.shutdown()

"""An engine that runs calls on Ray, with long-lived workers that import once and keep the payload.

- **Streaming.** A call is a streaming actor method: the driver sleeps in ``ray.wait`` and receives what the call yields
  while it runs.
- **Bundling.** A message costs the driver about a millisecond. Workers therefore gather fast events into one message;
  the interval between messages grows with the number of workers.
- **Pausing.** When a call pauses, its stream ends and the worker keeps the generator. The driver's decision opens the
  next stream on the same worker.
- **Replacing.** A worker that dies or whose call is cancelled is killed, and a new one starts in its place.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import pickle
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from typing import Any

import cloudpickle
import numpy as np
import ray
from ray.exceptions import RayError

from nas_meta.core.guard import first_line
from nas_meta.errors import NasMetaError
from nas_meta.execution.captured_output import CapturedOutput
from nas_meta.execution.engine import EngineDied, Event, call
from nas_meta.execution.ray_connection import connect
from nas_meta.execution.ray_placement import Placement, Resources
from nas_meta.execution.ray_processes import RayProcess, death_of, processes_of_ray

log = logging.getLogger(__name__)
TICK = 0.5  # seconds without an event after which the driver gets control
MAX_FAILED_STARTS = 10
MESSAGES = 100  # messages per second from all workers together, which take about a tenth of the driver's time
PATIENCE = 60  # seconds without a first worker after which a warning says what the workers need


class _Worker:
    """The actor that holds the payload and runs one call at a time.

    Args:
        pickled: The payload from :func:`pickled`.
        bundle_seconds: Seconds for which the events of a call gather before they are sent.
    """

    def __init__(self, pickled: tuple[bytes, list[np.ndarray]], bundle_seconds: float):
        self._bundle_seconds = bundle_seconds
        # If the constructor raised, Ray would lose the message. The first call reports the failure instead.
        self._failure: str | None = None
        self._running: Generator[Event, bool | None, None] | None = None
        # Capture for the whole life of the worker, and before any import: a log handler keeps the stream it finds.
        self._output = CapturedOutput(pass_through=False).__enter__()
        try:
            data, buffers = pickled
            self._payload = cloudpickle.loads(data, buffers=buffers)
            self._payload.setup()
        except Exception as error:
            self._failure = f"the worker cannot start: {first_line(error)}"

    def ready(self) -> None:
        """Return once the worker has started."""

    @ray.method(num_returns="streaming")
    def call(self, method: str, arguments: bytes):
        if self._failure:
            yield [Event(None, error=self._failure, done=True)]
        else:
            self._running = call(None, self._output, getattr(self._payload, method), *cloudpickle.loads(arguments))
            yield from self._run_to_pause(None)

    @ray.method(num_returns="streaming")
    def proceed(self, resume: bool):
        yield from self._run_to_pause(resume)

    def _run_to_pause(self, resume: bool | None) -> Iterator[list[Event]]:
        """Run the call until it pauses or ends, and yield bundles of its events.

        The first event is sent immediately, later ones at intervals of ``bundle_seconds`` or more. The event that
        pauses or ends the call is the last one of the last bundle; no other event is paused or done.
        """
        event, bundle, sent = self._running.send(resume), [], -math.inf
        while not (event.paused or event.done):
            bundle.append(event)
            if time.monotonic() - sent >= self._bundle_seconds:
                yield bundle
                bundle, sent = [], time.monotonic()
            event = next(self._running)
        if event.done:
            self._running = None
        yield [*bundle, event]


def pickled(payload: Any) -> tuple[bytes, list[np.ndarray]]:
    """Pickle a payload with its arrays apart, so that the workers of a node share one copy of them.

    Ray's own serialisation would send classes of file plugins by name, but workers do not have the file.

    Args:
        payload: The object whose methods the workers call.

    Returns:
        The pickle without its arrays, and the arrays as bytes.
    """
    buffers: list[pickle.PickleBuffer] = []
    data = cloudpickle.dumps(payload, protocol=5, buffer_callback=buffers.append)
    return data, [np.frombuffer(buffer.raw(), dtype=np.uint8) for buffer in buffers]


class RayEngine:
    """An engine whose workers are Ray actors, on this machine or on a cluster.

    Invariant: every worker is in exactly one of four tables.

    - ``_starting``: workers by the reference that is ready once the worker has started.
    - ``_idle``: workers without a call.
    - ``_running``: keys and workers of running calls by the stream of the call.
    - ``_paused``: workers of paused calls by the key of the call.

    Args:
        payload: The object whose methods are called; every worker runs its ``setup()`` once.
        resources: Number, size and placement of the workers.

    Raises:
        NasMetaError: Ray cannot be started, or the cluster cannot be reached or requires a token that is missing.
        ConfigError: This machine has fewer GPUs than the workers need.
    """

    def __init__(self, payload: Any, resources: Resources):
        self._resources = resources
        self._bundle_seconds = resources.workers / MESSAGES
        self._starting: dict[Any, Any] = {}
        self._idle: list[Any] = []
        self._running: dict[Any, tuple[Any, Any]] = {}
        self._paused: dict[Any, Any] = {}
        self._failed_starts = 0
        self._processes: list[RayProcess] = []
        with ExitStack() as connection:
            options = connection.enter_context(connect(resources))
            self._processes = processes_of_ray()
            self._placement = Placement(resources)
            self._placement.warn()
            self._started_at, self._warned = time.monotonic(), False
            self._shared_payload = ray.put(pickled(payload))
            options = {"num_cpus": resources.cpus, "num_gpus": resources.gpus, "max_restarts": 0, **options}
            self._actor = ray.remote(**options)(_Worker)
            for _ in range(resources.workers):
                self._start_worker()
            self._connection = connection.pop_all()  # it lasts until close()

    def free(self) -> int:
        self._poll_starting(0)
        return len(self._idle)

    def await_worker(self) -> bool:
        self._poll_starting(0 if self._idle else TICK)
        return bool(self._idle)

    def _poll_starting(self, seconds: float) -> None:
        """Wait up to some seconds for a worker that is starting."""
        if not self._starting:
            return
        ready = ray.wait(list(self._starting), num_returns=1, timeout=seconds)[0]
        self._raise_if_dead()
        self._finish_starts(ready)
        if not self._warned and time.monotonic() - self._started_at > PATIENCE:
            self._warned = True
            log.warning("no worker has started for %d seconds: %s", PATIENCE, self._placement.needs)

    def submit(self, key: Any, method: str, *arguments: Any) -> None:
        while not self.await_worker():
            assert self._starting, "every worker is busy"
        worker = self._idle.pop()
        # Pickled by value, because workers cannot import the module of a file plugin.
        stream = worker.call.remote(method, cloudpickle.dumps(arguments))
        self._running[stream] = (key, worker)

    def proceed(self, key: Any, resume: bool) -> None:
        worker = self._paused.pop(key)
        self._running[worker.proceed.remote(resume)] = (key, worker)

    def cancel(self, key: Any) -> None:
        worker = self._paused.pop(key, None)
        if worker is None:
            stream = next(s for s, (running, _) in self._running.items() if running == key)
            _, worker = self._running.pop(stream)
        self._replace(worker)

    def events(self) -> Iterator[Event | None]:
        """Yield the events of all calls as they happen, until no call is running.

        This is an event loop around ``ray.wait``. Each round takes the references that are ready, finishes the starts
        among them, and yields the events of one message of each stream.

        Between two yields the consumer may change every table: ``submit`` and ``proceed`` add streams, which the next
        round waits for, and ``cancel`` removes one. Two rules keep the loop right whatever the consumer does:

        - A worker moves to its next table before its event is yielded. A consumer that sees a call end finds its worker
          in ``_idle`` and can submit; one that sees a call pause finds it in ``_paused`` and can proceed.
        - After each yield, the loop uses a stream only if it is still in ``_running``. Events of a cancelled call that
          have already arrived are dropped.

        A paused call is not in ``_running``, so the consumer must proceed with it or cancel it before it requests the
        next event. A call whose worker died ends with an event that ``died``, and a new worker starts, on another node
        if necessary. The events of other calls are not affected.

        Example: the streams of calls a and b are ready, with the messages [1, rung] and [7]. The loop yields 1 of a,
        moves the worker of a to ``_paused``, and yields the rung. The consumer answers ``proceed("a", True)``, which
        opens a new stream, and ``cancel("b")``, which replaces the worker of b. The loop finds that the stream of b is
        gone and skips its 7. The next round waits for the new stream of a and for the new worker.

        Yields:
            An event, or None after ``TICK`` seconds of silence and when only a worker has started.
        """
        while self._running:
            references = [*self._running, *self._starting]
            ready, _ = ray.wait(references, num_returns=1, timeout=TICK, fetch_local=False)
            self._raise_if_dead()
            if ready:  # take everything else that has become ready in the meantime
                ready, _ = ray.wait(references, num_returns=len(references), timeout=0, fetch_local=False)
            self._finish_starts([reference for reference in ready if reference in self._starting])
            ready = [stream for stream in ready if stream in self._running]
            if not ready:
                yield None
            for stream in ready:
                if stream not in self._running:
                    continue  # cancelled since this round began
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
                    self._replace(worker)
                elif event.done:
                    self._idle.append(worker)
                elif event.paused:
                    self._paused[key] = worker
                yield dataclasses.replace(event, key=key)

    def failure(self) -> str | None:
        return death_of(self._processes)

    def _raise_if_dead(self) -> None:
        """Raise EngineDied before Ray is used without its processes: it would end this process."""
        if reason := self.failure():
            raise EngineDied(reason)

    def host(self) -> str:
        return ray.util.get_node_ip_address() if self._resources.address else "127.0.0.1"

    def _start_worker(self) -> None:
        strategy = self._placement.strategy()
        worker = self._actor.options(scheduling_strategy=strategy).remote(self._shared_payload, self._bundle_seconds)
        self._placement.add(worker, strategy)
        self._starting[worker.ready.remote()] = worker

    def _replace(self, worker: Any) -> None:
        """Kill a worker and start a new one in its place."""
        ray.kill(worker)
        self._placement.remove(worker)
        self._start_worker()

    def _finish_starts(self, ready: list[Any]) -> None:
        """Make workers that have started idle, and replace those that died while starting, up to a limit."""
        for reference in ready:
            worker = self._starting.pop(reference)
            self._warned = True  # the search runs, even if the other workers start later
            try:
                ray.get(reference)
            except RayError as error:
                self._failed_starts += 1
                if self._failed_starts > MAX_FAILED_STARTS:
                    raise NasMetaError(
                        f"{self._failed_starts} workers died while they were starting: {first_line(error)}"
                    ) from error
                self._replace(worker)
            else:
                self._idle.append(worker)

    def close(self) -> None:
        dead, self._processes = self.failure(), []
        running = (worker for _, worker in self._running.values())
        workers = [*self._idle, *running, *self._paused.values(), *self._starting.values()]
        for table in (self._idle, self._running, self._paused, self._starting):
            table.clear()
        if not dead:  # the workers of a dead Ray end by themselves, and a message to them would end this process
            for worker in workers:
                ray.kill(worker)
        self._connection.close()

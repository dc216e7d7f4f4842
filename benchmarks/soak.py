"""Soak test of 5,000 short trials: growth of memory, files and threads, and how usable the run directory remains.

usage: python -m benchmarks.run soak
       python -m benchmarks.soak TRIALS   (a shorter search, as JSON, for finding a leak)
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import psutil

from benchmarks import stand_in
from benchmarks.table import Table

TRIALS = 5000
EVERY = 500  # trials between two samples
STEPS = 5
WORKERS = 2
SPACE = {"name": "bert-subnet", "heads": [1.0, 0.5], "ffn": [1.0, 0.75, 0.5]}
MEBI = 2**20


@dataclass(frozen=True)
class Instant(stand_in.StandIn):
    """Stand-in for the evaluation: a few steps that compute nothing, then an accuracy derived from the architecture."""

    learner = SimpleNamespace(options=SimpleNamespace(steps=STEPS))

    def setup(self) -> None:
        import torch

        torch.set_num_threads(1)

    def trial(self, architecture: object, seed: int, keep_above: float | None, *_: object) -> object:
        import numpy as np

        from nas_meta.evaluation.progress import Progress, Result

        for step in range(1, STEPS + 1):
            yield Progress(step, {"loss": 1 / step})
        accuracy = int(architecture.id[:8], 16) / 16**8
        metrics = {
            "accuracy": accuracy, "accuracy_ci95": 0.01, "params": 1e6 * (1 + accuracy), "flops": 1e6,
            "train_seconds": 0.0, "evaluate_seconds": 0.0,
        }  # fmt: skip
        # As in any search, a trial that may be among the best returns its weights.
        kept = keep_above is not None and accuracy > keep_above
        return Result(metrics, np.zeros(MEBI, dtype=np.uint8) if kept else None)


@dataclass(frozen=True)
class Sample:
    """Resources of a search's processes after a number of trials.

    Attributes:
        trials: finished trials.
        driver: unshared memory (USS) of the driver in bytes.
        workers: unshared memory of the largest worker in bytes.
        files: open files and sockets of the driver.
        worker_files: open files and sockets of the worker with the most.
        threads: threads of the driver.
        seconds: seconds since the start.
    """

    trials: int
    driver: int
    workers: int
    files: int
    worker_files: int
    threads: int
    seconds: float


def sample(trials: int, started: float) -> Sample:
    """Samples this process, the driver, and the workers among its descendants."""
    driver = psutil.Process()
    workers = [p for p in driver.children(recursive=True) if p.cmdline() and p.cmdline()[0].startswith("ray::_Worker")]
    return Sample(
        trials,
        driver.memory_full_info().uss,
        max((p.memory_full_info().uss for p in workers), default=0),
        driver.num_fds(),
        max((p.num_fds() for p in workers), default=0),
        driver.num_threads(),
        time.time() - started,
    )


def soak(directory: Path, trials: int, every: int) -> list[Sample]:
    """Runs a search of instant trials; everything else runs as in any search.

    Args:
        directory: run directory to create.
        trials: number of trials.
        every: number of trials between two samples.

    Returns:
        Samples in order.
    """
    config = {
        "space": SPACE,
        "tasks": {"source": "botocore"},
        "budget": {"trials": trials},
        "resources": {"workers": WORKERS},
    }
    started, samples = time.time(), []

    def watch(status: object) -> None:
        if status.leaderboard.finished >= every * (len(samples) + 1):
            samples.append(sample(status.leaderboard.finished, started))

    stand_in.search(config, directory, Instant(), watch=watch)
    return samples


def seconds_of(*arguments: str) -> float:
    """Seconds that a ``nas-meta`` command with these arguments takes."""
    started = time.perf_counter()
    program = [sys.executable, "-c", "from nas_meta.cli.main import main; main()"]
    subprocess.run([*program, *arguments], check=True, capture_output=True)
    return time.perf_counter() - started


def tensorboard_seconds(directory: Path) -> tuple[float, float, int]:
    """Measures TensorBoard on the event files of a search.

    Args:
        directory: TensorBoard's log directory.

    Returns:
        Seconds until TensorBoard's own reader has loaded every run, further seconds until its HParams tab lists all
        trials, and the number of trials in that list.
    """
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
    from tensorboard.context import RequestContext
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups

    started = time.perf_counter()
    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(directory))
    multiplexer.Reload()
    loaded = time.perf_counter()
    provider = MultiplexerDataProvider(multiplexer, str(directory))
    context = backend_context.Context(TBContext(data_provider=provider))
    request = api_pb2.ListSessionGroupsRequest(
        start_index=0, slice_size=100_000, allowed_statuses=[api_pb2.STATUS_SUCCESS]
    )
    experiment = context.experiment_from_metadata(
        RequestContext(), "", True, context.hparams_metadata(RequestContext(), ""),
        context.hparams_from_data_provider(RequestContext(), "", 0),
    )  # fmt: skip
    handler = list_session_groups.Handler(RequestContext(), context, "", request)
    groups = handler.run()
    assert experiment.hparam_infos
    return loaded - started, time.perf_counter() - loaded, groups.total_size


def measure() -> Table:
    """Resources of driver and workers, one row per sample."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        samples = soak(run, TRIALS, EVERY)
        files = [p for p in run.rglob("*") if p.is_file()]
        size = sum(p.stat().st_size for p in files)
        trials_seconds, status_seconds = seconds_of("trials", str(run)), seconds_of("status", str(run))
        loaded, hparams, groups = tensorboard_seconds(run / "tensorboard")
    rows = [
        [f"{s.trials:,}", f"{s.driver / MEBI:.0f}", f"{s.workers / MEBI:.0f}", str(s.files), str(s.worker_files),
         str(s.threads), f"{s.seconds:.0f}"]
        for s in samples
    ]  # fmt: skip
    return Table(
        ("trials", "driver, MiB", "worker, MiB", "driver files", "worker files", "driver threads", "seconds"),
        rows,
        "Memory is what a process shares with no other (USS); files are open files and sockets. Each trial has "
        f"{STEPS} steps that compute nothing; {WORKERS} workers have torch loaded; evolution, the journal, TensorBoard "
        f"and Ray run as in any search. Afterwards the run directory holds {len(files):,} files with "
        f"{size / MEBI:.0f} MiB; `nas-meta trials` takes {trials_seconds:.1f} s, `nas-meta status` "
        f"{status_seconds:.1f} s; TensorBoard's own reader (in Python) loads all runs in {loaded:.0f} s, and its "
        f"HParams tab lists {groups:,} trials {hparams:.1f} s later.",
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as target:
        number = int(sys.argv[1])
        print(json.dumps([vars(s) for s in soak(Path(target) / "run", number, number // 10)]))

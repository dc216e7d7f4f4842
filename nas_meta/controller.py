"""One search, from config to finished run; the only module that sees all the parts."""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from nas_meta.assembly import make_evaluation, prepare
from nas_meta.config import ResolvedConfig, resolve
from nas_meta.errors import NasMetaError, RunError
from nas_meta.execution.engine import Engine, Event
from nas_meta.journal import FILE, Journal, Trial
from nas_meta.objectives import Objective, signed
from nas_meta.run import Run, rank, weights_path
from nas_meta.space import Architecture, SearchSpace
from nas_meta.strategy import Outcome, SearchContext, Strategy

log = logging.getLogger(__name__)
MOST_REPEATS = 1000
JOB = 0  # stands where trials have their number
SUPERNET = "supernet.safetensors"


class Interrupted(NasMetaError):
    """The search was interrupted; what had finished is kept."""

    exit_code = 130


@dataclass(frozen=True)
class Status:
    """A search at one moment, for whoever watches."""

    phase: str
    trials: tuple[Trial, ...]
    total: int
    started: float
    steps: Mapping[int, int]
    run_dir: Path
    job_steps: int = 0


Watcher = Callable[[Status], None]


def search(
    config: ResolvedConfig | Mapping[str, Any],
    run_dir: str | Path | None = None,
    inline: bool = False,
    watch: Watcher | None = None,
) -> Run:
    """Runs a search and returns its run.

    Args:
        config: what :func:`nas_meta.config.read_config` returns, or the same as plain data.
        run_dir: a new or empty directory; by default the config's, or a new one under ``runs/``.
        inline: runs trials in this process, without Ray.
        watch: called after everything that happens.

    Raises:
        ConfigError: the config or its data cannot be used.
        RunError: the directory holds a run already, or cannot be written.
        Interrupted: by SIGINT; finished trials are in the journal.
    """
    resolved = config if isinstance(config, ResolvedConfig) else resolve(config)
    directory = new_run_dir(run_dir or resolved.config.run_dir)
    with _interruptible() as stop:
        _Search(resolved, directory, inline, watch or (lambda status: None), stop).run()
    return Run(directory)


def new_run_dir(path: str | Path | None) -> Path:
    """Creates the directory of a new run.

    Raises:
        RunError: it holds a run already, or cannot be made.
    """
    if path is None:
        stem = time.strftime("%Y%m%d-%H%M%S")
        path = next(p for i in range(1000) if not (p := Path("runs") / (f"{stem}-{i}" if i else stem)).exists())
    path = Path(path)
    if (path / FILE).exists():
        raise RunError(f"{path} holds a run already; name another directory with --run-dir")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{path} cannot be made: {error.strerror}") from error
    return path


class _Search:
    def __init__(self, resolved: ResolvedConfig, directory: Path, inline: bool, watch: Watcher, stop: _Stop):
        self.resolved, self.config = resolved, resolved.config
        self.directory, self.inline, self.watch, self.stop = directory, inline, watch, stop
        self.objectives = self.config.directed
        self.trials: dict[int, Trial] = {}
        self.steps: dict[int, int] = {}
        self.by_architecture: dict[str, int] = {}
        self.repeats: dict[str, int] = {}
        self.started = time.time()
        self.phase = "preparing"
        self.job_steps = 0

    def run(self) -> None:
        from nas_meta.tensorboard import TensorBoardLog

        self._tell_watcher()
        space, tasks, shape = prepare(self.resolved)
        space.prepare(tasks, self.config.seed)
        # Refuses limits that no architecture meets before anything is trained.
        space.sample(np.random.default_rng(self.config.seed))
        strategy = self._strategy(space)
        document = self.resolved.document
        document = {**document, "strategy": {**document["strategy"], **strategy.resolved}}
        journal = Journal.create(self.directory, document)
        (self.directory / "config.yaml").write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
        journal.set("tasks", list(tasks.report))
        board = TensorBoardLog(self.directory, space, self.objectives)
        self.journal, self.board, self.strategy = journal, board, strategy
        engine = None
        try:
            self.evaluation = make_evaluation(self.resolved, space, tasks, shape, self._cpus())
            engine = self._engine(self.evaluation)
            self.started = time.time()
            self.stop.listened = True
            self._job(engine)
            self.phase = "searching"
            self._search(engine)
            if not self.stop.is_set():
                self.phase = "meta-testing"
                self._tell_watcher()
                journal.set("report", self._meta_test(engine, space))
                self.phase = "done"
                self._tell_watcher()
        finally:
            for trial in [t for t in self.trials.values() if t.status == "running"]:
                self._show(self._finish(trial, "stopped", {}, "the search was interrupted"))
            if engine is not None:
                engine.close()
            strategy.close()
            board.close(list(self.trials.values()))
            journal.close()
        if self.stop.is_set():
            raise Interrupted(f"interrupted; what had finished is kept in {self.directory}")
        if not rank(list(self.trials.values()), self.objectives):
            reason = next((t.error for t in self.trials.values() if t.error), "no trial was proposed")
            raise NasMetaError(f"no trial was completed; the first one failed because {reason}")

    def _cpus(self) -> float:
        available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        if self.inline:
            return self.config.resources.cpus_per_trial or available
        return self.config.resources.cpus_per_trial or max(1, available // self.config.resources.workers)

    def _strategy(self, space: SearchSpace) -> Strategy:
        context = SearchContext(
            space=space,
            objectives=self.objectives,
            trials=self.config.budget.trials,
            workers=1 if self.inline else self.config.resources.workers,
            seed=self.config.seed,
            tokens=self.config.evaluation.flops_tokens,
        )
        return self.resolved.plugin("strategy")(context, self.resolved.options["strategy"])

    def _engine(self, evaluation: Any) -> Engine:
        if self.inline:
            from nas_meta.execution.inline_engine import InlineEngine

            return InlineEngine(evaluation)
        from nas_meta.execution.ray_engine import RayEngine, Resources

        section = self.config.resources
        return RayEngine(evaluation, Resources(section.workers, self._cpus(), section.gpus_per_trial, section.address))

    def _job(self, engine: Engine) -> None:
        """What the strategy wants done before it proposes anything."""
        job = self.strategy.job()
        if job is None:
            return
        self.phase, self.job_steps = "training the supernet", job.steps
        self._tell_watcher()
        engine.submit(JOB, "run", job)
        for event in engine.events():
            if self.stop.is_set():
                return
            if event is not None and event.error:
                raise NasMetaError(f"the supernet could not be trained: {event.error}")
            if event is not None:
                if event.value.weights is not None:
                    _write_whole(self.directory / SUPERNET, event.value.weights)
                if event.done:
                    self.journal.set("job", dict(event.value.findings))
                    self.strategy.receive(event.value.findings, event.value.weights)
                else:
                    self.steps[JOB] = event.value.step
                    self.board.job_progress(event.value.step, event.value.values)
            self._tell_watcher()

    def _search(self, engine: Engine) -> None:
        self._fill(engine)
        self._tell_watcher()
        for event in engine.events():
            if self.stop.is_set():
                return
            if event is not None and event.done:
                trial = self._end(self.trials[event.key], event)
                self._fill(engine)
                # What nobody waits for comes last, while the workers work.
                self._show(trial)
                if event.value is not None and event.value.weights is not None:
                    self._keep(trial, event.value.weights)
            elif event is not None:
                self.steps[event.key] = event.value.step
                self.board.trial_progress(self.trials[event.key], event.value.step, event.value.values)
            self._tell_watcher()

    def _fill(self, engine: Engine) -> None:
        """Gives every free worker a trial, as far as the budget and the strategy go."""
        while engine.free() and len(self.trials) < self.config.budget.trials and not self._out_of_time():
            architecture = self._propose()
            if architecture is None:
                return
            trial = Trial(
                id=len(self.trials) + 1,
                architecture=dict(architecture.values),
                seed=self.config.seed,
                fidelity=self.evaluation.of(architecture).learner.options.steps,
                started=time.time(),
            )
            self.trials[trial.id] = trial
            self.by_architecture[architecture.id] = trial.id
            start = self.strategy.start_of(architecture)
            engine.submit(trial.id, "trial", architecture, trial.seed, self._keep_above(), start)
            self.journal.write(trial)

    def _propose(self) -> Architecture | None:
        """The strategy's next architecture; one that was tried already is answered from the journal."""
        for _ in range(MOST_REPEATS):
            proposal = self.strategy.ask()
            if not isinstance(proposal, Architecture):
                return None
            if proposal.id not in self.by_architecture:
                return proposal
            trial = self.trials[self.by_architecture[proposal.id]]
            if trial.status == "running":
                self.repeats[proposal.id] = self.repeats.get(proposal.id, 0) + 1
            else:
                self._tell(trial)
        log.warning("the strategy proposed %d architectures in a row that were tried before", MOST_REPEATS)
        return None

    def _end(self, trial: Trial, event: Event) -> Trial:
        """The end of a trial in the journal, then told to the strategy, once for every time it was proposed."""
        if event.error:
            trial = self._finish(trial, "failed", {}, event.error)
        else:
            trial = self._finish(trial, "completed", event.value.metrics, None)
        for _ in range(1 + self.repeats.pop(trial.architecture_id, 0)):
            self._tell(trial)
        return trial

    def _finish(self, trial: Trial, status: str, metrics: Mapping[str, float], error: str | None) -> Trial:
        trial = dataclasses.replace(trial, status=status, metrics=metrics, error=error, finished=time.time())
        self.trials[trial.id] = trial
        # Durable before anybody, the strategy first of all, hears of it.
        self.journal.write(trial)
        return trial

    def _show(self, trial: Trial) -> None:
        self.steps.pop(trial.id, None)
        self.board.trial_end(trial, list(self.trials.values()))

    def _tell(self, trial: Trial) -> None:
        measured = trial.status in ("completed", "stopped") and all(o.metric in trial.metrics for o in self.objectives)
        values = signed(trial.metrics, self.objectives) if measured else None
        score = values[0] if values else None
        self.strategy.tell(Outcome(Architecture(trial.architecture), trial.status, trial.metrics, score, values))

    def _keep_above(self) -> float:
        """Weights of trials below this accuracy are not worth sending."""
        ranked = self._by_accuracy()
        keep = self.config.evaluation.keep
        return ranked[keep - 1].metrics["accuracy"] if len(ranked) >= keep else 0.0

    def _keep(self, trial: Trial, weights: Any) -> None:
        path = weights_path(self.directory, trial.id)
        path.parent.mkdir(exist_ok=True)
        _write_whole(path, weights)
        kept = {t.id for t in self._by_accuracy()[: self.config.evaluation.keep]}
        for old in path.parent.glob("*.safetensors"):
            if int(old.stem) not in kept:
                old.unlink()

    def _by_accuracy(self) -> list[Trial]:
        return rank(list(self.trials.values()), [Objective("accuracy")])

    def _meta_test(self, engine: Engine, space: SearchSpace) -> dict[str, Any]:
        """The best trials, the unsearched model and TF-IDF on the same meta-test episodes."""
        calls: list[tuple[Any, str, tuple]] = []
        for trial in self._by_accuracy()[: self.config.evaluation.test_best]:
            weights = weights_path(self.directory, trial.id)
            if weights.is_file():
                calls.append(
                    (
                        ("trials", str(trial.id)),
                        "test",
                        (Architecture(trial.architecture), weights.read_bytes()),
                    )
                )
        if space.reference() is not None:
            calls.append((("references", "unsearched model, no training"), "test_reference", ()))
        calls.append((("references", "TF-IDF, nearest centroid"), "test_tfidf", ()))
        report: dict[str, dict[str, Any]] = {"trials": {}, "references": {}}
        while calls or engine.free() == 0:
            while calls and engine.free():
                key, method, arguments = calls.pop(0)
                engine.submit(key, method, *arguments)
            for event in engine.events():
                if self.stop.is_set():
                    return report
                if event is None:
                    continue
                kind, name = event.key
                if event.error:
                    raise NasMetaError(f"meta-test of {name} failed: {event.error}")
                report[kind][name] = dict(event.value.metrics)
                if calls:
                    break
        return report

    def _out_of_time(self) -> bool:
        hours = self.config.budget.hours
        return self.stop.is_set() or (hours is not None and time.time() - self.started > hours * 3600)

    def _tell_watcher(self) -> None:
        self.watch(
            Status(
                self.phase, tuple(self.trials.values()), self.config.budget.trials, self.started,
                dict(self.steps), self.directory, self.job_steps,
            )
        )  # fmt: skip


def _write_whole(path: Path, data: Any) -> None:
    """Writes a file so that it is never seen half."""
    temporary = path.with_suffix(".part")
    temporary.write_bytes(data)
    temporary.rename(path)


class _Stop(threading.Event):
    """Set by SIGINT; ``listened`` once the search looks at it by itself."""

    listened = False


@contextmanager
def _interruptible() -> Iterator[_Stop]:
    """SIGINT sets the event; it is raised only where nobody looks at it, for native code does not bear that well."""
    stop = _Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def first(_number: int, _frame: Any) -> None:
        stop.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if not stop.listened:
            raise KeyboardInterrupt

    previous = signal.signal(signal.SIGINT, first)
    try:
        yield stop
    except KeyboardInterrupt:
        raise Interrupted("interrupted; what had finished is kept in the run directory") from None
    finally:
        signal.signal(signal.SIGINT, previous)

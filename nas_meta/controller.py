"""One search, from config to finished run; the only module that sees all the parts."""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from nas_meta.assembly import make_evaluation, prepare
from nas_meta.config import ResolvedConfig, resolve
from nas_meta.errors import NasMetaError
from nas_meta.execution.engine import Engine, Event
from nas_meta.interruption import Interrupted, Stop, interruptible
from nas_meta.journal import Journal, Trial
from nas_meta.latency import LatencyTable
from nas_meta.measures import LatencySettings
from nas_meta.meta_test import meta_test
from nas_meta.objectives import Objective, signed
from nas_meta.run import SUPERNET, Run, new_run_dir, pareto, rank, weights_path
from nas_meta.space import Architecture, SearchSpace
from nas_meta.stopping import RULES, Report
from nas_meta.strategy import Outcome, SearchContext, Strategy
from nas_meta.timing import described, fitted_table, measure_each
from nas_meta.wrapped import timed

log = logging.getLogger(__name__)
MOST_REPEATS = 1000
JOB = 0  # stands where trials have their number


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
    with interruptible() as stop:
        _Search(resolved, directory, inline, watch or (lambda status: None), stop).run()
    return Run(directory)


class _Search:
    def __init__(self, resolved: ResolvedConfig, directory: Path, inline: bool, watch: Watcher, stop: Stop):
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
        self.table: LatencyTable | None = None

    def run(self) -> None:
        from nas_meta.tensorboard import TensorBoardLog

        self._tell_watcher()
        space, tasks, shape = prepare(self.resolved)
        space.prepare(tasks, self.config.seed)
        # Refuses limits that no architecture meets before anything is trained.
        space.sample(np.random.default_rng(self.config.seed))
        strategy = self._strategy(space)
        document = self.resolved.document
        stopping = self.config.stopping.resolved(self._most_steps(), self.config.evaluation.interim_episodes)
        self.rule = RULES[stopping.name](stopping, self.objectives)
        document = {
            **document,
            "strategy": {**document["strategy"], **strategy.resolved},
            "stopping": stopping.model_dump(mode="json"),
        }
        journal = Journal.create(self.directory, document)
        (self.directory / "config.yaml").write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
        journal.set("tasks", list(tasks.report))
        board = TensorBoardLog(self.directory, space, self.objectives)
        self.journal, self.board, self.strategy = journal, board, strategy
        engine = None
        try:
            evaluation = make_evaluation(self.resolved, space, tasks, shape, self._cpus())
            self.evaluation = evaluation.with_rungs(stopping.rungs, stopping.episodes)
            engine = self._engine(self.evaluation)
            self.started = time.time()
            self.stop.listened = True
            self._fit_latency(engine, space)
            self._job(engine)
            self.phase = "searching"
            self._search(engine)
            if not self.stop.is_set():
                self.phase = "meta-testing"
                self._tell_watcher()
                best = self._by_accuracy()[: self.config.evaluation.test_best]
                report = meta_test(engine, self.directory, best, space, self.stop.is_set)
                journal.set("report", report | {"latency": self._latency(engine)})
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

    def _most_steps(self) -> int:
        """The most meta-training steps that a trial may take."""
        choices, options = self.resolved.recipe.choices, self.resolved.options["learner"]
        return max(choices["learner.steps"].values) if "learner.steps" in choices else options.steps

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

    def _fit_latency(self, engine: Engine, space: SearchSpace) -> None:
        """Where latency is an objective: a table that stands in for it until the end of the search."""
        if not self.config.times:
            return
        self.phase = "measuring latencies"
        self._tell_watcher()
        settings = dataclasses.replace(self._timing, seconds=min(self._timing.seconds, 0.3))
        models, seed = self.config.latency.models, self.config.seed
        self.table = fitted_table(engine, space, models, settings, seed, self.stop.is_set)
        timed(space).latencies = self.table
        # Refuses a limit of the latency that nothing meets.
        space.sample(np.random.default_rng(seed))

    def _latency(self, engine: Engine) -> dict[str, Any]:
        """The latency of every trial on the Pareto front, measured while nothing else runs."""
        self.phase = "measuring latencies"
        self._tell_watcher()
        front = pareto(list(self.trials.values()), self.objectives)
        architectures = [Architecture(t.architecture) for t in front]
        found = measure_each(engine, architectures, self._timing, self.stop.is_set)
        return described(
            self.table,
            self._timing,
            self.config.resources.gpus_per_trial > 0,
            {str(t.id): f for t, f in zip(front, found, strict=False)},
        )

    @property
    def _timing(self) -> LatencySettings:
        return LatencySettings(**self.config.latency.model_dump(exclude={"models"}))

    def _search(self, engine: Engine) -> None:
        self._fill(engine)
        self._tell_watcher()
        for event in engine.events():
            if self.stop.is_set():
                return
            if event is not None and event.done:
                trial = self.trials[event.key]
                if trial.status == "running":
                    trial = self._end(trial, event)
                self._fill(engine)
                # What nobody waits for comes last, while the workers work.
                self._show(trial)
                if event.value is not None and event.value.weights is not None:
                    self._keep(trial, event.value.weights)
            elif event is not None:
                self.steps[event.key] = event.value.step
                if event.paused:
                    self._judge(engine, event)
                self.board.trial_progress(self.trials[event.key], event.value.step, event.value.values)
            self._tell_watcher()

    def _judge(self, engine: Engine, event: Event) -> None:
        """Says at a rung whether a trial goes on; if not, it ends with what stands there."""
        trial, progress = self.trials[event.key], event.value
        metrics = self._with_latency(trial, progress.metrics)
        report = Report(trial.id, progress.step, signed(metrics, self.objectives), progress.scores)
        go_on = self.rule.decide(report)
        self.journal.report(report, go_on)
        engine.proceed(event.key, go_on)
        if not go_on:
            self._conclude(trial, "stopped", progress.metrics, None)

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
        """The end of a trial that was not stopped."""
        if event.error:
            self.rule.forget(trial.id)
            return self._conclude(trial, "failed", {}, event.error)
        return self._conclude(trial, "completed", event.value.metrics, None)

    def _conclude(self, trial: Trial, status: str, metrics: Mapping[str, float], error: str | None) -> Trial:
        """The end of a trial in the journal, then told to the strategy, once for every time it was proposed."""
        trial = self._finish(trial, status, metrics, error)
        for _ in range(1 + self.repeats.pop(trial.architecture_id, 0)):
            self._tell(trial)
        return trial

    def _with_latency(self, trial: Trial, metrics: Mapping[str, float]) -> Mapping[str, float]:
        """A trial's metrics with what the table tells of its latency."""
        if self.table is None or not metrics:
            return metrics
        return {**metrics, "latency": self.table.predict(Architecture(trial.architecture))}

    def _finish(self, trial: Trial, status: str, metrics: Mapping[str, float], error: str | None) -> Trial:
        taken = self.steps.get(trial.id, 0)
        trial = dataclasses.replace(
            trial, fidelity=taken, status=status, metrics=self._with_latency(trial, metrics), error=error,
            finished=time.time(),
        )  # fmt: skip
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

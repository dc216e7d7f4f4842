"""One search, from config to finished run; the only module that sees all the parts."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from nas_meta.config.compatibility import check_learner
from nas_meta.config.components import (
    cpus_per_trial,
    make_engine,
    make_evaluation,
    make_strategy,
    most_steps,
    with_prefilter,
)
from nas_meta.config.pretraining import ADAPTED, with_run_artifacts
from nas_meta.config.problem import load_problem
from nas_meta.config.resolved import ResolvedConfig, resolve
from nas_meta.controller.final_test import meta_test
from nas_meta.controller.latency import architectures_to_measure, latency_report, measure_each
from nas_meta.controller.sessions import config_to_resume, new_session, next_session, run_lock
from nas_meta.controller.supernet_job import check_workers, run_job
from nas_meta.controller.trial_loop import TrialLoop
from nas_meta.core.guard import plugin_call
from nas_meta.core.signals import Interrupted, Stop, interruptible
from nas_meta.errors import NasMetaError
from nas_meta.evaluation.progress import JobResult, Progress
from nas_meta.execution.engine import Engine, Event, cause
from nas_meta.journal.database import Journal
from nas_meta.journal.leaderboard import Leaderboard
from nas_meta.journal.run import CHECKPOINT, SUPERNET, Run, new_run_dir, pareto, write_atomically
from nas_meta.journal.status import ADAPTATION, JOB, Status, StatusFile, Watcher
from nas_meta.models import inputs
from nas_meta.models.profiling import LatencySettings
from nas_meta.space.architecture import Architecture
from nas_meta.space.latency_predictor import LatencyTable
from nas_meta.space.search_space import SearchSpace
from nas_meta.space.wrappers import timed_space
from nas_meta.strategy.protocol import Job

if TYPE_CHECKING:
    from nas_meta.controller.domain_adaptation import AdaptationJob
    from nas_meta.outputs.monitors.observer import Monitors
    from nas_meta.tasks.corpus.corpus import Corpus


def search(
    config: ResolvedConfig | Mapping[str, Any],
    run_dir: str | Path | None = None,
    inline: bool = False,
    watch: Watcher | None = None,
    resume: bool = False,
) -> Run:
    """Runs a search and returns its run.

    Args:
        config: what :func:`nas_meta.config.read_config` returns, or the same as plain data.
        run_dir: a new or empty directory; by default the config's, or a new one under ``runs/``.
        inline: runs trials in this process, without Ray.
        watch: called after everything that happens.
        resume: goes on with the run that the directory holds, if it holds one.

    Raises:
        ConfigError: the config or its data cannot be used, or is not that of the run to go on with.
        RunError: the directory holds a run already, is in use by another search, or cannot be written.
        Interrupted: by SIGINT; finished trials are in the journal.
    """
    resolved = config if isinstance(config, ResolvedConfig) else resolve(config)
    directory = run_dir or resolved.sections.run_dir
    if resume and directory is not None and Journal.begun(Path(directory)):
        return _run(config_to_resume(Path(directory), resolved), Path(directory), inline, watch, True)
    return _run(resolved, directory, inline, watch, False)


def resume(
    run_dir: str | Path,
    overrides: Sequence[str] = (),
    inline: bool = False,
    watch: Watcher | None = None,
    allow_plugins: bool = False,
) -> Run:
    """Goes on with a search from where its journal ends, with its own config.

    Args:
        overrides: ``section.key=value`` of the budget and the resources.
        allow_plugins: whether the code of plugin files that the run names may be run.

    Raises:
        ConfigError: an override changes something else.
        RunError: the directory holds no run, is in use by another search, or cannot be written.
        Interrupted: by SIGINT; finished trials are in the journal.
    """
    directory = Path(run_dir)
    return _run(config_to_resume(directory, None, overrides, allow_plugins), directory, inline, watch, True)


def _run(
    resolved: ResolvedConfig, directory: str | Path | None, inline: bool, watch: Watcher | None, resumed: bool
) -> Run:
    from nas_meta.outputs.monitors.from_config import check_monitors

    hooks = check_monitors(resolved, inline)
    folder = Path(directory) if resumed and directory is not None else new_run_dir(directory)
    with run_lock(folder), interruptible() as stop:
        _Search(resolved, folder, inline, watch or (lambda status: None), stop, resumed, hooks).run()
    return Run(folder, allow_plugins=True)


class _Search:
    loop: TrialLoop
    board: Monitors

    def __init__(
        self, resolved: ResolvedConfig, directory: Path, inline: bool, watch: Watcher, stop: Stop, resumed: bool,
        hooks: dict[str, Any],
    ):  # fmt: skip
        self.resolved, self.config, self.directory = resolved, resolved.sections, directory
        self.inline, self.watch, self.stop, self.resumed = inline, watch, stop, resumed
        self.objectives, self.cpus = self.config.optimised, cpus_per_trial(self.config, inline)
        self.hooks = hooks
        self.started = time.time()
        self.phase = "preparing"
        self.job_steps = self.job_step = 0
        self.file = StatusFile(directory)

    def run(self) -> None:
        from nas_meta.config.pretraining import prepare_pretraining
        from nas_meta.controller.weight_pool import with_pretraining
        from nas_meta.outputs.monitors.from_config import make_monitors

        self._happened()
        corpus = prepare_pretraining(self.resolved, self.directory)
        space, tasks, shape = load_problem(with_run_artifacts(self.resolved, self.directory))
        with plugin_call(space, "prepare"):
            space.prepare(tasks, self.config.seed)
        # Refuses limits that no architecture meets before anything is trained.
        space.sample(np.random.default_rng(self.config.seed))
        check_learner(self.resolved, space)
        session = next_session(self.directory) if self.resumed else new_session(self.config, self.inline)
        # Of the search it knows what that began with: its history is only that of these.
        strategy = make_strategy(self.resolved, space, session.trials, session.workers)
        stopping: Any = self.resolved.options["stopping"]
        stopping = stopping.resolved(most_steps(self.resolved), self.config.evaluation.interim_episodes)
        scoring = partial(make_evaluation, self.resolved, space, tasks, shape, 1)
        strategy = with_prefilter(strategy, self.resolved, scoring, self.directory)
        document = self.resolved.document
        document = {
            **document,
            "strategy": {**document["strategy"], **strategy.resolved},
            "stopping": {**document["stopping"], **stopping.model_dump(mode="json")},
        }
        info = {
            "config": document, "session": dataclasses.asdict(session), "tasks": list(tasks.report),
            "cpus": self.cpus,
        }  # fmt: skip
        if self.resumed:
            journal = Journal.append(self.directory)
            for key, value in info.items():
                journal.set(key, value)
        else:
            journal = Journal.create(self.directory, **info)
        (self.directory / "config.yaml").write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
        board = make_monitors(self.resolved, self.hooks, self.directory, space, document, journal.get("created", 0.0))
        rule_class = self.resolved.plugin("stopping")
        with plugin_call(rule_class, "__init__"):
            rule = rule_class(stopping, self.objectives)
        self.loop = TrialLoop(
            self.config,
            self.directory,
            journal,
            board,
            strategy,
            rule,
            self.stop,
            self._happened,
            before=session.before,
        )
        self.journal, self.board, self.strategy = journal, board, strategy
        with ExitStack() as ends:  # every one of them, whatever the others raise; the last comes first
            ends.push(self._broken)
            ends.callback(journal.close)
            ends.push(self._watched)
            ends.callback(strategy.close)
            if corpus is not None:
                self._adapt(corpus, space, tasks)
            if self.stop.is_set():
                raise self._interrupted()
            evaluation = make_evaluation(self.resolved, space, tasks, shape, self.cpus)
            evaluation = evaluation.with_rungs(stopping.rungs, stopping.episodes)
            evaluation, self.loop.weight_pool = with_pretraining(
                evaluation, self.resolved, corpus, strategy, self.directory, journal
            )
            engine = make_engine(evaluation, self.config, self.inline)
            ends.callback(engine.close)
            ends.callback(self.loop.abandon)
            self.started = time.time()
            self.stop.listened = True
            self._fit_latency(engine, space)
            self._job(engine)
            if not self.stop.is_set():
                self.phase = "searching"
                self.loop.restore()
                self.loop.run(engine, evaluation)
            if not self.stop.is_set():
                self._conclude(engine, space, tasks)
        if board.troubles:
            self._happened()  # that of the last moment too
        if self.stop.is_set():
            raise self._interrupted()
        if nothing := self._nothing():
            self._enter("failed")
            raise NasMetaError(nothing)

    def _interrupted(self) -> Interrupted:
        self._enter("interrupted")
        return Interrupted(
            f"interrupted; what had finished is kept, and 'nas-meta resume {self.directory}' goes on from there"
        )

    def _conclude(self, engine: Engine, space: SearchSpace, tasks: Any) -> None:
        """What is measured once, when the search is over."""
        from nas_meta.config.pretraining import space_before_adaptation

        self._enter("meta-testing")
        best = self.loop.leaderboard.best(self.config.evaluation.test_best)
        before = space_before_adaptation(self.resolved, self.directory, tasks)
        report = meta_test(engine, self.directory, best, space, self.stop.is_set, before)
        report = report | {"latency": self._latency(engine, space)}
        if not self.stop.is_set():
            self.journal.set("report", report)
            self._enter("done")

    @property
    def _workers(self) -> int:
        """Trials at a time."""
        return 1 if self.inline else self.config.resources.workers

    def _job(self, engine: Engine) -> None:
        """What the strategy wants done before it proposes anything; from its last checkpoint if there is one."""
        with plugin_call(self.strategy, "job"):
            job = self.strategy.job()
        if job is None:
            return
        findings = self.journal.get("job")
        if findings is not None:
            with plugin_call(self.strategy, "receive"):
                self.strategy.receive(findings, Run(self.directory).supernet)
            return
        check_workers(job, self._workers)
        result = self._run_job(engine, job, JOB, "training the supernet", CHECKPOINT)
        if result is None:
            return
        if result.weights is not None:
            write_atomically(self.directory / SUPERNET, result.weights)
        self.journal.set("job", dict(result.findings))
        (self.directory / CHECKPOINT).unlink(missing_ok=True)
        self.strategy.receive(result.findings, result.weights)

    def _run_job(
        self, engine: Engine, job: Job | AdaptationJob, number: int, phase: str, file: str
    ) -> JobResult | None:
        """Does a job, from its last checkpoint in that file if there is one; None where the search is interrupted."""
        checkpoint = self.directory / file
        self.job_steps, self.job_step = job.steps, 0
        self._enter(phase)
        self.board.job_start(number)

        def heard(event: Event | None) -> bool:
            if event is not None:
                self.board.output(number, event.output, event.worker)
                if not event.done:
                    self._job_step(event.value, checkpoint)
            self._happened()
            return not self.stop.is_set()

        try:
            result = run_job(job, engine, self.config, checkpoint, heard)
        except NasMetaError as error:
            self.board.job_end(str(error))
            raise
        if result is not None:
            self.board.job_end(None)
        return result

    def _adapt(self, corpus: Corpus, space: SearchSpace, tasks: Any) -> None:
        """Trains the pretrained model further on unlabelled text; candidates are cut from that."""
        section = self.config.pretraining
        if section is None or section.of != "model" or (self.directory / ADAPTED).is_dir():
            return
        from nas_meta.controller import domain_adaptation

        job = domain_adaptation.adaptation_of(self.resolved, corpus, space.tokenizer)
        engine = make_engine(domain_adaptation.adapting(self.config, self.cpus), self.config, self.inline)
        self.stop.listened = True
        try:
            result = self._run_job(engine, job, ADAPTATION, "adapting the model", domain_adaptation.CHECKPOINT)
        finally:
            engine.close()
        if result is None:
            return
        assert result.weights is not None  # the model is what the job is for
        self.journal.set("adaptation", dict(result.findings))
        domain_adaptation.write_adapted(job, result.weights, self.directory)
        domain_adaptation.make_anew(space, with_run_artifacts(self.resolved, self.directory))
        with plugin_call(space, "prepare"):
            space.prepare(tasks, self.config.seed)

    def _job_step(self, progress: Progress, checkpoint: Path) -> None:
        """A step of the job; its checkpoint is kept."""
        if progress.checkpoint is not None:
            write_atomically(checkpoint, progress.checkpoint)
        self.job_step = progress.step
        self.board.job_progress(progress.step, progress.values)

    def _fit_latency(self, engine: Engine, space: SearchSpace) -> None:
        """Where latency is an objective: a table that stands in for it until the end of the search."""
        if not self.config.optimises_latency:
            return
        self._enter("measuring latencies")
        settings = dataclasses.replace(self._timing, seconds=min(self._timing.seconds, 0.3))
        models = architectures_to_measure(space, self.config.latency.models, self.config.seed)
        seconds = self.journal.get("latencies")
        if seconds is None:
            seconds = [f["latency"] for f in measure_each(engine, models, settings, self.stop.is_set)]
            if len(seconds) < len(models):
                return
            self.journal.set("latencies", seconds)
        self.loop.table = LatencyTable(timed_space(space).space, models, seconds, settings.tokens)
        timed_space(space).latencies = self.loop.table
        # Refuses a limit of the latency that nothing meets.
        space.sample(np.random.default_rng(self.config.seed))

    def _latency(self, engine: Engine, space: SearchSpace) -> dict[str, Any]:
        """The latency of every trial on the Pareto front, measured while nothing else runs."""
        self._enter("measuring latencies")
        front = pareto(list(self.loop.trials.values()), self.objectives)
        architectures = [Architecture(t.architecture) for t in front]
        found = measure_each(engine, architectures, self._timing, self.stop.is_set)
        return latency_report(
            self.loop.table,
            self._timing,
            self.config,
            {str(t.id): f for t, f in zip(front, found, strict=False)},
            inputs.describe_inputs(space, self._timing.batch, self._timing.tokens),
        )

    @property
    def _timing(self) -> LatencySettings:
        return LatencySettings(**self.config.latency.model_dump(exclude={"models"}))

    def _enter(self, phase: str) -> None:
        self.phase = phase
        self._happened()

    def _happened(self) -> None:
        status = self._status()
        self.file.write(status)
        self.watch(status)

    def _nothing(self) -> str | None:
        """Why a search that went to its end has failed all the same; None if it has not."""
        if self.loop.leaderboard.leader is not None:
            return None
        reason = next((t.error for t in self.loop.trials.values() if t.error), "no trial was proposed")
        return f"no trial was completed; the first one failed because {reason}"

    def _watched(self, kind: type[BaseException] | None, error: BaseException | None, _: Any) -> None:
        """Tells whoever watches how the search ended."""
        leaderboard = self.loop.leaderboard
        if self.stop.is_set() or kind is KeyboardInterrupt:
            self.board.close(leaderboard, "interrupted", None)
        elif error is not None:
            self.board.close(leaderboard, "failed", cause(error))
        else:
            nothing = self._nothing()
            self.board.close(leaderboard, "failed" if nothing else "done", nothing)

    def _broken(self, kind: type[BaseException] | None, *_: Any) -> None:
        """The last word of a search that an exception ends."""
        if kind is not None:
            self.phase = "interrupted" if kind in (KeyboardInterrupt, Interrupted) else "failed"
            self.file.write(self._status())

    def _status(self) -> Status:
        # Neither is there before the journal is.
        loop, board, steps = getattr(self, "loop", None), getattr(self, "board", None), {JOB: self.job_step}
        return Status(
            phase="finishing" if self.phase == "searching" and self.stop.is_set() else self.phase,
            leaderboard=loop.leaderboard if loop else Leaderboard(self.objectives),
            total=self.config.budget.trials,
            started=self.started,
            steps={**steps, **loop.steps} if loop else steps,
            run_dir=self.directory,
            job_steps=self.job_steps,
            losses=dict(loop.losses) if loop else {},
            workers=self._workers,
            troubles=tuple(board.troubles) if board else (),
        )

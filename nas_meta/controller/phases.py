"""The phases of one search, from config to report: the only module that sees all the parts."""

from __future__ import annotations

import dataclasses
import logging
import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from nas_meta.config.compatibility import check_deployed, check_learner
from nas_meta.config.components import (
    cpus_per_trial,
    make_engine,
    make_evaluation,
    make_strategy,
    most_steps,
    with_prefilter,
)
from nas_meta.config.given_data import with_movable_data
from nas_meta.config.gpu_sharing import describe_device
from nas_meta.config.pretraining import ADAPTED, space_before_adaptation, with_run_artifacts
from nas_meta.config.problem import Problem, decided_shape, load_problem, load_space
from nas_meta.config.relative_limits import relative_limits, with_numbers
from nas_meta.config.resolved import ResolvedConfig
from nas_meta.controller.changes import checked_fingerprints
from nas_meta.controller.extras import Extras, begun_with, session_of
from nas_meta.controller.failure import failure_reason
from nas_meta.controller.final_test import FinalModels, meta_test
from nas_meta.controller.final_training import final_stage
from nas_meta.controller.latency import fit_latency_table, latency_report, measured_front
from nas_meta.controller.preflight import check_before_trials
from nas_meta.controller.sessions import RELATIVE, Session, open_journal
from nas_meta.controller.status_reporter import StatusReporter
from nas_meta.controller.supernet_job import JobKind, check_workers, run_job, workers_of
from nas_meta.controller.trial_loop import TrialLoop
from nas_meta.core.files import write_atomically
from nas_meta.core.guard import first_line, plugin_call
from nas_meta.core.signals import Interrupted, Stop
from nas_meta.errors import NasMetaError, RunError
from nas_meta.evaluation.full_way import query_count
from nas_meta.evaluation.progress import JobResult
from nas_meta.execution.engine import Engine, Event
from nas_meta.journal.database import Journal
from nas_meta.journal.run import CHECKPOINT, SUPERNET, Run, pareto
from nas_meta.journal.status import ADAPTATION, JOB, TRAINING, Watcher
from nas_meta.models import inputs
from nas_meta.models.profiling import LatencySettings
from nas_meta.strategy.protocol import Job, Strategy

if TYPE_CHECKING:
    from nas_meta.controller.domain_adaptation import AdaptationJob
    from nas_meta.evaluation.trial import Evaluation
    from nas_meta.outputs.monitors.monitor import Monitors
    from nas_meta.tasks.corpus.corpus import Corpus

log = logging.getLogger(__name__)
SUPERNET_JOB = JobKind(JOB, "training the supernet", "the supernet could not be trained", CHECKPOINT)
ADAPTATION_JOB = JobKind(
    ADAPTATION, "adapting the model", "the pretrained model could not be adapted", "adapted.checkpoint"
)


@dataclass(frozen=True)
class _Plan:
    """What a search needs before anything runs.

    Attributes:
        problem: The space, the tasks and the shape of episodes.
        corpus: The text of pre-training; None without it.
        evaluation: What every trial goes through; it is sent to the workers.
        session: What stays the same however often the search is resumed.
        stopping: The options of the stopping rule, resolved.
    """

    problem: Problem
    corpus: Corpus | None
    evaluation: Evaluation
    session: Session
    stopping: Any


class SearchRun:
    """One process of a search: prepare, adapt, train the strategy's supernet, run trials, test the best."""

    journal: Journal
    monitors: Monitors
    strategy: Strategy
    engine: Engine
    loop: TrialLoop

    def __init__(
        self, resolved: ResolvedConfig, directory: Path, inline: bool, watch: Watcher, stop: Stop, resumed: bool,
        extras: Extras,
    ):  # fmt: skip
        self.resolved, self.config, self.directory = resolved, resolved.sections, directory
        self.inline, self.stop, self.resumed, self.extras = inline, stop, resumed, extras
        self.objectives, self.cpus = self.config.optimised, cpus_per_trial(self.config, inline)
        self.workers = 1 if inline else self.config.resources.workers
        trials, device = self.config.budget.trials, describe_device(self.config, inline)
        self.reporter = StatusReporter(directory, self.objectives, trials, self.workers, device, stop, watch)

    def run(self) -> None:
        """Run the phases one after the other.

        Raises:
            NasMetaError: The search cannot be run, or no trial was completed.
            Interrupted: By SIGINT.
        """
        with ExitStack() as ends:  # each of them runs, whatever the others raise; the last one comes first
            ends.enter_context(self.reporter.heartbeat())
            ends.push(self._on_crash)
            self.reporter.publish()
            plan = self._prepare()
            self.engine = self._start_engine(plan.evaluation)
            ends.callback(lambda: self.engine.close())  # the last one that was started
            if not self.resumed:
                check_before_trials(self.engine, plan.evaluation, self.resolved, self._stopped)
                self._raise_if_interrupted()
            self.strategy = self._make_strategy(plan.problem, plan.session)
            self._open(plan)
            ends.callback(self.journal.close)
            ends.push(self._on_exit)
            ends.callback(lambda: self.strategy.close())
            plan = self._adapt(plan)
            self._raise_if_interrupted()
            self._search(plan, ends)
        if self.monitors.troubles:
            self.reporter.publish()  # with what went wrong in the last moment
        self._raise_if_interrupted()
        if reason := self._failure_reason():
            self.reporter.enter("failed", reason)
            raise NasMetaError(reason)

    def _prepare(self) -> _Plan:
        """Load data and weights; refuse whatever would fail later."""
        from nas_meta.config.pretraining import prepare_pretraining

        check_deployed(self.resolved)
        corpus = prepare_pretraining(self.resolved, self.directory)
        problem = load_problem(with_run_artifacts(self.resolved, self.directory))
        relative = relative_limits(self.resolved)
        self.resolved = with_numbers(self.resolved, problem.space)
        self.config = self.resolved.sections
        self.recorded = checked_fingerprints(self.resolved, self.directory, problem, corpus, self.cpus, self.resumed)
        if relative:
            self.recorded[RELATIVE] = relative
        # Refuses limits that no architecture meets before anything is trained.
        problem.space.sample(np.random.default_rng(self.config.seed))
        check_learner(self.resolved, problem.space)
        session = session_of(self.extras, self.resolved, self.inline, problem.space, self.resumed, self.directory)
        options: Any = self.resolved.options["stopping"]
        stopping = options.resolved(most_steps(self.resolved), self.config.evaluation.interim_episodes)
        evaluation = self._evaluation(problem, corpus, stopping)
        final_stage(self.resolved, evaluation, self.directory, None)  # refuses a teacher that cannot be loaded
        return _Plan(problem, corpus, evaluation, session, stopping)

    def _evaluation(self, problem: Problem, corpus: Corpus | None, stopping: Any) -> Evaluation:
        """What every trial goes through."""
        from nas_meta.config.pretraining import with_pretraining

        evaluation = make_evaluation(self.resolved, *problem, self.cpus)
        return with_pretraining(evaluation.with_rungs(stopping.rungs, stopping.episodes), self.resolved, corpus)

    def _make_strategy(self, problem: Problem, session: Session) -> Strategy:
        """Build the strategy with the original trial and worker counts: replay must reproduce its proposals."""
        strategy = make_strategy(self.resolved, problem.space, session.trials, session.workers)
        scoring = partial(make_evaluation, self.resolved, *problem, 1, trains=False)
        return begun_with(session, with_prefilter(strategy, self.resolved, scoring, self.directory))

    def _open(self, plan: _Plan) -> None:
        """Open the journal, the monitors and the trial loop."""
        document = dict(self.resolved.document)
        document["strategy"] = {**document["strategy"], **self.strategy.resolved}
        # Where the data decide about the shape of episodes, the run has its own from now on.
        document["tasks"] = {**document["tasks"], **decided_shape(self.resolved, plan.problem)}
        document["stopping"] = {**document["stopping"], **plan.stopping.model_dump(mode="json")}
        info = {
            "config": document, "session": dataclasses.asdict(plan.session), "tasks": list(plan.problem.tasks.report),
            "cpus": self.cpus, **self.recorded,
        }  # fmt: skip
        self.journal = open_journal(self.directory, info, self.resumed)
        text = yaml.safe_dump(with_movable_data(document, self.directory), sort_keys=False)
        write_atomically(self.directory / "config.yaml", text.encode(), private=True)
        from nas_meta.outputs.monitors.from_config import make_monitors

        self.monitors = make_monitors(
            self.resolved, self.extras.hooks, self.directory, plan.problem.space, document,
            self.journal.get("created", 0.0), self.extras.callbacks,
        )  # fmt: skip
        self.reporter.monitors = self.monitors
        self.reporter.data_report = tuple(plan.problem.tasks.report)

    def _adapt(self, plan: _Plan) -> _Plan:
        """Train the pretrained model further on unlabelled text; candidates are cut from the adapted model.

        The space and the strategy are built anew on the adapted model, so nobody holds the old weights.
        """
        section = self.config.pretraining
        if plan.corpus is None or section is None or section.of != "model" or (self.directory / ADAPTED).is_dir():
            return plan
        from nas_meta.controller import domain_adaptation

        job = domain_adaptation.make_job(self.resolved, plan.corpus, plan.problem.space.tokenizer)
        self.engine.close()
        self.engine = self._start_engine(domain_adaptation.make_worker(self.config, self.cpus))
        result = self._run_job(self.engine, job, ADAPTATION_JOB)
        if result is None:
            return plan
        assert result.weights is not None  # the model is what the job is for
        self.journal.set("adaptation", dict(result.findings))
        domain_adaptation.write_adapted(job, result.weights, self.directory)
        (self.directory / ADAPTATION_JOB.checkpoint).unlink(missing_ok=True)
        space = load_space(with_run_artifacts(self.resolved, self.directory), plan.problem.tasks)
        problem = plan.problem._replace(space=space)
        self.strategy.close()
        self.strategy = self._make_strategy(problem, plan.session)
        evaluation = self._evaluation(problem, plan.corpus, plan.stopping)
        self.engine.close()
        self.engine = self._start_engine(evaluation)
        return dataclasses.replace(plan, problem=problem, evaluation=evaluation)

    def _search(self, plan: _Plan, ends: ExitStack) -> None:
        """Train the strategy's supernet, run the trials and test the best."""
        from nas_meta.controller.weight_pool import WeightPool

        engine, evaluation, stage = self.engine, plan.evaluation, plan.evaluation.pretraining
        pool = WeightPool(stage, evaluation.space, self.directory, self.journal) if stage is not None else None
        rule_class = self.resolved.plugin("stopping")
        with plugin_call(rule_class, "__init__"):
            rule = rule_class(plan.stopping, self.objectives)
        self.loop = self.reporter.loop = TrialLoop(
            config=self.config,
            directory=self.directory,
            journal=self.journal,
            monitors=self.monitors,
            strategy=self.strategy,
            rule=rule,
            stop=self.stop,
            on_event=self.reporter.publish,
            earlier_seconds=plan.session.before,
            clock=self.reporter.clock,
            weight_pool=pool,
        )
        ends.callback(self.loop.abandon)
        self.reporter.started = time.time()
        self._fit_latency(engine, plan.problem)
        self._train_supernet(engine)
        if not self.stop.is_set():
            self.reporter.phase = "searching"
            self.loop.restore()
            self.loop.run(engine, evaluation)
        if not self.stop.is_set() and self.loop.leaderboard.leader is not None:
            self._conclude(engine, plan)

    def _start_engine(self, payload: Any) -> Engine:
        """Start the workers; from now on, signals are polled."""
        engine = self.reporter.engine = make_engine(payload, self.config, self.inline)
        self.stop.install()
        self.stop.listened = True
        return engine

    def _fit_latency(self, engine: Engine, problem: Problem) -> None:
        """Where latency is an objective: fit a table that predicts it until the end of the search."""
        if not self.config.optimises_latency:
            return
        self.reporter.enter("measuring latencies")
        self.loop.table = fit_latency_table(
            engine, problem.space, self.config.latency.models, self._latency_settings, self.config.seed, self.journal,
            self._stopped, self.config.resources.retries,
        )  # fmt: skip

    def _train_supernet(self, engine: Engine) -> None:
        """Run the job that the strategy asks for before it proposes anything, such as training a supernet."""
        with plugin_call(self.strategy, "job"):
            job = self.strategy.job()
        if job is None:
            return
        findings = self.journal.get("job")
        if findings is not None:
            try:
                weights = Run(self.directory).supernet
            except RunError as error:
                log.warning("the supernet is trained again: %s", error)
            else:
                with plugin_call(self.strategy, "receive"):
                    self.strategy.receive(findings, weights)
                return
        check_workers(workers_of(job), self.workers)
        result = self._run_job(engine, job, SUPERNET_JOB)
        if result is None:
            return
        if result.weights is not None:
            write_atomically(self.directory / SUPERNET, result.weights)
        self.journal.set("job", dict(result.findings))
        (self.directory / CHECKPOINT).unlink(missing_ok=True)
        with plugin_call(self.strategy, "receive"):
            self.strategy.receive(result.findings, result.weights)

    def _run_job(self, engine: Engine, job: Job | AdaptationJob, kind: JobKind) -> JobResult | None:
        """Run a job, from its last checkpoint if there is one; None where the search is interrupted."""
        self.reporter.job_steps, self.reporter.job_step = job.steps, 0
        self.reporter.enter(kind.phase)
        self.monitors.job_start(kind.number)
        checkpoint = self.directory / kind.checkpoint

        def on_event(event: Event | None) -> bool:
            if event is not None:
                self.monitors.output(kind.number, event.output, event.worker)
            if event is not None and not event.done:
                if event.value.checkpoint is not None:
                    write_atomically(checkpoint, event.value.checkpoint)
                self.reporter.job_step = event.value.step
                self.monitors.job_progress(event.value.step, event.value.values)
            self.reporter.publish()
            return not self.stop.is_set()

        try:
            result = run_job(job, engine, self.config, checkpoint, on_event, kind.failure)
        except NasMetaError as error:
            self.monitors.job_end(str(error))
            raise
        if result is not None:
            self.monitors.job_end(None)
        return result

    def _conclude(self, engine: Engine, plan: _Plan) -> None:
        """Do once what only the end of a search needs: final training, meta-test and latencies."""
        problem, section, retries = plan.problem, self.config.evaluation, self.config.resources.retries
        stage = final_stage(self.resolved, plan.evaluation, self.directory, self.journal)
        if stage is not None:
            self.reporter.enter(TRAINING)
            stage.run(engine, self.loop.leaderboard, retries, self._stopped, self.reporter.count)
        self.reporter.enter("meta-testing")
        best = self.loop.leaderboard.best(section.test_best)
        before = space_before_adaptation(self.resolved, self.directory, problem.tasks)
        models = FinalModels(
            self.directory, best, problem.space, before, self.journal if section.compare else None, stage
        )
        report = meta_test(engine, models, retries, self._stopped, self.reporter.count)
        self.reporter.enter("measuring latencies")
        front, settings = pareto(list(self.loop.trials.values()), self.objectives), self._latency_settings
        measured, missing = measured_front(engine, front, settings, self._stopped, retries)
        shape = inputs.describe_inputs(problem.space, settings.batch, settings.tokens)
        latency = latency_report(self.loop.table, settings, self.config, measured, shape)
        queries = query_count(problem.tasks["meta-test"], problem.shape, section.protocol)
        report |= {"queries": queries, "latency": latency, "unmeasured": report.get("unmeasured", {}) | missing}
        if not self.stop.is_set():
            self.journal.set("report", report)
            self.monitors.tested(report, self.loop.leaderboard)
            self.reporter.enter("done")

    def _stopped(self) -> bool:
        """Publish the status while calls run, and return whether the search was interrupted."""
        self.reporter.publish()
        return self.stop.is_set()

    @property
    def _latency_settings(self) -> LatencySettings:
        return LatencySettings(**self.config.latency.model_dump(exclude={"models"}), form=self.config.latency_form)

    def _raise_if_interrupted(self) -> None:
        if self.stop.is_set():
            self.reporter.enter("interrupted")
            if not Journal.exists(self.directory):
                raise Interrupted("interrupted before the first trial")
            raise Interrupted(
                f"interrupted; finished trials are kept, and 'nas-meta resume {self.directory}' resumes the search"
            )

    def _failure_reason(self) -> str | None:
        """Why a search that ran to its end has failed all the same; None if it has not."""
        loop = self.reporter.loop
        return failure_reason(self.reporter.leaderboard, self.directory, loop is not None and loop.failures_repeat)

    def _on_exit(self, kind: type[BaseException] | None, error: BaseException | None, _: Any) -> None:
        """Close the monitors with how the search ended."""
        leaderboard = self.reporter.leaderboard
        if self.stop.is_set() or kind is KeyboardInterrupt:
            self.monitors.close(leaderboard, "interrupted", None)
        elif error is not None:
            self.monitors.close(leaderboard, "failed", first_line(error))
        else:
            reason = self._failure_reason()
            self.monitors.close(leaderboard, "failed" if reason else "done", reason)
        if self.reporter.loop is not None:
            self.reporter.loop.note_shown()

    def _on_crash(self, kind: type[BaseException] | None, error: BaseException | None, _: Any) -> None:
        """Write the last status of a search that an exception ends."""
        if error is not None:
            phase = "interrupted" if kind in (KeyboardInterrupt, Interrupted) else "failed"
            self.reporter.phase, self.reporter.error = phase, first_line(error) if phase == "failed" else ""
            self.reporter.write()

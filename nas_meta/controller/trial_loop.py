"""The search proper: every free worker gets a trial, until the budget, the time or the strategy is at its end."""

from __future__ import annotations

import dataclasses
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas_meta.config.resolved import Config
from nas_meta.controller.proposals import Proposals
from nas_meta.core.guard import plugin_call
from nas_meta.core.objectives import signed_values
from nas_meta.core.signals import Stop
from nas_meta.errors import RunError
from nas_meta.evaluation.trial import Evaluation
from nas_meta.execution.engine import Engine, Event
from nas_meta.journal.database import Journal
from nas_meta.journal.leaderboard import Leaderboard
from nas_meta.journal.records import Trial
from nas_meta.journal.run import weights_path, write_atomically
from nas_meta.outputs.monitors.monitor import Monitor
from nas_meta.space.architecture import Architecture
from nas_meta.space.latency_predictor import LatencyTable
from nas_meta.strategy.protocol import Strategy
from nas_meta.strategy.stopping.rule import RungReport, StoppingRule

if TYPE_CHECKING:
    from nas_meta.controller.weight_pool import WeightPool

INTERRUPTED = "the search was interrupted"


@dataclass
class TrialLoop:
    """Trials from proposal to journal.

    Attributes:
        on_event: Called after every event.
        steps: meta-training steps that running trials have taken.
        losses: the loss of the last of these.
        weight_pool: weights of candidates that are pre-trained, where they are.
        before: seconds that earlier sessions of this search took.
    """

    config: Config
    directory: Path
    journal: Journal
    monitors: Monitor
    strategy: Strategy
    rule: StoppingRule
    stop: Stop
    on_event: Callable[[], None]
    steps: dict[int, int] = field(default_factory=dict)
    losses: dict[int, float] = field(default_factory=dict)
    before: float = 0.0
    table: LatencyTable | None = None
    weight_pool: WeightPool | None = None

    def __post_init__(self) -> None:
        self.objectives = self.config.optimised
        self.leaderboard = Leaderboard(self.objectives)
        self.trials = self.leaderboard.trials
        self.proposals = Proposals(self.strategy, self.objectives, self.trials)
        self._again: deque[int] = deque()
        self._since: dict[int, float] = {}
        self._died: dict[int, int] = {}
        self._weights: set[int] = set()  # trials whose weights are on disk
        self._hungry = False  # whether there are more trials than free workers

    def restore(self) -> None:
        """Goes back to where the journal ends: strategy and rule as they were, and trials in flight to be run again.

        Raises:
            RunError: the strategy does not follow from its seed, or the journal lacks trials.
        """
        for trial in self.journal.trials():
            self.leaderboard.put(trial)
        files = weights_path(self.directory, 0).parent.glob("*.safetensors")
        self._weights |= {int(path.stem) for path in files if path.stem.isdigit()} & set(self.trials)
        said, reports = self.journal.said(), self.journal.reports()
        named = {s.trial for s in said if s.trial is not None} | {report.trial for report, _ in reports}
        if list(self.trials) != list(range(1, len(self.trials) + 1)) or not named <= set(self.trials):
            raise RunError(f"the search cannot go on: the journal of {self.directory} has lost trials")
        self._again.extend(self.proposals.replay(said))
        if self.weight_pool is not None:
            self.weight_pool.restore(self.trials.values())
        for number in self._again:
            self._forget(self.trials[number], INTERRUPTED)
        for report, went_on in reports:
            if self.trials[report.trial].status in ("completed", "stopped"):
                self.rule.recall(report, went_on)

    def run(self, engine: Engine, evaluation: Evaluation) -> None:
        """Runs trials until there are no more to run, or the search is interrupted and its time of grace is over."""
        self.engine, self.evaluation, self.started = engine, evaluation, time.time()
        self._fill()
        self.on_event()
        while self._since or self._hungry:
            for event in engine.events() if self._since else self._silence():
                if self.stop.over(self.config.resources.grace_seconds):
                    return
                if event is not None and event.key in self._since:
                    self._take(event)
                elif self._hungry:
                    self._fill()
                self._end_overdue()
                self.on_event()

    def _silence(self) -> Iterator[None]:
        """Where nothing runs: all workers are still starting, or have died."""
        self.engine.await_worker()
        yield None

    def abandon(self) -> None:
        """What still runs is over, and will be run again if the search goes on."""
        for trial in list(self.leaderboard.running.values()):
            self._store(trial, "stopped", {}, INTERRUPTED)
            self._show(self.trials[trial.id])

    def _fill(self) -> None:
        """Gives every free worker a trial, as far as the budget and the strategy go."""
        while True:
            more = bool(self._again) or len(self.trials) < self.config.budget.trials
            self._hungry = more and not self._out_of_time() and not self.engine.free()
            if not more or self._out_of_time() or self._hungry:
                return
            if self._again:
                self._start(self.trials[self._again.popleft()])
                continue
            architecture = self.proposals.ask()
            if architecture is None:
                return
            self._start(Trial(len(self.trials) + 1, dict(architecture.values), self.config.seed, 0))

    def _start(self, trial: Trial) -> None:
        architecture = Architecture(trial.architecture)
        steps = self.evaluation.of(architecture).learner.options.steps
        trial = dataclasses.replace(
            trial,
            fidelity=steps,
            planned=steps,
            status="running",
            metrics={},
            error=None,
            started=time.time(),
            finished=None,
        )
        self.leaderboard.put(trial)
        if self.weight_pool is not None:
            begun = self.weight_pool.begin(trial)
            if begun is None:  # it starts when another one has made the weights that it starts from
                self.journal.write(trial, self.proposals.said())
                return
        else:
            with plugin_call(self.strategy, "start_of"):
                begun = [self.strategy.start_of(architecture)]
        self._since[trial.id] = time.time()
        self.engine.submit(trial.id, "trial", architecture, trial.seed, self._keep_above(), *begun)
        self.journal.write(trial, self.proposals.said())
        self.monitors.trial_start(trial)

    def _take(self, event: Event) -> None:
        trial = self.trials[event.key]
        self.monitors.output(trial.id, event.output, event.worker)
        if not event.done and event.value.pretraining:
            if event.value.pretrained is not None:
                self._go_on(self.weight_pool.arrived(trial, event.value.pretrained))
            self.monitors.trial_progress(trial, event.value.step, event.value.values)
            return
        if not event.done:
            self.steps[event.key] = event.value.step
            self.losses[event.key] = event.value.values.get("loss", math.nan)
            if event.paused:
                self._judge(trial, event.value)
            self.monitors.trial_progress(trial, event.value.step, event.value.values)
            return
        del self._since[event.key]
        if self.weight_pool is not None:
            self._again.extend(self.weight_pool.ended(trial))
        if trial.status == "running" and event.died and self._died.get(trial.id, 0) < self.config.resources.retries:
            self._died[trial.id] = self._died.get(trial.id, 0) + 1
            self._forget(trial, event.error)
            self._again.append(trial.id)
            self._fill()
            return
        if trial.status == "running":
            trial = self._end(trial, event)
        self._fill()
        # What nobody waits for comes last, while the workers work.
        self._show(trial)
        self._drop_weights()

    def _go_on(self, waiting: Sequence[int]) -> None:
        """Starts trials that waited for the weights of another."""
        self._again.extend(waiting)
        if waiting:
            self._fill()

    def _judge(self, trial: Trial, progress: Any) -> None:
        """Says at a rung whether a trial goes on; if not, it ends with what stands there."""
        metrics = self._with_latency(trial, progress.metrics)
        report = RungReport(trial.id, progress.step, signed_values(metrics, self.objectives), progress.scores)
        with plugin_call(self.rule, "should_continue"):
            go_on = bool(self.rule.decide(report))
        self.journal.report(report, go_on)
        self.engine.proceed(trial.id, go_on)
        if not go_on:
            self._conclude(trial, "stopped", progress.metrics, None)

    def _end(self, trial: Trial, event: Event) -> Trial:
        """The end of a trial that was not stopped."""
        if event.error:
            times = self._died.get(trial.id, 0) + 1
            again = f" ({times} times)" if event.died and times > 1 else ""
            return self._fail(trial, "failed", event.error + again)
        if event.value.weights is not None:
            # Before the journal: a trial that is in it can be meta-tested.
            path = weights_path(self.directory, trial.id)
            path.parent.mkdir(exist_ok=True)
            write_atomically(path, event.value.weights)
            self._weights.add(trial.id)
        return self._conclude(trial, "completed", event.value.metrics, None)

    def _end_overdue(self) -> None:
        """Ends trials that take longer than they may, and frees their workers."""
        minutes = self.config.budget.timeout_minutes
        if minutes is None:
            return
        # They stand there in the order in which they started.
        while self._since and time.time() - next(iter(self._since.values())) > 60 * minutes:
            number = next(iter(self._since))
            self.engine.cancel(number)
            del self._since[number]
            trial = self.trials[number]
            if self.weight_pool is not None:
                self._again.extend(self.weight_pool.ended(trial))
            if trial.status == "running":
                trial = self._fail(trial, "timed-out", f"it took longer than {minutes:g} minutes")
            self._show(trial)
            self._hungry = True

    def _fail(self, trial: Trial, status: str, reason: str) -> Trial:
        self.rule.forget(trial.id)
        return self._conclude(trial, status, {}, reason)

    def _conclude(self, trial: Trial, status: str, metrics: Mapping[str, float], error: str | None) -> Trial:
        """The end of a trial in the journal, then told to the strategy."""
        trial = self._store(trial, status, metrics, error, told=True)
        self.proposals.tell(trial)
        return trial

    def _store(
        self, trial: Trial, status: str, metrics: Mapping[str, float], error: str | None, told: bool = False
    ) -> Trial:
        trial = dataclasses.replace(
            trial, fidelity=self.steps.get(trial.id, 0), status=status, metrics=self._with_latency(trial, metrics),
            error=error, finished=time.time(),
        )  # fmt: skip
        self.leaderboard.put(trial)
        # Durable before anybody, the strategy first of all, hears of it.
        self.journal.write(trial, self.proposals.said(trial if told else None))
        return trial

    def _with_latency(self, trial: Trial, metrics: Mapping[str, float]) -> Mapping[str, float]:
        """A trial's metrics with what the table tells of its latency."""
        if self.table is None or not metrics:
            return metrics
        return {**metrics, "latency": self.table.predict(Architecture(trial.architecture))}

    def _forget(self, trial: Trial, reason: str) -> None:
        """A trial will be run again: nothing of this time counts."""
        self.rule.forget(trial.id)
        self.journal.forget_reports(trial.id)
        self.monitors.forget(trial, reason)
        self._forget_progress(trial)

    def _forget_progress(self, trial: Trial) -> None:
        self.steps.pop(trial.id, None)
        self.losses.pop(trial.id, None)

    def _show(self, trial: Trial) -> None:
        self._forget_progress(trial)
        self.monitors.trial_end(trial, self.leaderboard)

    def _keep_above(self) -> float:
        """The signed first objective below which a worker need not send a trial's weights."""
        keep, objective = self.config.evaluation.keep, self.objectives[0]
        ranked = self.leaderboard.best(keep)
        return objective.sign * ranked[-1].metrics[objective.metric] if len(ranked) == keep else -math.inf

    def _drop_weights(self) -> None:
        """Removes the weights of trials that are no longer among the best."""
        kept = {t.id for t in self.leaderboard.best(self.config.evaluation.keep)}
        for number in self._weights - kept - self.leaderboard.running.keys():
            weights_path(self.directory, number).unlink(missing_ok=True)
            self._weights.remove(number)

    def _out_of_time(self) -> bool:
        hours = self.config.budget.hours
        return self.stop.is_set() or (hours is not None and self.before + time.time() - self.started > hours * 3600)

"""The loop that runs trials: every free worker gets one, until the budget, the time or the proposals run out.

A search can be killed at any moment, so an outcome is written to the journal before anything depends on it. For
example, when trial 7 ends:

1. Its weights are saved, if they rank high enough: every trial that the journal lists as completed can be meta-tested.
2. One transaction writes its row and the event ``told 7``; it is on disk when the call returns.
3. The strategy receives the outcome, then proposes the next trial for the free worker.
4. Monitors are notified and old weights are deleted; by then the workers are busy again.

If the process dies before step 2, the journal lists trial 7 as running, and a resumed search reruns it. If it dies
after step 2, replay reports the outcome to the strategy. Either way the strategy ends up in the state that it would
have without the crash.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas_meta.config.resolved import Config
from nas_meta.controller.failure import repeats_itself
from nas_meta.controller.proposals import Proposals
from nas_meta.controller.sessions import SECONDS
from nas_meta.controller.shown_trials import ShownTrials
from nas_meta.controller.start import start_of_strategy
from nas_meta.controller.stored_weights import StoredWeights
from nas_meta.core.active_clock import ActiveClock
from nas_meta.core.guard import plugin_call
from nas_meta.core.objectives import signed_values
from nas_meta.core.signals import Stop
from nas_meta.errors import RunError
from nas_meta.evaluation.trial import Evaluation
from nas_meta.execution.engine import Engine, Event
from nas_meta.journal.database import Journal
from nas_meta.journal.leaderboard import Leaderboard
from nas_meta.journal.records import Trial
from nas_meta.outputs.monitors.monitor import Monitor
from nas_meta.space.architecture import Architecture
from nas_meta.space.latency_predictor import LatencyTable
from nas_meta.strategy.protocol import Strategy
from nas_meta.strategy.stopping.rule import RungReport, StoppingRule

if TYPE_CHECKING:
    from nas_meta.controller.weight_pool import WeightPool

KEEP_SECONDS_EVERY = 10.0
INTERRUPTED = "the search was interrupted"


@dataclass
class TrialLoop:
    """The trials of one search, from proposal to journal.

    Attributes:
        config: The config of the search.
        directory: The run directory.
        journal: The journal, open for writing.
        monitors: Notified of everything that happens to trials.
        strategy: Proposes architectures.
        rule: Decides at every rung whether a trial continues.
        stop: Whether the search was interrupted.
        on_event: Called after every event.
        steps: Meta-training steps that running trials have taken, by trial id.
        losses: The loss at the last of these steps, by trial id.
        earlier_seconds: Seconds that earlier sessions of this search took.
        clock: Counts the time in which this session runs.
        table: Predicts latencies; None unless latency is an objective.
        weight_pool: Pre-trained weights of candidates; None if candidates are not pre-trained.
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
    earlier_seconds: float = 0.0
    clock: ActiveClock = field(default_factory=ActiveClock)
    table: LatencyTable | None = None
    weight_pool: WeightPool | None = None

    def __post_init__(self) -> None:
        self.objectives = self.config.optimised
        self.leaderboard = Leaderboard(self.objectives)
        self.trials = self.leaderboard.trials
        self.proposals = Proposals(self.strategy, self.objectives, self.trials)
        self._retry_queue: deque[int] = deque()  # trials that start before any new proposal
        self._started_at: dict[int, float] = {}  # trials on workers, in the order of their start; on the clock
        self._began: dict[int, float] = {}  # the same for all trials of this session
        self._seconds_kept = -math.inf  # on the clock, when the journal last got the time
        self._deaths: dict[int, int] = {}  # how many workers died, by trial id
        self._weights = StoredWeights(self.directory, self.leaderboard, self.config.evaluation.keep)
        self._shown = ShownTrials(self.directory)
        self._published: set[int] = set()  # trials that the monitors received, but may not have handled yet
        self._earlier_failures: Counter[str] = Counter()  # by reason; those of sessions before this one
        self.earlier = 0  # trials that had ended when this session began
        self._waiting_for_worker = False  # whether a trial could start if a worker were free

    def restore(self) -> None:
        """Restore the state at the end of the journal, and queue the trials that were running then for a rerun.

        Does nothing for a new search. The strategy is replayed, and the stopping rule gets the reports of trials that
        ended. Reports of trials that are rerun are deleted: the rerun sends them again. Monitors get the ends of trials
        that they have not shown.

        Raises:
            RunError: The strategy does not repeat its proposals, or trials are missing from the journal.
        """
        for trial in self.journal.trials():
            self.leaderboard.put(trial)
        self._earlier_failures = self.leaderboard.failures.copy()
        self._weights.restore()
        events, reports = self.journal.ask_tell_events(), self.journal.reports()
        named = {e.trial for e in events if e.trial is not None} | {report.trial for report, _ in reports}
        if list(self.trials) != list(range(1, len(self.trials) + 1)) or not named <= set(self.trials):
            raise RunError(
                f"the search cannot be resumed: trials are missing from the journal of {self.directory}; "
                "expected a journal with trials 1, 2, 3, ... without gaps"
            )
        self._retry_queue.extend(self.proposals.replay(events))
        if self.weight_pool is not None:
            self.weight_pool.restore(self.trials.values())
        self.earlier = len(self.trials) - len(self._retry_queue)
        for number in self._retry_queue:
            self._forget(self.trials[number], INTERRUPTED)
        for report, continued in reports:
            # A trial that was interrupted is stopped, too; its rerun reports again.
            again = report.trial in self._retry_queue
            if not again and self.trials[report.trial].status in ("completed", "stopped"):
                self.rule.recall(report, continued)
        ended = self.trials.keys() - self._retry_queue
        for number in self._shown.restore(ended):
            self._publish_end(self.trials[number])

    def run(self, engine: Engine, evaluation: Evaluation) -> None:
        """Run trials until none are left, or until the grace period after an interruption is over.

        Args:
            engine: Runs the trials on its workers.
            evaluation: What every trial goes through.
        """
        self.engine, self.evaluation, self.started = engine, evaluation, self.clock.seconds()
        self._fill()
        self.on_event()
        while self._started_at or self._waiting_for_worker:
            for event in engine.events() if self._started_at else self._await_worker():
                if self.stop.over(self.config.resources.grace_seconds):
                    return
                if event is not None and event.key in self._started_at:
                    self._handle_event(event)
                elif self._waiting_for_worker:
                    self._fill()
                self._end_overdue()
                if self.clock.seconds() - self._seconds_kept > KEEP_SECONDS_EVERY:
                    self._keep_seconds()
                self.on_event()

    @property
    def failures_repeat(self) -> bool:
        """Whether trials only fail, for the same reason, so that no further ones start."""
        most = self.config.budget.max_identical_failures
        return repeats_itself(self.leaderboard, self._earlier_failures, most)

    def _await_worker(self) -> Iterator[None]:
        """Stand in for the engine's events while no trial runs: all workers are still starting, or have died."""
        self.engine.await_worker()
        yield None

    def abandon(self) -> None:
        """End the trials that still run; a resumed search reruns them.

        They are stored as stopped, but not reported to the strategy, so replay finds them in flight. The last one comes
        first: if its first write to the journal failed, the events that the journal lacks name it.
        """
        for trial in sorted(self.leaderboard.running.values(), key=lambda trial: -trial.id):
            self._store(trial, "stopped", {}, INTERRUPTED)
            self._publish_end(self.trials[trial.id])
        self._keep_seconds()

    def _keep_seconds(self) -> None:
        """Write the time of all sessions to the journal, for ``budget.hours`` of a resumed search."""
        self._seconds_kept = self.clock.seconds()
        self.journal.set(SECONDS, self.earlier_seconds + self._seconds_kept)

    def _fill(self) -> None:
        """Start trials until no worker is free, or until the budget, the time or the proposals run out.

        Reruns come before new proposals. ``_waiting_for_worker`` is set whenever a trial could start but no worker is
        free; the loop then calls this method again at the next event.
        """
        while True:
            more = bool(self._retry_queue) or len(self.trials) < self.config.budget.trials
            more = more and not self.failures_repeat
            self._waiting_for_worker = more and not self._out_of_time() and not self.engine.free()
            if not more or self._out_of_time() or self._waiting_for_worker:
                return
            if self._retry_queue:
                self._start(self.trials[self._retry_queue.popleft()])
                continue
            architecture = self.proposals.ask()
            if architecture is None:
                return
            self._start(Trial(len(self.trials) + 1, dict(architecture.values), self.config.seed, 0))

    def _start(self, trial: Trial) -> None:
        """Submit a trial and write it to the journal together with the event of its proposal.

        If the process dies between the two, the resumed search asks for the same proposal again.
        """
        architecture = Architecture(trial.architecture)
        steps = self.evaluation.of(architecture).learner.options.steps
        pool = self.weight_pool
        start = start_of_strategy(self.strategy, architecture, steps) if pool is None else pool.acquire(trial)
        if start is not None and start.steps is not None:
            steps = start.steps
        trial = dataclasses.replace(
            trial, fidelity=steps, planned=steps, status="running", metrics={}, error=None, started=time.time(),
            finished=None,
        )  # fmt: skip
        self._began[trial.id] = self.clock.seconds()
        self.leaderboard.put(trial)
        if start is None:  # another trial is computing its weights; this one starts when they are ready
            self._write(trial)
            return
        self._started_at[trial.id] = self.clock.seconds()
        self.engine.submit(trial.id, "trial", architecture, trial.seed, self._weights.threshold(), *start)
        self._write(trial)
        self.monitors.trial_start(trial)

    def _handle_event(self, event: Event) -> None:
        """Handle a step, a rung or the end of a running trial.

        When a worker dies, its trial is queued for a rerun with the same id and seed, up to ``resources.retries``
        times. The strategy is not notified; only the last death ends the trial as failed. A trial that was stopped
        at a rung is already concluded: its end only frees the worker.
        """
        trial = self.trials[event.key]
        self.monitors.output(trial.id, event.output, event.worker)
        if not event.done and event.value.pretraining:
            if event.value.pretrained is not None:
                self._requeue(self.weight_pool.store(trial, event.value.pretrained))
            self.monitors.trial_progress(trial, event.value.step, event.value.values)
            return
        if not event.done:
            self.steps[event.key] = event.value.step
            self.losses[event.key] = event.value.values.get("loss", math.nan)
            if event.paused:
                self._judge(trial, event.value)
            self.monitors.trial_progress(trial, event.value.step, event.value.values)
            return
        del self._started_at[event.key]
        if self.weight_pool is not None:
            self._retry_queue.extend(self.weight_pool.release(trial))
        if trial.status == "running" and event.died and self._deaths.get(trial.id, 0) < self.config.resources.retries:
            self._deaths[trial.id] = self._deaths.get(trial.id, 0) + 1
            self._forget(trial, event.error)
            self._retry_queue.append(trial.id)
            self._fill()
            return
        if trial.status == "running":
            trial = self._end(trial, event)
        self._fill()
        # Last, while the workers are busy: nothing waits for it.
        self._publish_end(trial)
        self._weights.drop()

    def _requeue(self, waiting: Sequence[int]) -> None:
        """Start the trials that waited for the weights of another trial."""
        self._retry_queue.extend(waiting)
        if waiting:
            self._fill()

    def _judge(self, trial: Trial, progress: Any) -> None:
        """Decide at a rung whether a trial continues; if not, it ends with the metrics measured there.

        The worker is paused meanwhile. The decision is written to the journal before the worker gets it; a resumed
        search recalls the decisions on trials that ended.
        """
        metrics = self._with_latency(trial, progress.metrics)
        report = RungReport(trial.id, progress.step, signed_values(metrics, self.objectives), progress.scores)
        with plugin_call(self.rule, "should_continue"):
            continues = bool(self.rule.decide(report))
        self.journal.report(report, continues)
        self.engine.proceed(trial.id, continues)
        if not continues:
            self._conclude(trial, "stopped", progress.metrics, None)

    def _end(self, trial: Trial, event: Event) -> Trial:
        """Conclude a trial that failed or completed; save its weights if the worker sent them."""
        if event.error:
            deaths = self._deaths.get(trial.id, 0) + 1
            repeated = f" ({deaths} times)" if event.died and deaths > 1 else ""
            return self._fail(trial, "failed", event.error + repeated)
        if event.value.weights is not None:
            # Before the journal: a trial that it lists as completed can be meta-tested.
            self._weights.store(trial.id, event.value.weights)
        return self._conclude(trial, "completed", event.value.metrics, None)

    def _end_overdue(self) -> None:
        """End trials that exceed ``budget.timeout_minutes``, and free their workers."""
        minutes = self.config.budget.timeout_minutes
        if minutes is None:
            return
        # The oldest trial comes first: a dict keeps the order of insertion.
        while self._started_at and self.clock.seconds() - next(iter(self._started_at.values())) > 60 * minutes:
            number = next(iter(self._started_at))
            self.engine.cancel(number)
            del self._started_at[number]
            trial = self.trials[number]
            if self.weight_pool is not None:
                self._retry_queue.extend(self.weight_pool.release(trial))
            if trial.status == "running":
                trial = self._fail(trial, "timed-out", f"it took longer than {minutes:g} minutes")
            self._publish_end(trial)
            self._waiting_for_worker = True

    def _fail(self, trial: Trial, status: str, reason: str) -> Trial:
        self.rule.forget(trial.id)
        return self._conclude(trial, status, {}, reason)

    def _conclude(self, trial: Trial, status: str, metrics: Mapping[str, float], error: str | None) -> Trial:
        """Write the end of a trial to the journal, then report it to the strategy: never the other way round."""
        trial = self._store(trial, status, metrics, error, reported=True)
        self.proposals.report(trial)
        return trial

    def _store(
        self, trial: Trial, status: str, metrics: Mapping[str, float], error: str | None, reported: bool = False
    ) -> Trial:
        """Write the end of a trial to the journal; ``reported``: with the event of its report to the strategy."""
        trial = dataclasses.replace(
            trial, fidelity=self.steps.get(trial.id, 0), status=status, metrics=self._with_latency(trial, metrics),
            error=error, finished=trial.started + self._took(trial),
        )  # fmt: skip
        # On disk before anything depends on it. If the write fails, the trial still runs for all, and is rerun later.
        self._write(trial, reported)
        self.leaderboard.put(trial)
        return trial

    def _took(self, trial: Trial) -> float:
        """Return the seconds since a trial began; 0 for one that this session has not started again yet."""
        now = self.clock.seconds()
        return now - self._began.get(trial.id, now)

    def _write(self, trial: Trial, reported: bool = False) -> None:
        """Write a trial to the journal with the events that it lacks."""
        with self.proposals.events_to_write(trial if reported else None) as events:
            self.journal.write(trial, events)

    def _with_latency(self, trial: Trial, metrics: Mapping[str, float]) -> Mapping[str, float]:
        """Add the latency that the table predicts to the metrics of a trial."""
        if self.table is None or not metrics:
            return metrics
        return {**metrics, self.table.metric: self.table.predict(Architecture(trial.architecture))}

    def _forget(self, trial: Trial, reason: str) -> None:
        """Discard the reports and the progress of a trial that is rerun."""
        self.rule.forget(trial.id)
        self.journal.forget_reports(trial.id)
        self.monitors.forget(trial, reason)
        self._forget_progress(trial)

    def _forget_progress(self, trial: Trial) -> None:
        self.steps.pop(trial.id, None)
        self.losses.pop(trial.id, None)

    def _publish_end(self, trial: Trial) -> None:
        self._forget_progress(trial)
        self.monitors.trial_end(trial, self.leaderboard)
        self._published.add(trial.id)
        self.note_shown()

    def note_shown(self) -> None:
        """Note which trials the monitors have handled, so that a resumed search does not show them again."""
        shown = self._published - self.monitors.behind()
        self._published -= shown
        self._shown.add(shown)

    def _out_of_time(self) -> bool:
        hours = self.config.budget.hours
        seconds = self.earlier_seconds + self.clock.seconds() - self.started
        return self.stop.is_set() or (hours is not None and seconds > hours * 3600)

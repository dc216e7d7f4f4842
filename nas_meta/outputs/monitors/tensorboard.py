"""Write TensorBoard event files: one TensorBoard run per trial, one per job, and one for the search."""

from __future__ import annotations

import io
import json
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas_meta.core.objectives import Objective
from nas_meta.evaluation.metrics import ACCURACY, shown_metrics
from nas_meta.journal.compared_models import compared_models
from nas_meta.journal.leaderboard import Leaderboard
from nas_meta.journal.records import Trial
from nas_meta.journal.status import ADAPTATION
from nas_meta.outputs.monitors.monitor import Monitor
from nas_meta.outputs.report.figures import dominated, front_figure
from nas_meta.space.search_space import SearchSpace

if TYPE_CHECKING:
    from nas_meta.outputs.monitors.event_file import EventWriter

FOLDER = "tensorboard"
META_TEST = "meta-test/accuracy"
LAYOUT = {  # of the tab Custom Scalars
    "search": {tag: ["Multiline", [f"search/{tag}"]] for tag in ("best", "hypervolume", "trials_per_minute")},
    "trials": {tag: ["Multiline", [tag]] for tag in ("meta-validation/accuracy", META_TEST, "meta-train/loss")},
}
DPI = 120  # of the figure of the Pareto front


class TensorBoardLog(Monitor):
    """Writes the event files of a search, and at its end ``pareto.png``.

    Args:
        directory: Run directory.
        space: The search space; its choices become hyperparameters in TensorBoard.
        objectives: Objectives of the search, the first one first.
        every: Shortest time between two figures of the Pareto front, in seconds; longer if drawing is slow.
    """

    def __init__(self, directory: Path, space: SearchSpace, objectives: Sequence[Objective], every: float = 20):
        from nas_meta.outputs.monitors.event_file import EventWriter

        self.directory = directory / FOLDER
        self.objectives = objectives
        self._every, self._next_figure = every, time.time() + every
        self._writers: dict[int, EventWriter] = {}
        self._search = EventWriter(self.directory / "search")
        self._job: EventWriter | None = None
        self._started = time.time()
        self._report: Mapping[str, Any] = {}  # the results of the meta-test, once there are any
        self._declare(space)

    def trial_progress(self, trial: Trial, step: int, values: Mapping[str, float]) -> None:
        """Write the values of a step; names with a slash, such as those of pre-training, are tags already."""
        writer = self._writer(trial)
        for name, value in values.items():
            has_tag = "/" in name or name == ACCURACY
            writer.add_scalar(tag_of(name) if has_tag else f"meta-train/{name}", value, step)

    def job_start(self, number: int) -> None:
        from nas_meta.outputs.monitors.event_file import EventWriter

        if self._job is not None:
            self._job.close()
        self._job = EventWriter(self.directory / ("adapted" if number == ADAPTATION else "supernet"))

    def job_progress(self, step: int, values: Mapping[str, float]) -> None:
        """Write the values of a step; their names are tags, such as ``meta-train/loss`` or ``probability/…``."""
        for name, value in values.items():
            self._job.add_scalar(name, value, step)

    def trial_end(self, trial: Trial, leaderboard: Leaderboard) -> None:
        """Write the metrics and hyperparameters of the trial; update the best value, throughput and Pareto front."""
        from tensorboard.plugins.hparams import summary_v2 as api

        writer = self._writer(trial)
        for name, value in trial.metrics.items():
            if name != ACCURACY or trial.status == "completed":  # a stopped trial has already written it at its rung
                writer.add_scalar(tag_of(name), value, trial.fidelity)
        values = {n: v if v is not None else "none" for n, v in trial.architecture.items()}
        writer.add_summary(api.hparams_pb(values, trial_id=trial_name(trial)))
        writer.add_summary(session_end(bool(trial.metrics), trial.finished))
        self._writers.pop(trial.id).close()
        finished, leader = leaderboard.finished, leaderboard.leader
        if leader:
            self._search.add_scalar("search/best", leader.metrics[self.objectives[0].metric], finished)
        minutes = max(time.time() - self._started, 1e-9) / 60
        self._search.add_scalar("search/trials_per_minute", finished / minutes, finished)
        if leader and time.time() > self._next_figure:
            self._draw_front(leaderboard)

    def tested(self, report: Mapping[str, Any], leaderboard: Leaderboard) -> None:
        """Write the meta-test accuracy of trials, and of references as runs of their own."""
        from nas_meta.outputs.monitors.event_file import EventWriter

        self._report = report
        trials = {f"{trial.id}": trial for trial in leaderboard.trials.values()}
        rows = [(trial_name(trials[n]), trials[n].fidelity, row) for n, row in report.get("trials", {}).items()]
        for name, row in compared_models(report).items():
            rows.append((f"reference-{re.sub(r'[^A-Za-z0-9]+', '-', name)}", 0, row))
        for folder, step, row in rows:
            writer = EventWriter(self.directory / folder)
            writer.add_scalar(META_TEST, row["test_accuracy"], step)
            writer.close()

    def forget(self, trial: Trial, reason: str) -> None:
        """Remove the event files of a trial."""
        if trial.id in self._writers:
            self._writers.pop(trial.id).close()
        shutil.rmtree(self.directory / trial_name(trial), ignore_errors=True)

    def close(self, leaderboard: Leaderboard, phase: str, error: str | None) -> None:
        """Draw the last figure, also as ``pareto.png`` in the run directory, and close all files."""
        if leaderboard.leader:
            (self.directory.parent / "pareto.png").write_bytes(self._draw_front(leaderboard))
        for writer in [*self._writers.values(), self._search, *filter(None, [self._job])]:
            writer.close()

    def _writer(self, trial: Trial) -> EventWriter:
        """Return the writer of a trial; the first call writes its architecture."""
        from nas_meta.outputs.monitors.event_file import EventWriter

        if trial.id not in self._writers:
            writer = EventWriter(self.directory / trial_name(trial))
            writer.add_text("architecture", f"```\n{json.dumps(dict(trial.architecture), indent=1)}\n```")
            self._writers[trial.id] = writer
        return self._writers[trial.id]

    def _declare(self, space: SearchSpace) -> None:
        """Declare hyperparameters and metrics once for the search, because trials may lack inactive choices."""
        from tensorboard.plugins.hparams import summary_v2 as api

        hparams = [
            api.HParam(name, api.Discrete([v if v is not None else "none" for v in choice.values]))
            for name, choice in space.table.items()
            if len({type(v) for v in choice.values}) == 1
        ]
        shown = [metric.name for metric in shown_metrics([*(o.metric for o in self.objectives), "train_seconds"])]
        shown.sort(key=lambda name: name not in [ACCURACY, *(o.metric for o in self.objectives)])  # stable
        metrics = [api.Metric(tag_of(name), display_name=name) for name in shown]
        metrics.insert(1, api.Metric(META_TEST, display_name="meta-test accuracy"))
        self._search.add_summary(api.hparams_config_pb(hparams, metrics))
        self._search.add_custom_scalars(LAYOUT)

    def _draw_front(self, leaderboard: Leaderboard) -> bytes:
        """Draw the Pareto front, schedule the next figure, and return this one as a PNG file."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        started, png = time.time(), io.BytesIO()
        trials = list(leaderboard.trials.values())
        figure = front_figure(trials, self.objectives, report=self._report)
        if len(self.objectives) > 1:
            self._search.add_scalar("search/hypervolume", dominated(trials, self.objectives), leaderboard.finished)
        figure.savefig(png, dpi=DPI, format="png")
        width, height = (round(DPI * inches) for inches in figure.get_size_inches())
        image = Summary.Image(width=width, height=height, colorspace=4, encoded_image_string=png.getvalue())
        value = Summary.Value(tag="search/front", image=image)
        self._search.add_summary(Summary(value=[value]), leaderboard.finished)
        self._search.flush()
        # Drawing many trials is slow: spend at most 1/50 of the driver's time on it.
        self._next_figure = time.time() + max(self._every, 50 * (time.time() - started))
        return png.getvalue()


def tag_of(name: str) -> str:
    """Return the TensorBoard tag of a metric.

    Args:
        name: A metric of a trial, or a tag (any name with a slash).

    Returns:
        ``meta-validation/accuracy``, ``trial/NAME`` for other metrics, and tags unchanged.
    """
    return name if "/" in name else f"meta-validation/{name}" if name == ACCURACY else f"trial/{name}"


def session_end(success: bool, when: float) -> Any:
    """Return the summary that ends a trial in the HParams tab; TensorBoard's own function needs TensorFlow.

    Args:
        success: Whether the trial has metrics.
        when: End of the trial, in seconds since the epoch.
    """
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    status = api_pb2.STATUS_SUCCESS if success else api_pb2.STATUS_FAILURE
    info = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=when)
    data = plugin_data_pb2.HParamsPluginData(session_end_info=info)
    value = Summary.Value(
        tag=metadata.SESSION_END_INFO_TAG,
        metadata=metadata.create_summary_metadata(data),
        tensor=metadata.NULL_TENSOR,
    )
    return Summary(value=[value])


def trial_name(trial: Trial) -> str:
    """Return the name of a trial's TensorBoard run.

    Args:
        trial: The trial.
    """
    return f"trial-{trial.id:04d}-{trial.architecture_id}"

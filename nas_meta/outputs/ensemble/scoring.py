"""Score the kept trials of a run again, on the same meta-validation episodes, and measure their latencies."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from nas_meta.config.components import make_evaluation
from nas_meta.config.gpu_sharing import on_this_machine
from nas_meta.config.problem import load_problem
from nas_meta.errors import RunError
from nas_meta.evaluation.calibrate import best_temperature
from nas_meta.evaluation.ensemble import Queries, halves
from nas_meta.evaluation.protocols import FULL_WAY
from nas_meta.evaluation.task_logits import query_logits, tasks_of
from nas_meta.evaluation.trial import Evaluation
from nas_meta.journal.records import Trial
from nas_meta.journal.run import Run
from nas_meta.journal.weights import weights_path
from nas_meta.models.profiling import LatencySettings
from nas_meta.outputs.changes import warn_of_changes
from nas_meta.space.search_space import SearchSpace

log = logging.getLogger(__name__)
FEWEST = 2  # members of an ensemble
FEWEST_EPISODES = 4  # of which two judge: an interval needs two


@dataclass(frozen=True)
class Candidates:
    """The kept trials of a run, scored on the same episodes.

    Attributes:
        trials: The trials, in the order of their start.
        temperatures: What the logits of each are divided by, fitted on the selection half.
        latencies: Seconds of each for the batch that section ``latency`` of the config describes.
        selection: The queries on which an ensemble is selected, with calibrated probabilities.
        judging: The queries on which it is judged; no query is in both.
        ways: Classes of an episode.
        unit: What accuracies are means over, in words.
    """

    trials: list[Trial]
    temperatures: list[float]
    latencies: list[float]
    selection: Queries
    judging: Queries
    ways: int
    unit: str = "episodes"


def kept_trials(run: Run) -> list[tuple[Trial, bytes]]:
    """Return the completed trials whose weights the run keeps, with the weights.

    Args:
        run: The run.

    Raises:
        RunError: There are fewer than two.
    """
    kept = []
    for trial in run.trials:
        if trial.status != "completed" or not weights_path(run.directory, trial.id).is_file():
            continue
        try:
            kept.append((trial, run.weights_of(trial)))
        except RunError as error:
            log.warning("%s", error)
    if len(kept) < FEWEST:
        number = f"the weights of one trial, {kept[0][0].id}" if kept else "no weights"
        raise RunError(
            f"{run.directory} has {number}; expected those of at least {FEWEST} completed trials, which a search with "
            "a larger evaluation.keep leaves"
        )
    return kept


def score(run: Run, report: Callable[[str], None] = lambda line: None) -> Candidates:
    """Score the kept trials of a run on its meta-validation episodes, as the search did.

    Args:
        run: The run.
        report: Called with a line before each trial.

    Returns:
        The trials.

    Raises:
        RunError: The weights of fewer than two trials can be read, or the run has fewer than four episodes.
        NasMetaError: The data or the models of the run cannot be read any more.
    """
    kept = kept_trials(run)
    resolved = on_this_machine(run.config)
    space, tasks, shape = load_problem(resolved)
    warn_of_changes(run, tasks)
    evaluation = make_evaluation(resolved, space, tasks, shape, run.cpus, trains=False)
    evaluation.setup()
    settings = evaluation.settings
    if settings.episodes < FEWEST_EPISODES:
        raise RunError(
            f"{run.directory} has {settings.episodes} meta-validation episodes; expected at least {FEWEST_EPISODES}, "
            "because half of them select an ensemble and the others judge it"
        )
    drawn = tasks_of(evaluation, "meta-validation", settings.episodes)
    targets = np.concatenate([task.labels for task in drawn])
    episodes = np.repeat(np.arange(len(drawn)), [len(task.labels) for task in drawn])
    # Every full-way draw has nearly all examples as queries: the halves are then divided by example, too.
    examples, unit = None, "episodes"
    if settings.protocol == FULL_WAY:
        examples, unit = np.concatenate([task.query.ravel() for task in drawn]), "draws of the support set"
    selecting, judging = halves(episodes, examples)
    temperatures, calibrated = [], []
    for number, (trial, weights) in enumerate(kept, 1):
        report(f"trial {trial.id}, {number} of {len(kept)}")
        architecture = space.canonical(trial.architecture)
        encoder = evaluation.restored(architecture, weights).eval()
        logits = query_logits(evaluation.of(architecture), encoder, "meta-validation", drawn)
        part = torch.from_numpy(logits[selecting]).double()
        temperatures.append(best_temperature(part, torch.from_numpy(targets[selecting])))
        calibrated.append((torch.from_numpy(logits).double() / temperatures[-1]).softmax(1).numpy())
    queries = Queries(np.stack(calibrated), targets, episodes)
    trials = [trial for trial, _ in kept]
    latencies = latencies_of(run, trials, evaluation, space)
    parts, ways = (queries.at(selecting), queries.at(judging)), len(drawn[0].support)
    return Candidates(trials, temperatures, latencies, *parts, ways, unit)


def latencies_of(run: Run, trials: list[Trial], evaluation: Evaluation, space: SearchSpace) -> list[float]:
    """Return the latencies of trials: those that the search measured if it measured all, otherwise measured now.

    Latencies from two machines, or from two hours, cannot be added: all are measured in the same way.

    Args:
        run: The run.
        trials: Its trials.
        evaluation: Its evaluation.
        space: Its space.
    """
    known: Mapping[str, Mapping[str, float]] = (run.report.get("latency") or {}).get("trials", {})
    measured = [known.get(str(trial.id), {}).get("latency") for trial in trials]
    if all(seconds is not None for seconds in measured):
        return [float(seconds) for seconds in measured if seconds is not None]
    sections = run.config.sections
    settings = LatencySettings(**sections.latency.model_dump(exclude={"models"}), form=sections.latency_form)
    found = [evaluation.latency(space.canonical(trial.architecture), settings).metrics for trial in trials]
    if any(metrics["latency_busy"] for metrics in found):
        log.warning("latencies are too high: other processes were busy while they were measured")
    return [metrics["latency"] for metrics in found]

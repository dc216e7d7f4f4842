"""What the figures of a run are drawn from, by hand-computed cases."""

import pytest

from nas_meta import Objective
from nas_meta.journal.records import Trial
from nas_meta.outputs.report.figures import dominated, front_figure

OBJECTIVES = (Objective("accuracy"), Objective("flops", "minimize"))


def trial(number, accuracy, flops, status="completed"):
    return Trial(number, {"a": number}, 0, 1, status, {"accuracy": accuracy, "flops": flops})


def test_the_hypervolume_counts_a_cost_as_the_share_that_it_saves():
    trials = [trial(1, 0.75, 20.0), trial(2, 0.5, 100.0), trial(3, 0.9, 1.0, "stopped")]
    assert dominated(trials, OBJECTIVES) == pytest.approx(0.75 * 0.8)
    # The third adds the strip between its accuracy and that of the first, as wide as what it saves.
    assert dominated([*trials, trial(4, 0.8, 60.0)], OBJECTIVES) == pytest.approx(0.75 * 0.8 + 0.05 * 0.4)
    assert dominated([trials[2]], OBJECTIVES) == 0.0


def test_the_figure_names_the_trials_of_the_front():
    figure = front_figure([trial(1, 0.75, 20.0), trial(2, 0.5, 100.0), trial(3, 0.8, 60.0)], OBJECTIVES)
    assert {text.get_text() for text in figure.axes[0].texts} == {"1", "3"}


def test_the_legend_hides_no_trial():
    figure = front_figure([trial(1, 0.75, 20.0), trial(2, 0.5, 100.0), trial(3, 0.8, 60.0)], OBJECTIVES)
    figure.canvas.draw()
    axes = figure.axes[0]
    assert axes.get_legend().get_window_extent().y1 < axes.get_window_extent().y0


REPORT = {
    "trials": {"1": {"test_accuracy": 0.7, "test_accuracy_ci95": 0.01}},
    "references": {"TF-IDF": {"test_accuracy": 0.72}, "pixels_$": {"test_accuracy": 0.1}},
    "comparisons": {"the whole model": {"test_accuracy": 0.9, "test_accuracy_ci95": 0.02, "flops": 200e6}},
}


def test_baselines_are_points_or_lines_and_distant_ones_stand_in_the_legend():
    trials = [trial(1, 0.75, 20e6), trial(2, 0.8, 60e6)]
    axes = front_figure(trials, OBJECTIVES, report=REPORT).axes[0]
    drawn = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.get_lines()}
    points = {container.get_label(): container.lines[0] for container in axes.containers}
    assert (points["the whole model"].get_xdata(), points["the whole model"].get_ydata()) == ([200.0], [90.0])
    assert (points["tested trials"].get_xdata(), points["tested trials"].get_ydata()) == ([20.0], [70.0])
    assert drawn["TF-IDF"] == ([0, 1], [72.0, 72.0])
    assert drawn["pixels_\\$: 10.0 %"] == ([], [])
    assert axes.get_ylim()[0] > 20
    assert axes.get_ylabel() == "accuracy, %"


def test_without_a_meta_test_the_figure_shows_trials_alone():
    for report in (None, {}, {"trials": {}, "references": {}}):
        axes = front_figure([trial(1, 0.75, 20e6)], OBJECTIVES, report=report).axes[0]
        assert axes.get_ylabel() == "meta-validation accuracy, %" and len(axes.containers) == 1


def test_baselines_have_no_place_in_a_figure_without_accuracy():
    trials = [Trial(1, {"a": 1}, 0, 1, "completed", {"params": 5.0, "flops": 20.0})]
    sizes = (Objective("params", "minimize"), Objective("flops", "minimize"))
    assert len(front_figure(trials, sizes, report=REPORT).axes[0].containers) == 1

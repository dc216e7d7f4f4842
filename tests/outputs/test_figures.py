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

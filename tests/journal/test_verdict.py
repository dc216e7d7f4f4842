"""The verdict of a search: a function of what every model got right in each of the same episodes."""

import pytest

from nas_meta.journal.verdict import Row, paired_difference, verdict

EPISODES, QUERIES = 100, 20
UNTOUCHED = "the untouched model"
WHOLE, FIRST = "the whole model trained alike", "the first 3 layers trained alike"
TFIDF = "TF-IDF, nearest centroid"


def row(name, points, flops=100.0, params=50.0, spread=1):
    """A model with a mean accuracy of ``points`` %, which varies a little between episodes."""
    right = round(points * QUERIES / 100)
    return Row(name, [right + (i % 2 * 2 - 1) * spread for i in range(EPISODES)], flops, params)


def of(winner, untouched=None, *trained, baselines=()):
    return verdict(winner, untouched, trained, baselines, QUERIES)


def test_a_difference_is_that_of_the_same_episodes():
    # differences 2, 0, 1, 1 of 10 queries: 20, 0, 10, 10 points; mean 10, standard deviation sqrt(200 / 3)
    found = paired_difference([9, 5, 8, 3], [7, 5, 7, 2], 10)
    assert found.mean == pytest.approx(10)
    assert found.half == pytest.approx(1.96 * (200 / 3) ** 0.5 / 2)
    assert found.sign == 1 and paired_difference([7, 5, 7, 2], [9, 5, 8, 3], 10).sign == -1


def test_a_difference_that_unpaired_intervals_hide_is_found():
    hard, easy = [2] * 50, [18] * 50
    better = [3] * 50 + [19] * 50
    assert str(paired_difference(better, hard + easy, 20)) == "5.0 points better (5.0 to 5.0)"


@pytest.mark.parametrize(("first", "second"), [([], []), ([1], [2]), ([1, 2], [1, 2, 3])])
def test_other_episodes_are_not_compared(first, second):
    assert paired_difference(first, second, 10) is None


def test_a_smaller_and_better_winner():
    winner = row("trial 7 (4 layers of 6)", 80, flops=67, params=40)
    text = of(winner, row(UNTOUCHED, 75), row(WHOLE, 85), row(FIRST, 70, 67, 40))
    assert text == (
        "Trial 7 (4 layers of 6): 33 % less compute and 20 % fewer parameters, and 5.0 points better (95 % interval "
        "5.0 to 5.0) than the untouched model. It is 5.0 points worse (5.0 to 5.0) than the whole model trained alike, "
        "and 10.0 points better (10.0 to 10.0) than the first 3 layers trained alike."
    )


def test_a_smaller_winner_that_is_as_good():
    text = of(row("trial 7", 75, 67, 40, spread=-1), row(UNTOUCHED, 75))
    assert "no difference that these episodes can show (95 % interval -2.0 to +2.0 points) from the unt" in text
    assert "Nothing to gain" not in text


def test_a_worse_winner_is_nothing_to_gain_though_it_is_smaller():
    text = of(row("trial 7", 70, 67, 40), row(UNTOUCHED, 75), row(WHOLE, 85))
    assert text.startswith("Nothing to gain. Trial 7: 33 % less compute and 20 % fewer parameters, and 5.0 points wor")
    assert text.endswith(
        f"Take {WHOLE} instead, 10.0 points better (10.0 to 10.0) than {UNTOUCHED}, "
        "unless the smaller size matters more to you than the accuracy."
    )


def test_a_winner_that_is_neither_smaller_nor_better_is_nothing_to_gain():
    text = of(row("trial 7", 75, spread=-1), row(UNTOUCHED, 75), row(WHOLE, 75))
    assert text.startswith("Nothing to gain. Trial 7: the same size, and no difference")
    assert text.endswith(f"Take {UNTOUCHED} instead.")


def test_a_larger_winner_that_is_better_is_a_gain():
    text = of(row("trial 7", 80, 110, 51), row(UNTOUCHED, 75))
    assert text.startswith("Trial 7: 10 % more compute and 2 % more parameters, and 5.0 points better")


@pytest.mark.parametrize("name", [FIRST, TFIDF])
def test_a_better_model_without_more_compute_is_taken_instead(name):
    winner, other = row("trial 7", 80, 67, 40), row(name, 85, *((67, 40) if name == FIRST else (0, 0)))
    trained, baselines = ([other], ()) if name == FIRST else ([], [other])
    text = of(winner, row(UNTOUCHED, 75), *trained, baselines=baselines)
    assert text.startswith("Nothing to gain. Trial 7: 33 % less compute")
    assert text.endswith(f"Take {name} instead, 5.0 points better (5.0 to 5.0) than trial 7 without more compute.")


def test_a_space_without_a_model_to_begin_with_is_compared_with_the_best_baseline():
    worse, better = row("raw pixels", 40, 0, 0), row(TFIDF, 50, 0, 0)
    assert of(row("trial 7", 80), baselines=[worse, better]) == (
        f"Trial 7: 30.0 points better (95 % interval 30.0 to 30.0) than {TFIDF}."
    )
    text = of(row("trial 7", 45), baselines=[worse, better])
    assert text.startswith("Nothing to gain. Trial 7: 5.0 points worse") and text.endswith(f"Take {TFIDF} instead.")


def test_a_difference_that_the_episodes_cannot_show_is_not_called_one():
    text = of(row("trial 7", 80, 67), row(UNTOUCHED, 75), row(WHOLE, 80, spread=-1))
    assert text.endswith(f"It is not distinguishable from {WHOLE} on these episodes.")


def test_without_anything_to_compare_with_there_is_no_verdict():
    assert of(row("trial 7", 80)) == ""
    assert of(row("trial 7", 80), Row(UNTOUCHED, [1, 2])) == ""

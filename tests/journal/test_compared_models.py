"""Every table and sentence has one name for the model that the user began with, also for reports of older runs."""

from nas_meta.journal.compared_models import compared_models, shown_name
from nas_meta.journal.records import Trial
from nas_meta.journal.verdict import verdict_of

START, BEFORE = "unsearched model, no training", "unsearched model before adaptation"  # keys of stored reports
ADAPTED = "the whole model after domain adaptation"


def report(**right):
    """A report with the trial 1, and references that answer so many queries right in each of two episodes."""
    references = {name: {"test_accuracy": 0.5, "flops": 1.0, "params": 1.0} for name in right}
    return {
        "trials": {"1": {"flops": 1.0, "params": 1.0}}, "references": references, "queries": 10,
        "right": {"trials": {"1": [8, 8]}, "references": {name: [n, n] for name, n in right.items()}},
        "comparisons": {"the first layers trained alike": {"test_accuracy": 0.4}},
    }  # fmt: skip


def test_the_model_that_the_user_began_with_has_one_name():
    plain = report(**{START: 7, "TF-IDF": 5})
    assert list(compared_models(plain)) == ["the untouched model", "TF-IDF", "the first layers trained alike"]
    assert "10.0 points better (95 % interval 10.0 to 10.0) than the untouched model" in verdict_of(plain, trial())


def test_after_domain_adaptation_the_untouched_model_is_the_one_before():
    adapted = report(**{START: 7, BEFORE: 6})
    assert list(compared_models(adapted))[:2] == [ADAPTED, "the untouched model"]
    assert "20.0 points better" in verdict_of(adapted, trial())


def test_an_adapted_model_does_not_pass_for_the_untouched_one_that_could_not_be_tested():
    failed = report(**{START: 7}) | {"unmeasured": {BEFORE: "the worker died"}}
    assert shown_name(BEFORE, failed) == "the untouched model"
    assert ADAPTED in compared_models(failed) and verdict_of(failed, trial()) == ""


def trial():
    return Trial(1, {"depth": 1}, 0, 1, "completed", {"accuracy": 0.8})

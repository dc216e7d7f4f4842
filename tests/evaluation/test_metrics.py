"""The metric registry: one row per metric, which the config, the journal and every report read."""

import pytest

from nas_meta import load_run, search
from nas_meta.config.resolved import resolve
from nas_meta.errors import ConfigError
from nas_meta.evaluation.metrics import METRICS, OVERVIEW, metric_of, shown_metrics
from nas_meta.journal.row_checks import REQUIRED
from nas_meta.journal.run import rank
from nas_meta.outputs.export.folder import export
from nas_meta.outputs.report.formatting import trial_line


@pytest.mark.parametrize(
    ("name", "metrics", "shown"),
    [
        ("accuracy", {"accuracy": 0.5333, "accuracy_ci95": 0.0624}, "53.3 ± 6.2 %"),
        ("accuracy", {"accuracy": 0.5333}, "53.3 %"),
        ("accuracy", {"params": 3}, ""),
        ("params", {"params": 15_912_345}, "15.9 M"),
        ("params", {"params": 5_760}, "0.0058 M"),
        ("flops", {"flops": 250_400_000}, "250"),
        ("flops", {"flops": 393_728}, "0.39"),
        ("flops", {"flops": 0}, "0"),
        ("latency", {"latency": 0.00437}, "4.4 ms"),
        ("peak_memory", {"peak_memory": 672829440}, "642 MiB"),
        ("measured_by_a_newer_version", {"measured_by_a_newer_version": 1.5}, "1.500"),
    ],
)
def test_a_value_is_shown_with_its_unit_and_interval(name, metrics, shown):
    assert metric_of(name).format(metrics) == shown


def test_meta_test_values_have_a_prefix():
    assert (
        METRICS["accuracy"].format({"test_accuracy": 0.7, "test_accuracy_ci95": 0.01}, prefix="test_") == "70.0 ± 1.0 %"
    )


def test_tables_show_the_overview_and_every_objective_once():
    assert shown_metrics() == list(OVERVIEW)
    assert [m.name for m in shown_metrics(["latency", "accuracy", "train_seconds", "latency"])] == [
        "accuracy", "params", "flops", "latency", "train_seconds",
    ]  # fmt: skip


def test_less_is_better_of_everything_but_accuracies_and_auroc():
    better = {name for name, metric in METRICS.items() if metric.sign == 1}
    assert better == {"accuracy", "accuracy_onnx", "accuracy_onnx_int8", "oos_auroc"}
    assert set(REQUIRED) <= {name for name, metric in METRICS.items() if metric.always}


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_can_be_an_objective(name):
    document = {"objectives": {name: None, "accuracy": "maximize"}}
    if METRICS[name].needs == "pretraining":
        with pytest.raises(ConfigError, match=f"{name}, which only pre-trained candidates have"):
            resolve(document)
        document["pretraining"] = {"of": "candidates"}
    (first, *_) = resolve(document).sections.optimised
    assert (first.metric, first.direction) == (name, METRICS[name].direction)


@pytest.mark.slow
def test_the_first_objective_ranks_keeps_tests_and_exports(small_config, tmp_path):
    small_config |= {
        "objectives": {"latency": "minimize", "accuracy": "maximize"},
        "evaluation": {"episodes": 20, "test_episodes": 20, "keep": 2, "test_best": 2, "compare": False},
        "latency": {"seconds": 0.02, "models": 4},
        "strategy": {"name": "random"},
        "budget": {"trials": 8},
    }
    run = search(small_config, tmp_path / "run", inline=True)
    fastest = sorted((t for t in run.trials if t.status == "completed"), key=lambda t: (t.metrics["latency"], t.id))
    assert run.best == fastest[0]
    kept = {int(path.stem) for path in (tmp_path / "run" / "weights").iterdir()}
    assert kept == {t.id for t in fastest[:2]} == set(map(int, run.report["trials"]))
    card = (export(load_run(tmp_path / "run"), tmp_path / "model") / "README.md").read_text()
    assert f"| latency | {METRICS['latency'].format(run.best.metrics)} |" in card
    assert f"{METRICS['latency'].format(run.best.metrics)} latency" in trial_line(run.best, ["latency"])


def test_the_accuracy_keeps_weights_where_it_is_first(small_config, tmp_path):
    small_config["evaluation"] |= {"keep": 2, "test_best": 1}
    run = search(small_config, tmp_path / "run", inline=True)
    best = rank(run.trials, run.objectives)
    assert {int(path.stem) for path in (tmp_path / "run" / "weights").iterdir()} == {t.id for t in best[:2]}
    assert list(run.report["trials"]) == [str(best[0].id)]

"""The best trial is compared with models that are trained alike, and the report says what the search was worth."""

import pytest
from dying_engine import DyingEngine
from shown import shown

from nas_meta import Architecture, load_run, resume, search
from nas_meta.controller import phases
from nas_meta.journal.database import Journal
from nas_meta.outputs.export.folder import export
from search_spaces.pretrained.bert_subnet import BertSubnet

WHOLE, FIRST = "the whole model trained alike", "the first layer trained alike"


@pytest.fixture
def document(small_config):
    """A search whose winner keeps the second of two layers, with searched steps and a rung."""
    small_config["space"] |= {"max_layers": 1}
    small_config["learner"] |= {"steps": {"choice": [2, 3]}}
    return small_config | {
        "strategy": {"name": "random"},
        "evaluation": {"episodes": 5, "test_episodes": 8, "check_models": False},
        "stopping": {"name": "asha", "rungs": [1]},
        "objectives": {"accuracy": "maximize", "params": {"max": 11_000}},
        "budget": {"trials": 3},
        "seed": 1,
    }


def test_a_search_ends_with_a_paired_verdict(document, tmp_path):
    run = search(document, tmp_path / "run", inline=True)
    report, best = run.report, run.best
    assert report["compared"] == best.id and WHOLE in report["comparisons"]
    assert report["comparisons"][WHOLE]["params"] == report["references"]["unsearched model, no training"]["params"]
    assert report["queries"] == 9
    for kind in ("trials", "references", "comparisons"):
        for name, metrics in report[kind].items():
            right = report["right"][kind][name]
            assert len(right) == 8 and sum(right) / 8 / 9 == pytest.approx(metrics["test_accuracy"])
    assert f"rial {best.id} (1 layer of 2)" in run.verdict and "the untouched model" in run.verdict
    assert shown(run).endswith(run.verdict) and WHOLE in shown(run)
    assert run.verdict in (export(run, tmp_path / "model") / "README.md").read_text()

    done = Journal.open(tmp_path / "run").get("comparisons")
    assert {row["name"] for row in done} == set(report["comparisons"])
    assert all(row["architecture"]["learner.steps"] == best.architecture["learner.steps"] for row in done)


@pytest.mark.slow
def test_a_resumed_search_trains_only_what_is_missing(document, monkeypatch, tmp_path):
    first = search(document, tmp_path / "run", inline=True).report
    journal = Journal.append(tmp_path / "run")
    kept = [row for row in journal.get("comparisons") if row["name"] != WHOLE]
    journal.set("comparisons", kept)
    journal.close()
    trained = []

    class Counting(DyingEngine):
        def submit(self, key, method, *arguments):
            trained.extend([key[1]] if method == "compare" else [])
            super().submit(key, method, *arguments)

    monkeypatch.setattr(phases, "make_engine", lambda payload, *_: Counting(payload, "compare", 1))
    again = resume(tmp_path / "run", inline=True).report
    assert trained == [WHOLE, WHOLE]  # the first worker died
    assert again["comparisons"] == first["comparisons"] and again["right"] == first["right"]


def test_a_comparison_that_fails_is_a_row_with_its_reason(document, monkeypatch, tmp_path):
    monkeypatch.setattr(phases, "make_engine", lambda payload, *_: DyingEngine(payload, "compare", 99))
    run = search(document, tmp_path / "run", inline=True)
    assert run.report["unmeasured"][WHOLE] == "the worker died: killed" and not run.report["comparisons"]
    assert f"{WHOLE} was not measured: the worker died: killed" in shown(run) and "the untouched model" in run.verdict


def test_a_space_that_names_no_architectures_does_not_end_the_search(document, monkeypatch, tmp_path):
    monkeypatch.setattr(BertSubnet, "comparisons", lambda self, architecture: ["whole"])
    report = search(document, tmp_path / "run", inline=True).report
    assert "BertSubnet" in report["unmeasured"]["models trained like the best trial"] and report["trials"]


def test_the_option_turns_them_off(document, tmp_path):
    document["evaluation"]["compare"] = False
    report = search(document, tmp_path / "run", inline=True).report
    assert not report["comparisons"] and report["right"]["trials"] and load_run(tmp_path / "run").verdict


def test_the_first_layers_have_the_sizes_of_those_that_are_kept(tiny_model):
    space = BertSubnet(BertSubnet.Options(model=str(tiny_model), heads=[0.5, 0.25], ffn=[0.5]))
    second = space.architecture({"layer0.keep": False, "layer1.keep": True, "layer1.heads": 1, "layer1.ffn": 32})
    rows = space.comparisons(second)
    assert rows[FIRST].values == {"layer0.keep": True, "layer1.keep": False, "layer0.heads": 1, "layer0.ffn": 32}
    assert space.build(rows[FIRST]).num_parameters() == space.build(second).num_parameters()
    assert space.build(rows[WHOLE]).num_parameters() == space.reference().num_parameters()
    assert set(space.comparisons(Architecture(rows[FIRST].values))) == {WHOLE}
    assert WHOLE not in space.comparisons(rows[WHOLE])

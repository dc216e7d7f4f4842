"""Metrics of the deployed form: latency and accuracy of an ONNX graph, as objectives and limits of a search."""

import importlib.util

import numpy as np
import pytest
import torch

from nas_meta.config.components import make_evaluation
from nas_meta.config.problem import load_problem
from nas_meta.config.resolved import resolve
from nas_meta.controller.launch import search
from nas_meta.errors import ConfigError
from nas_meta.evaluation.deployed import deployed_as
from nas_meta.evaluation.metrics import METRICS
from nas_meta.evaluation.trial import result_of
from nas_meta.models.onnx import deployed
from nas_meta.models.onnx.export import write_graph
from nas_meta.outputs.report.formatting import trial_line
from nas_meta.outputs.report.terminal import console, result_table, trials_table


def shown(table):
    out = console()
    with out.capture() as captured:
        out.print(table)
    return captured.get()


@pytest.fixture
def traced(monkeypatch):
    """The shapes of all models that were traced; each is traced once, because that takes a second of CPU."""
    written, asked = {}, []

    def once(graph, inputs, file):
        shapes = tuple(parameter.shape for parameter in graph.parameters())
        if shapes not in written:
            write_graph(graph, inputs, file)
            written[shapes] = file.read_bytes()
        file.write_bytes(written[shapes])
        asked.append(shapes)

    monkeypatch.setattr(deployed, "write_graph", once)
    return asked


def test_a_form_is_an_objective_and_a_limit():
    given = {"accuracy": {"of": "onnx-int8"}, "latency": {"of": "onnx", "max": "12 ms"}}
    config = resolve({"objectives": given}).sections
    assert [(o.metric, o.direction) for o in config.optimised] == [("accuracy_onnx_int8", "maximize")]
    assert [(limit.metric, limit.most) for limit in config.limits] == [("latency_onnx", 0.012)]
    assert config.latency_form == "onnx" and config.asked_metrics == ("accuracy_onnx_int8",)
    again = resolve(resolve({"objectives": given}).document).sections
    assert again.objectives == config.objectives, "the config of a run can be read again"
    plain = resolve({"objectives": {"latency": {"of": "torch"}}}).sections
    assert plain.optimised[0].metric == "latency" and plain.latency_form == "torch"


@pytest.mark.parametrize(
    ("objectives", "sentence"),
    [
        ({"latency": {"of": "onnx-int4"}}, "onnx-int8"),
        ({"flops": {"of": "onnx"}}, "flops has no forms such as onnx; expected 'of' with accuracy or latency alone"),
        ({"latency": None, "latency_onnx": None}, "objectives has latency and latency_onnx; expected the latency of"),
    ],
)
def test_a_form_that_cannot_be_measured_is_refused(objectives, sentence):
    with pytest.raises(ConfigError, match=sentence):
        resolve({"objectives": objectives})


@pytest.mark.slow
def test_a_search_for_the_deployed_form(small_config, tmp_path, traced, monkeypatch):
    """INT8 on the front and in every trial; the names say so in tables, the report and the journal."""
    monkeypatch.setenv("COLUMNS", "300")  # headings are wrapped where the table is too wide
    small_config["space"] |= {"heads": [1.0], "ffn": [1.0], "min_layers": 2}
    small_config["learner"]["lr"] = {"choice": [1e-4, 3e-4, 1e-3, 3e-3]}  # four candidates of one shape
    small_config |= {
        "objectives": {"accuracy": {"of": "onnx-int8"}, "latency": {"of": "onnx-int8", "max": "1 s"}},
        "latency": {"models": 4, "seconds": 0.02, "tokens": 8},
        "evaluation": {"episodes": 8, "test_episodes": 8, "compare": False, "check_models": False, "keep": 1},
        "budget": {"trials": 2},
        "strategy": {"name": "random"},
    }
    run = search(small_config, tmp_path / "run", inline=True)
    report = run.report["latency"]
    assert report["form"] == "onnx-int8" and report["device"] == "1 CPU thread"
    assert report["during_search"].startswith("a table per choice, off by ")
    assert set(report["trials"]) == {str(t.id) for t in run.pareto}
    for trial in run.trials:
        assert trial.metrics["latency_onnx_int8"] > 0 and "latency" not in trial.metrics
        assert {"accuracy", "accuracy_onnx_int8", "accuracy_onnx_int8_ci95"} <= trial.metrics.keys()
    assert run.best == max(run.trials, key=lambda t: (t.metrics["accuracy_onnx_int8"], -t.id))
    assert len(traced) == 1 + 4 + 2 + len(run.pareto), "preflight, table, trials and front"
    table = shown(result_table(run, wide=True))
    assert "latency (onnx-int8)" in table and "accuracy (onnx-int8)" in table
    assert "latency (onnx-int8): median for a text of 8 tokens on 1 CPU thread" in " ".join(table.split())
    assert "accuracy (onnx-int8)" in trial_line(run.best)
    assert "accuracy (onnx-int8)" in shown(trials_table(run.trials))
    assert "(onnx-int8)" in (run.directory / "report.html").read_text()


@pytest.mark.slow
def test_an_encoder_embeds_as_its_graph_inside_the_block_alone(small_config, traced):
    resolved = resolve(small_config)
    problem = load_problem(resolved)
    evaluation = make_evaluation(resolved, *problem, cpus=1)
    architecture = problem.space.sample(np.random.default_rng(0))
    encoder = evaluation.encoder(problem.space.build(architecture)).eval()
    pool, some = problem.tasks["meta-validation"], np.array([5, 0, 17, 3])
    state, random = {k: v.clone() for k, v in encoder.state_dict().items()}, torch.get_rng_state()
    with torch.inference_mode():
        expected = encoder.embed(pool, some)
        found = {}
        for form in ("onnx", "onnx-int8"):
            with deployed_as(encoder, form, evaluation):
                found[form] = encoder.embed(pool, some)
                alone = torch.cat([encoder.embed(pool, some[i : i + 1]) for i in range(4)])
                assert torch.allclose(found[form], alone, atol=1e-5), "an embedding does not depend on the others"
        assert torch.equal(encoder.embed(pool, some), expected)
    assert torch.allclose(found["onnx"], expected, atol=1e-4)
    assert 1e-4 < (found["onnx-int8"] - expected).abs().max() < 0.3
    assert torch.equal(random, torch.get_rng_state()), "training goes on as if nothing had been measured"
    assert all(torch.equal(v, state[k]) for k, v in encoder.state_dict().items())


def test_without_onnxruntime_the_search_ends_before_anything_is_loaded(small_config, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "onnxruntime" else find(name, *a))
    small_config["objectives"] = {"accuracy": "maximize", "latency": {"of": "onnx-int8"}}
    sentence = (
        r"objectives: latency \(onnx-int8\) needs the package onnxruntime, which is not installed: "
        r"pip install 'nas-meta\[onnx\]'"
    )
    with pytest.raises(ConfigError, match=sentence):
        search(small_config, tmp_path / "run", inline=True)


def test_a_learner_that_needs_torch_is_refused(small_config, tmp_path):
    small_config |= {"objectives": {"accuracy": {"of": "onnx"}}, "learner": {"name": "maml"}}
    with pytest.raises(ConfigError, match=r"the learner .maml. adapts with torch; expected protonet, ridge or"):
        search(small_config, tmp_path / "run", inline=True)


def test_models_that_torch_cannot_translate_are_refused_before_the_first_trial(small_config, tmp_path, monkeypatch):
    def broken(*_):
        raise ConfigError("the model cannot be exported as an ONNX graph (why)")

    monkeypatch.setattr(deployed, "write_graph", broken)
    small_config["objectives"] = {"accuracy": "maximize", "latency": {"of": "onnx"}}
    with pytest.raises(ConfigError, match=r"a metric is measured of onnx, but the model cannot be .*of: torch"):
        search(small_config, tmp_path / "run", inline=True)


def test_how_well_other_classes_are_distinguished_is_measured_on_request(small_config, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")  # so that headings are on one line
    small_config |= {"budget": {"trials": 2}, "strategy": {"name": "random"}}
    small_config["evaluation"] |= {"open_set": True, "check_models": False}
    small_config["tasks"] |= {"ways": 2, "train_ways": 2}
    run = search(small_config, tmp_path / "run", inline=True)
    for trial in run.trials:
        assert 0.2 < trial.metrics["oos_auroc"] <= 1 and 0 <= trial.metrics["oos_fpr95"] <= 1
    assert METRICS["oos_auroc"].title in shown(result_table(run, wide=True))
    same = resolve(small_config | {"evaluation": {}, "objectives": {"oos_auroc": None}}).sections
    assert same.asked_metrics == ("oos_auroc",) and same.optimised[0].direction == "maximize"
    assert resolve(small_config | {"evaluation": {}}).sections.asked_metrics == ()


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"learner": {"name": "maml"}}, "compare embeddings, which the learner 'maml' does not"),
        ({"tasks": {"ways": 3}}, "need queries of classes besides the 3 of an episode, but meta-validation has 3"),
    ],
)
def test_open_set_metrics_that_cannot_be_measured_are_refused(changed, sentence, small_config):
    small_config |= {"objectives": {"accuracy": "maximize", "oos_fpr95": None}}
    for section, values in changed.items():
        small_config[section] = {**small_config[section], **values} if section == "tasks" else values
    with pytest.raises(ConfigError, match=sentence):
        load_problem(resolve(small_config))


@pytest.mark.slow
def test_the_same_episodes_for_every_candidate_and_interim_training_is_untouched(small_config):
    """The accuracy and the weights of a trial do not depend on what else is measured."""
    small_config["tasks"] |= {"ways": 2, "train_ways": 2}
    results = []
    for asked in ((), ("oos_auroc",)):
        resolved = resolve(small_config | {"objectives": {"accuracy": None, **dict.fromkeys(asked)}})
        problem = load_problem(resolved)
        evaluation = make_evaluation(resolved, *problem, cpus=1)
        architecture = problem.space.sample(np.random.default_rng(0))
        for _ in range(1 + len(asked)):
            results.append(result_of(evaluation.trial(architecture, 1, keep_above=0.0)))
    plain, asked, again = results
    assert asked.metrics["accuracy"] == plain.metrics["accuracy"] and bytes(asked.weights) == bytes(plain.weights)
    assert asked.metrics["oos_auroc"] == again.metrics["oos_auroc"] and "oos_auroc" not in plain.metrics

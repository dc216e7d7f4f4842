"""Limits with units, and limits that are relative to a model."""

import pytest

from nas_meta.config.problem import load_problem
from nas_meta.config.resolved import resolve
from nas_meta.controller.launch import resume, search
from nas_meta.core.objectives import Limit, Objective, Share
from nas_meta.errors import ConfigError
from nas_meta.models.profiling import flops, parameters


@pytest.mark.parametrize(
    ("metric", "given", "value"),
    [
        ("flops", "345 MFLOPs", 345e6),
        ("flops", "0.5 gflops", 5e8),
        ("flops", "547 M", 547e6),
        ("flops", "0.5G", 5e8),
        ("flops", "1e6", 1e6),
        ("params", "17 M", 17e6),
        ("params", "17M", 17e6),
        ("latency", "12 ms", 0.012),
        ("latency", "0.5s", 0.5),
        ("peak_memory", "2 GiB", 2**31),
        ("accuracy", "80 %", 0.8),
    ],
)
def test_a_limit_may_have_the_unit_that_tables_show(metric, given, value):
    config = resolve({"objectives": {metric: {"max": given}}})
    assert config.sections.limits == [Limit(metric, None, pytest.approx(value))]
    assert resolve(config.document).document == config.document


@pytest.mark.parametrize(
    ("metric", "given", "words"),
    [
        (
            "flops",
            "12 ms",
            "'12 ms' is not a limit of flops; expected a number such as '12 MFLOPs', '12 GFLOPs', '12 M', "
            "'12 G', '0.5x'",
        ),
        ("latency", "0.5x", "'0.5x' is relative to a model, but only params and flops can be; expected a number"),
        ("params", "many", "'many' is not a limit of params; expected a number such as '12 M'"),
        ("params", "-1x", "is not a limit of params"),
        ("params", "0x", "is not a limit of params"),
    ],
)
def test_another_limit_is_refused_with_a_sentence(metric, given, words):
    with pytest.raises(ConfigError) as error:
        resolve({"objectives": {"accuracy": "maximize", metric: {"max": given}}})
    assert words in str(error.value)


def test_a_relative_limit_alone_adds_to_the_default_objectives():
    config = resolve({}, overrides=["objectives.flops.max=0.5x"])
    assert config.sections.optimised == [Objective("accuracy"), Objective("flops", "minimize")]
    assert config.sections.limits == [Limit("flops", None, Share(0.5))]
    assert config.document["objectives"][1]["max"] == "0.5x"


def test_a_limit_is_relative_to_the_untouched_model_or_to_a_named_one(small_config):
    model = small_config["space"]["model"]
    small_config["objectives"] = {
        "accuracy": "maximize", "flops": {"max": "0.8x"}, "params": {"min": "0.1x", "max": f"0.9x {model}"},
    }  # fmt: skip
    space, tasks, _ = load_problem(resolve(small_config))
    whole = space.reference()
    size = parameters(whole)
    assert space.limits == [
        Limit("flops", None, pytest.approx(0.8 * flops(whole, 32))),
        Limit("params", pytest.approx(0.1 * size), pytest.approx(0.9 * size)),
    ]
    assert sum("is limited to at most" in sentence for sentence in tasks.report) == 2
    assert any("0.8 of the" in s and "MFLOPs of the untouched model" in s for s in tasks.report)


def test_a_space_without_a_reference_model_is_refused_with_a_sentence(small_config):
    small_config["space"] = {"name": "encoder", "tokenizer": small_config["space"]["model"]}
    small_config["objectives"] = {"flops": {"max": "0.5x"}}
    with pytest.raises(
        ConfigError, match=r"objectives\.flops has a limit .* the search space ScratchEncoder has none; expected"
    ):
        load_problem(resolve(small_config))
    small_config["objectives"] = {"flops": {"max": "0.5x no/such-folder"}}
    with pytest.raises(ConfigError, match="the model 'no/such-folder' cannot be read"):
        load_problem(resolve(small_config))


@pytest.mark.slow
def test_the_number_stands_in_the_journal_and_the_search_is_resumed(small_config, tmp_path):
    small_config["objectives"] = {"accuracy": "maximize", "params": {"max": "0.95x"}}
    shown = []
    run = search(small_config, tmp_path / "run", inline=True, watch=lambda s: shown.extend(s.data_report))
    [limit] = run.config.sections.limits
    size = parameters(load_problem(resolve(small_config)).space.reference())
    assert limit == Limit("params", None, pytest.approx(0.95 * size))
    assert max(t.metrics["params"] for t in run.trials) <= limit.most
    assert any(sentence.startswith("params is limited to at most") for sentence in shown)
    trials = small_config["budget"]["trials"] + 1
    assert len(resume(run.directory, [f"budget.trials={trials}"], inline=True).trials) == trials
    again = search(small_config, run.directory, inline=True, resume=True)
    assert again.config.sections.limits == [limit]
    small_config["objectives"]["params"]["max"] = "0.9x"
    with pytest.raises(ConfigError, match="resumed with a different config"):
        search(small_config, run.directory, inline=True, resume=True)

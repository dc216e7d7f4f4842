"""MetaNAS: the steps of its paper by hand, a task that needs its own operation, and `nas-meta adapt` as typed."""

import json

import numpy as np
import pytest
import torch
from command_line import nas_meta

from nas_meta import load_classifier, search
from nas_meta.config.components import make_evaluation
from nas_meta.config.problem import load_problem
from nas_meta.config.resolved import resolve
from nas_meta.errors import ConfigError, RunError
from nas_meta.learners.reptile import set_values
from nas_meta.models.encoder import Encoder
from nas_meta.outputs.export.task_model import adapt
from nas_meta.tasks.episodes import episode
from strategies.metanas.metanas import MetaLearner, MetaNAS, MetaNASOptions
from strategies.metanas.task_learner import Head, Tempered, temperature


@pytest.fixture
def config(small_config):
    model = small_config["space"]["model"]
    small_config["space"] = {
        "name": "cell-encoder", "model": model, "layers": 2, "heads": [2], "kernels": [3], "gated": [1.0], "ffn": [1.0],
    }  # fmt: skip
    small_config["tasks"]["shots"] = 2
    small_config["strategy"] = {"name": "metanas", "steps": 6, "judged": 3, "inner_steps": 2, "adapt_steps": 4}
    small_config["budget"] = {"trials": 2}
    return small_config


@pytest.fixture
def meta(config):
    resolved = resolve(config)
    space, tasks, shape = load_problem(resolved)
    torch.manual_seed(0)
    return MetaLearner(make_evaluation(resolved, space, tasks, shape, 1), MetaNASOptions(inner_steps=2, adapt_steps=12))


def tasks_of(meta, count):
    evaluation = meta.evaluation
    return [episode(evaluation.tasks["meta-train"], evaluation.shape, 0, i) for i in range(count)]


def test_the_temperature_falls_by_equal_factors_and_hardens():
    assert [temperature(i, 3, 0.125) for i in range(3)] == pytest.approx([0.5, 0.25, 0.125])
    softmax = Tempered()
    softmax.temperature = 0.05
    # 1 / (1 + e^(-0.3 / 0.05) + e^(-0.2 / 0.05))
    assert softmax(torch.tensor([0.0, 0.3, 0.1]))[1] == pytest.approx(1 / (1 + np.exp(-6) + np.exp(-4)))


def test_the_head_at_prototypes_classifies_by_the_nearest_one():
    support = [torch.tensor([[1.0, 0.0], [3.0, 0.0]]), torch.tensor([[0.0, 1.0]])]
    head = Head.at_prototypes(support)
    assert head.weight.tolist() == [[4.0, 0.0], [0.0, 2.0]] and head.bias.tolist() == [-4.0, -1.0]
    z = torch.tensor([[1.0, 0.5]])
    distances = torch.tensor([[(1 - 2) ** 2 + 0.25, 1 + 0.25]])
    torch.testing.assert_close(head(z).softmax(1).detach(), (-distances).softmax(1))


def test_a_reptile_step_goes_a_share_of_the_way_to_the_mean_of_where_tasks_end(meta):
    pool, tasks = meta.evaluation.tasks["meta-train"], tasks_of(meta, 2)
    start, ends = meta.values(), []
    meta.encoder.train()
    for task in tasks:
        labels = np.concatenate([task.support_labels, task.labels])
        meta.learner.adapt(pool, task.support, task.indices, labels, 2)
        ends.append(meta.values())
        set_values(meta.learner.moving, start)
    meta.reptile_step(pool, tasks, 0.25)
    moved = 0
    for now, was, one, two in zip(meta.values(), start, *ends, strict=True):
        torch.testing.assert_close(now, was + 0.25 * ((one + two) / 2 - was), atol=1e-6, rtol=1e-5)
        moved += not torch.equal(now, was)
    assert moved > len(meta.learner.alphas)


def test_a_fomaml_step_is_along_the_gradient_at_the_adapted_point(meta):
    """With plain descent as the outer optimiser and one task: φ - lr · ∇L_query(φ')."""
    pool, (task,) = meta.evaluation.tasks["meta-train"], tasks_of(meta, 1)
    start = meta.values()
    head, _ = meta.learner.adapt(pool, task.support, task.support.ravel(), task.support_labels, 2)
    logits = head(meta.learner.features(pool, task.query.ravel()))
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(task.labels))
    slopes = torch.autograd.grad(loss, meta.learner.moving, allow_unused=True, materialize_grads=True)
    set_values(meta.learner.moving, start)
    told = meta.fomaml_step(pool, [task], torch.optim.SGD(meta.learner.moving, 0.1))
    assert told == pytest.approx(float(loss.detach()), rel=1e-5)
    for now, was, slope in zip(meta.values(), start, slopes, strict=True):
        torch.testing.assert_close(now, was - 0.1 * slope, atol=1e-6, rtol=1e-4)


def test_a_task_gets_its_own_architecture_and_the_initialisation_stays(meta):
    pool = meta.evaluation.tasks["meta-validation"]
    before = meta.values()
    rows = [meta.evaluate(episode(pool, meta.evaluation.shape, 0, i)) for i in range(4)]
    assert all(torch.equal(a, b) for a, b in zip(before, meta.values(), strict=True))
    assert len({json.dumps(row["architecture"]) for row in rows}) > 1
    assert meta.learner.softmax.temperature == pytest.approx(0.05)


def test_what_is_hardened_computes_what_the_mixture_computes_at_its_end(meta):
    """Where α leaves no doubt, the annealed mixture is the one architecture."""
    pool = meta.evaluation.tasks["meta-validation"]
    architecture = meta.space.sample(np.random.default_rng(1))
    with torch.no_grad():
        for name, alpha in meta.learner.modules.alphas.items():
            alpha.zero_()
            if name in architecture.values:
                alpha[meta.space.table[name].values.index(architecture[name])] = 2.0
    meta.learner.softmax.temperature = 0.05
    meta.encoder.eval()
    found, model = meta.harden()
    assert found == architecture
    with torch.no_grad():
        mixed, alone = (e.embed(pool, np.arange(6)) for e in (meta.encoder, Encoder(model).eval()))
    torch.testing.assert_close(mixed, alone, atol=1e-5, rtol=1e-4)


@pytest.fixture
def run(config, tmp_path):
    return search(config, tmp_path / "run", inline=True)


def test_a_search_ends_with_trials_and_a_task_of_ones_own_is_adapted_to(run, labelled_texts, tmp_path):
    assert [t.status for t in run.trials] == ["completed"] * 2
    assert len(run.findings["adapted"]) == 3 and run.findings["architectures"][0] == dict(run.trials[0].architecture)
    rows = [json.loads(line) for line in labelled_texts.read_text().splitlines()]
    wanted = ("class1", "class7", "class4")
    seen = {name: [r for r in rows if r["label"] == name] for name in wanted}
    # Not as many of each: a support set need not be even.
    support = [*seen["class1"][:3], *seen["class7"][:2], *seen["class4"][:1]]
    query = [row for name in wanted for row in seen[name][3:]]
    for name, part in (("support", support), ("query", query)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, part)))
    arguments = ("adapt", run.directory, "--support", tmp_path / "support.jsonl", "--query", tmp_path / "query.jsonl")
    made = json.loads(nas_meta(*arguments, "--to", tmp_path / "own", "--json").stdout)
    assert made["labels"] == ["class1", "class4", "class7"] and made["examples"] == len(query)

    from safetensors.torch import load_file
    from transformers import AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(tmp_path / "own", trust_remote_code=True).eval()
    tokens = AutoTokenizer.from_pretrained(tmp_path / "own")(
        [r["text"] for r in query], return_tensors="pt", padding=True
    )
    head = load_file(tmp_path / "own" / "head.safetensors")
    mask = tokens["attention_mask"].unsqueeze(-1)
    with torch.no_grad():
        states = model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]).last_hidden_state
    z = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=-1)
    said = (z @ head["weight"].T + head["bias"]).argmax(1)
    right = [made["labels"][i] == row["label"] for i, row in zip(said, query, strict=True)]
    assert np.mean(right) == pytest.approx(made["accuracy"])

    classifier = load_classifier(tmp_path / "own", device="cpu")
    texts = [row["text"] for row in query]
    assert classifier.predict(texts).tolist() == [made["labels"][i] for i in said]
    assert classifier.score(texts, [row["label"] for row in query]) == pytest.approx(made["accuracy"])
    assert classifier.explain(texts[0]).label == classifier.predict(texts[:1])[0]
    one = json.loads(nas_meta("classify", tmp_path / "own", texts[0], "--json").stdout)
    assert one[0]["label"] == classifier.predict(texts[:1])[0]
    with pytest.raises(ConfigError, match="was adapted to the 3 classes of one task and cannot be fitted to others"):
        classifier.fit(["alpha", "bravo"], ["a", "b"])
    with pytest.raises(RunError, match="is a classifier already"):
        classifier.save(tmp_path / "saved")
    (tmp_path / "own" / "labels.json").write_text("[1]")
    with pytest.raises(ConfigError, match=r"head\.safetensors and labels\.json do not fit"):
        load_classifier(tmp_path / "own")
    (tmp_path / "own" / "nas_meta.yaml").unlink()
    with pytest.raises(ConfigError, match="which an earlier version wrote"):
        load_classifier(tmp_path / "own")

    again = nas_meta(*arguments, "--to", tmp_path / "own", check=1)
    assert "is not empty; expected a new or empty folder" in again.stderr
    (tmp_path / "query.jsonl").write_text(json.dumps({"text": "redfox", "label": "class2"}))
    wrong = nas_meta(*arguments, "--to", tmp_path / "other", check=2)
    assert "the class 'class2' is not in" in wrong.stderr and "did you mean 'class" in wrong.stderr
    assert (
        "expected a file that ends with .jsonl or .csv"
        in nas_meta("adapt", run.directory, "--support", "x.txt", "--to", "y", check=2).stderr
    )


def test_a_supernet_that_was_trained_with_class_names_adapts_with_them(config, texts_by_class, tmp_path, monkeypatch):
    config["tasks"]["class_names"] = True
    run = search(config, tmp_path / "run", inline=True)
    rows = [{"text": texts_by_class[name][i], "label": name} for name in ("class1", "class4") for i in range(2)]
    (tmp_path / "support.jsonl").write_text("\n".join(map(json.dumps, rows)))
    given, adapted = [], MetaNAS.adapted

    def recorded(strategy, evaluation, pool, support):
        given.extend([pool.texts[i] for i in indices] for indices in support)
        return adapted(strategy, evaluation, pool, support)

    monkeypatch.setattr(MetaNAS, "adapted", recorded)
    adapt(run, tmp_path / "support.jsonl", tmp_path / "own")
    assert given == [[*texts_by_class[name][:2], name] for name in ("class1", "class4")]
    assert load_classifier(tmp_path / "own").classes_.tolist() == ["class1", "class4"]


def test_a_run_of_another_strategy_cannot_adapt(small_config, tmp_path):
    small_config["budget"], small_config["strategy"] = {"trials": 1}, {"name": "random"}
    search(small_config, tmp_path / "run", inline=True)
    said = nas_meta("adapt", tmp_path / "run", "--support", "s.jsonl", "--to", tmp_path / "own", check=2).stderr
    assert "strategy 'random', which does not adapt architectures to tasks; expected a run of metanas" in said

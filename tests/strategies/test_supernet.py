"""Sub-networks are slices of one encoder, learn together, and are judged with what they inherit."""

import json
import pickle

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import (
    AutoModel,
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    RobertaConfig,
    RobertaModel,
)
from two_texts import IDS, MASK, output

import nas_meta
from nas_meta.config.components import make_evaluation
from nas_meta.config.problem import load_problem
from nas_meta.config.resolved import resolve
from nas_meta.core.objectives import Objective, crowding_distances
from nas_meta.errors import NasMetaError
from nas_meta.evaluation.trial import result_of
from nas_meta.learners.training.options import set_dropout
from nas_meta.learners.training.regularisation import regularise
from nas_meta.models.encoder import Encoder
from nas_meta.models.state import deserialize_state, serialize_state
from nas_meta.outputs.rerun import rerun
from nas_meta.tasks.episodes import EpisodeShape, episode
from nas_meta.testing.device_rule import DeviceRule
from search_spaces.pretrained.bert_elastic import widths_of
from search_spaces.pretrained.bert_subnet import BertSubnet, BertSubnetOptions
from search_spaces.pretrained.elastic_model import StateCache
from strategies.shared.pareto_selection import select_best
from strategies.supernet.inherited_weights import subsample, supernet_encoder
from strategies.supernet.sandwich import Sandwich
from strategies.supernet.search import SupernetJob, SupernetOptions, proposals
from strategies.supernet.size_extremes import largest, smallest

SIZE = {"vocab_size": 40, "max_position_embeddings": 40}
BERT = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 16}
MODELS = {
    "bert": lambda: BertModel(BertConfig(**SIZE, **BERT)),
    "roberta": lambda: RobertaModel(RobertaConfig(**SIZE, **BERT, pad_token_id=0)),
    "distilbert": lambda: DistilBertModel(DistilBertConfig(**SIZE, dim=24, n_layers=3, n_heads=3, hidden_dim=16)),
}
ONCE = settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module", params=list(MODELS))
def space(request, tmp_path_factory):
    """Three layers of three heads and sixteen neurons, in an order of importance that is not theirs."""
    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(1)
    model = MODELS[request.param]()
    for p in model.parameters():  # biases start at zero, which would hide mistakes
        torch.nn.init.normal_(p, std=0.3)
    model.save_pretrained(folder)
    space = BertSubnet(BertSubnetOptions(model=str(folder), heads=[1.0, 0.67, 0.34], ffn=[1.0, 0.5, 0.25]))
    rng = np.random.default_rng(0)
    space._scores = (rng.random((3, 3)), rng.random((3, 16)))
    return space


@ONCE
@given(seed=st.integers(0, 10**6))
def test_the_untrained_supernet_is_the_model_that_the_space_builds(space, seed):
    architecture = space.sample(np.random.default_rng(seed))
    supernet, built = space.supernet(), space.build(architecture)
    supernet.select(architecture)
    extracted = supernet.extract(architecture)
    torch.testing.assert_close(output(supernet), output(built), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(output(extracted), output(built), atol=1e-5, rtol=1e-5)
    assert {n: p.shape for n, p in extracted.named_parameters()} == {n: p.shape for n, p in built.named_parameters()}
    built.load_state_dict(extracted.state_dict())
    assert torch.equal(output(built), output(extracted))


@ONCE
@given(seed=st.integers(0, 10**6))
def test_a_trained_slice_equals_the_supernet_and_owns_its_weights(space, seed):
    supernet = space.supernet()
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    for p in supernet.parameters():
        torch.nn.init.normal_(p, std=0.3)
    first, then = space.sample(rng), space.sample(rng)
    supernet.select(first)
    supernet.select(then)  # the last one counts
    extracted = supernet.extract(then)
    before = output(extracted)
    torch.testing.assert_close(output(supernet), before, atol=1e-5, rtol=1e-5)
    for p in supernet.parameters():
        torch.nn.init.zeros_(p)
    assert torch.equal(output(extracted), before)


def test_a_slice_is_taken_on_the_device_of_the_supernet(space):
    supernet = space.supernet()
    with DeviceRule() as rule:
        supernet.extract(space.sample(np.random.default_rng(1)))
    assert not rule.violations


def test_smaller_sub_networks_are_slices_of_larger_ones(space):
    supernet = space.supernet()
    wide = {f"layer{i}.{k}": v for i in range(3) for k, v in (("keep", i != 1), ("heads", 3), ("ffn", 16))}
    narrow = {n: {3: 2, 16: 4}.get(v, v) for n, v in wide.items()}
    big, small = (dict(supernet.extract(space.architecture(v)).named_parameters()) for v in (wide, narrow))
    for name, p in small.items():
        assert torch.equal(p, big[name][tuple(slice(n) for n in p.shape)]), name


def test_gradients_reach_the_active_part_alone(space):
    supernet = space.supernet()
    values = {"layer0.keep": False, "layer1.keep": True, "layer1.heads": 1, "layer1.ffn": 4, "layer2.keep": False}
    architecture = space.architecture(values)
    supernet.select(architecture)
    supernet.train()(input_ids=IDS, attention_mask=MASK).last_hidden_state.square().sum().backward()
    own = {id(p): n for n, p in supernet.named_parameters()}
    moved = {own[id(p)]: int((p.grad != 0).sum()) for p in supernet.parameters() if p.grad is not None}
    from search_spaces.slicing import layers_of

    parts = layers_of(supernet.model)[1].full
    value, up = parts.inward["value"], parts.inward["up"]
    assert value.weight.grad[8:].abs().max() == 0 < value.weight.grad[:8].abs().min()
    assert parts.outward.weight.grad[:, 8:].abs().max() == 0 < parts.outward.weight.grad[:, :8].abs().min()
    assert up.weight.grad[4:].abs().max() == 0 < up.bias.grad[:4].abs().max()
    assert parts.down.weight.grad[:, 4:].abs().max() == 0 < parts.down.weight.grad[:, :4].abs().max()
    assert not any(".layer.0." in f".{n}" or ".layer.2." in f".{n}" for n in moved)


@pytest.fixture
def evaluation(small_config):
    """The evaluation of a small search in fp32, dropout off."""
    small_config["learner"]["training"], small_config["compute"] = {"dropout": 0.0}, {"precision": "fp32"}
    resolved = resolve(small_config)
    space, tasks, shape = load_problem(resolved)
    return make_evaluation(resolved, space, tasks, shape, cpus=1)


def test_packed_texts_give_the_embeddings_of_padded_ones(evaluation):
    supernet, pool = evaluation.space.supernet(), evaluation.tasks["meta-validation"]
    encoder = supernet_encoder(evaluation, supernet).eval()
    assert encoder.packs_from == 0
    supernet.select(evaluation.space.sample(np.random.default_rng(1)))
    with torch.no_grad():
        together = encoder.embed(pool, np.arange(20))
        encoder.one_text_a_row = True
        torch.testing.assert_close(together, encoder.embed(pool, np.arange(20)), atol=1e-5, rtol=1e-4)


def sandwich_of(evaluation, steps=1, **changes):
    supernet = evaluation.space.supernet()
    encoder = supernet_encoder(evaluation, supernet)
    options = evaluation.learner.options.model_copy(update={"steps": steps})
    size = evaluation.space.count_params
    arguments = {"draws": 0, "distil": True, "seed": 0, **changes}
    return Sandwich(evaluation.learner, options, evaluation.space, supernet, size, **arguments), supernet, encoder


@pytest.mark.parametrize("distil", [True, False])
def test_a_step_adds_the_gradients_of_the_largest_and_of_the_smallest_that_it_teaches(evaluation, distil):
    """∇ ½(CE(labels, largest) + CE(largest's probabilities, smallest)), written out here with stand-alone models."""
    sandwich, supernet, encoder = sandwich_of(evaluation, distil=distil)
    pool = evaluation.tasks["meta-train"]
    task = episode(pool, evaluation.shape, 0, 0)
    seen = []
    supernet_select = supernet.select
    supernet.select = lambda a: (seen.append(a), supernet_select(a))
    with regularise(encoder, sandwich.options.training) as regularisation:
        set_dropout(encoder.train(), sandwich.options.training)
        loss = sandwich.gradients(encoder, pool, [task], regularisation)([task])
    assert seen[0] == sandwich.largest and len(seen) == 2
    models = [supernet.extract(a).eval() for a in seen]
    learner, labels = evaluation.learner, torch.from_numpy(task.labels)
    logits = []
    for model in models:
        z = Encoder(model).embed(pool, task.indices)
        logits.append(learner.logits(encoder, z[:3].view(3, 1, -1), z[3:]))
    hard = torch.nn.functional.cross_entropy(logits[0], labels)
    target = logits[0].detach().softmax(1) if distil else torch.eye(3)[labels]
    soft = -(target * logits[1].log_softmax(1)).sum(1).mean()
    ((hard + soft) / 2).backward()
    assert loss == pytest.approx(hard.item(), rel=1e-4)
    assert sandwich.losses == pytest.approx({"largest": hard.item(), "smallest": soft.item()}, rel=1e-4)
    # LayerNorm weights are whole in every sub-network, so their gradients can be compared as they are.
    got = {n: p.grad for n, p in supernet.named_parameters()}
    kept = widths_of(seen[1])
    for i in range(2):
        parts = [dict(models[0].encoder.layer[i].named_parameters())]
        if i in kept:
            parts.append(dict(models[1].encoder.layer[list(kept).index(i)].named_parameters()))
        name = "output.LayerNorm.weight"
        expected = sum(p[name].grad for p in parts)
        torch.testing.assert_close(got[f"model.encoder.layer.{i}.layer.{name}"], expected, atol=1e-6, rtol=1e-3)
        up = got[f"model.encoder.layer.{i}.layer.intermediate.dense.weight"]
        whole = sum(torch.nn.functional.pad(g, (0, 0, 0, 64 - len(g))) for p in parts
                    if (g := p["intermediate.dense.weight"].grad) is not None)  # fmt: skip
        torch.testing.assert_close(up, whole, atol=1e-6, rtol=1e-3)


def test_training_makes_the_smallest_better_too(evaluation):
    sandwich, supernet, encoder = sandwich_of(evaluation, steps=60, draws=1)
    small = smallest(evaluation.space, evaluation.space.count_params, np.random.default_rng(0))

    def accuracy():
        supernet.select(small)
        return evaluation.accuracies(encoder, "meta-train", 40).mean()

    before = accuracy()
    pool = evaluation.tasks["meta-train"]
    for _ in sandwich.meta_train(encoder, pool, lambda i: episode(pool, evaluation.shape, 0, i)):
        assert set(sandwich.losses) == {"largest", "smallest", "random"}
    assert accuracy() > before + 0.05


def test_the_largest_and_the_smallest_are_those_of_all(space):

    def size(architecture):
        return sum(9 + 4 * h + f for h, _, f in widths_of(architecture).values())

    every = sorted(size(a) for a in space.walk())
    assert size(largest(space, size)) == every[-1] == 3 * 37
    found = {smallest(space, size, np.random.default_rng(i)).id for i in range(20)}
    assert {size(a) for a in space.walk() if a.id in found} == {every[0]} == {17}
    assert len(found) == 3  # each layer may be the one that is left


def test_shared_layers_are_computed_once_and_nothing_else_changes(space):
    supernet = space.supernet().eval()
    rng = np.random.default_rng(2)
    some = [space.sample(rng) for _ in range(30)]
    alone = []
    for architecture in some:
        supernet.select(architecture)
        alone.append(output(supernet))
    computed = []
    for layer in supernet.modules():
        if hasattr(layer, "_compute"):
            inner = layer._compute
            layer._compute = lambda *a, inner=inner, **k: (computed.append(1), inner(*a, **k))[1]
    with supernet.sharing():
        for architecture, expected in zip(some, alone, strict=True):
            supernet.select(architecture)
            assert torch.equal(output(supernet), expected)
        other = supernet(input_ids=IDS.flip(0), attention_mask=MASK.flip(0)).last_hidden_state
        torch.testing.assert_close(other.flip(0), alone[-1], atol=1e-5, rtol=1e-5)
    paths = {tuple(list(widths_of(a).items())[: i + 1]) for a in some for i in range(len(widths_of(a)))}
    assert len(computed) == len(paths) + len(widths_of(some[-1]))  # and the other texts


def test_what_is_remembered_has_a_limit():
    cache = StateCache(max_bytes=100)
    state = torch.zeros(10)  # forty bytes
    for name in "abc":
        cache.begin((name,), [(0, 1, 1)])
        cache.state(lambda: state)
    assert cache.bytes == 80
    assert [inputs for (inputs, _) in cache.states] == [("b",), ("c",)]


def test_few_texts_of_each_class_are_enough_for_an_episode(evaluation):
    pool = evaluation.tasks["meta-validation"]
    few = subsample(pool, 1, EpisodeShape(3, 1, 3), 0)
    assert [len(m) for m in few.members] == [4] * len(pool.classes)
    assert all(set(m) <= set(whole) for m, whole in zip(few.members, pool.members, strict=True))


def test_crowding_and_the_best_of_many_by_hand():
    front = np.array([[0.0, 4.0], [1.0, 3.0], [3.0, 1.0], [4.0, 0.0]])
    # Of the second (3-0)/4 + (4-1)/4, of the third likewise.
    np.testing.assert_allclose(crowding_distances(front), [np.inf, 1.5, 1.5, np.inf])
    values = np.array([[0, 4], [1, 3], [1.1, 2.9], [3, 1], [4, 0], [0, 0], [1, 1]])
    # The front's most crowded are its second row (0.275 + 0.275), then its fourth (1.45, the third has 1.5).
    assert select_best(values, 9) == [4, 0, 2, 3, 1, 6, 5]
    assert select_best(values, 4) == [4, 0, 2, 3]
    assert select_best(values[:, :1], 2) == [4, 3]


def row(accuracy, flops, twice):
    return {"architecture": {"n": accuracy}, "accuracy": accuracy, "flops": flops, "twice": twice}


def test_what_was_judged_again_is_proposed_first():
    judged = [row(0.9, 5, False), row(0.8, 5, True), row(0.7, 4, True), row(0.6, 6, True), row(0.5, 1, False)]
    objectives = [Objective("accuracy"), Objective("flops", "minimize")]
    order = [a["n"] for a in proposals(judged, objectives, 10)]
    assert order == [0.8, 0.7, 0.6, 0.9, 0.5]
    assert [a["n"] for a in proposals(judged, objectives, 2)] == [0.8, 0.7]


@pytest.fixture
def supernet_config(small_config):
    small_config["strategy"] = {
        "name": "supernet", "steps": 4, "checkpoint_every": 2, "judged": 12, "texts": 4, "random": 1,
    }  # fmt: skip
    small_config["budget"]["trials"] = 3
    small_config["resources"]["cpus_per_trial"] = 1
    return small_config


def test_a_search_from_the_supernet_to_the_exported_winner(supernet_config, tmp_path):
    """Without training of its own a trial measures what the supernet's sub-network was judged at."""
    supernet_config["learner"]["steps"] = 0
    run = nas_meta.search(supernet_config, tmp_path / "run", inline=True)
    findings = job_of(tmp_path / "run")
    judged = {json.dumps(r["architecture"], sort_keys=True): r for r in findings["judged"]}
    assert len(judged) == 12 and sum(r["twice"] for r in judged.values()) == 10
    assert findings["front"] and all(r["twice"] for r in findings["front"])
    assert len(run.trials) == 3
    for trial in run.trials:
        inherited = judged[json.dumps(trial.architecture, sort_keys=True)]
        for metric in ("accuracy", "accuracy_ci95", "params", "flops"):
            assert trial.metrics[metric] == inherited[metric], metric
    from nas_meta.outputs.export.folder import export

    export(run, tmp_path / "winner")
    model = AutoModel.from_pretrained(tmp_path / "winner", trust_remote_code=True)
    space = BertSubnet(BertSubnetOptions(model=supernet_config["space"]["model"], heads=[1.0, 0.5], ffn=[1.0, 0.5]))
    start = space.supernet()
    start.load_state_dict(deserialize_state((tmp_path / "run" / "supernet.safetensors").read_bytes()))
    own = start.extract(nas_meta.Architecture(run.best.architecture))
    torch.testing.assert_close(output(model), output(own), atol=1e-5, rtol=1e-5)


def job_of(folder):
    from nas_meta.journal.database import Journal

    return Journal.open(folder).get("job")


@pytest.mark.slow
@pytest.mark.parametrize("steps", [{"trial_steps": 6}, {}])
def test_trials_go_on_from_the_supernet(steps, supernet_config, tmp_path):
    """For as many steps as the strategy says, by default a quarter of the learner's; so does a rerun."""
    supernet_config["strategy"] |= steps
    supernet_config["learner"]["steps"] = 23
    supernet_config["budget"]["trials"] = 1
    supernet_config["evaluation"]["test_best"] = 0
    run = nas_meta.search(supernet_config, tmp_path / "run", inline=True)
    space, tasks, shape = load_problem(run.config)
    supernet = space.supernet()
    supernet.load_state_dict(deserialize_state((tmp_path / "run" / "supernet.safetensors").read_bytes()))
    evaluation = make_evaluation(run.config, space, tasks, shape, cpus=1)
    (trial,) = run.trials
    architecture = nas_meta.Architecture(trial.architecture)
    starts = (serialize_state(supernet.extract(architecture)), None)
    inherited, own = (
        result_of(evaluation.trial(architecture, trial.seed, keep_above=0.0, start=start, steps=6)) for start in starts
    )
    assert trial.planned == trial.fidelity == 6
    assert bytes(run.weights_of(trial)) == bytes(inherited.weights) != bytes(own.weights)
    assert rerun(run, trial)["accuracy"] == trial.metrics["accuracy"]


@pytest.mark.slow
def test_all_of_a_small_space_is_judged_once_by_chance_too(evaluation):
    options = SupernetOptions(steps=1, judged=100, texts=4, random=0, method="random")
    job = pickle.loads(pickle.dumps(SupernetJob(options, (Objective("accuracy"),), 2, 0)))  # as it travels
    progress, result = [], None
    steps = evaluation.run(job)
    while result is None:
        try:
            progress.append(next(steps))
        except StopIteration as end:
            result = end.value
    assert len(result.findings["judged"]) == evaluation.space.size() == 24
    assert progress[0].checkpoint is not None and "meta-train/smallest" in progress[0].values
    assert max(p.step for p in progress) <= job.steps


@pytest.mark.parametrize(
    ("section", "changes", "sentence"),
    [
        ("space", {"name": "peft-bert", "heads": None, "ffn": None}, "search space PeftBert has none"),
        ("learner", {"name": "maml", "head": None}, "MAML is not one; expected a metric learner"),
        ("learner", {"name": "mann", "head": None}, "only on the embeddings of an episode, but MANN is not one"),
        ("learner", {"lr": {"choice": [1e-3, 1e-4]}}, "learner.lr is a choice, but a supernet is trained once"),
        (
            None,
            {"objectives": {"accuracy": {}, "peak_memory": {}}},
            "the objective peak_memory is known only after training",
        ),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_sentence(supernet_config, tmp_path, section, changes, sentence):
    target = supernet_config[section] if section else supernet_config
    target.update(changes)
    for name in [n for n, v in target.items() if v is None]:
        del target[name]
    with pytest.raises(NasMetaError, match=sentence):
        nas_meta.search(supernet_config, tmp_path / "run", inline=True)
    assert not (tmp_path / "run" / "supernet.safetensors").exists()

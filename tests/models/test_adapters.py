"""LoRA, IA³ and parallel adapters, in a learner and in the space peft-bert, against their equations."""

import copy

import pytest
import torch
import torch.nn.functional as F
from installed import marked
from transformers import BertConfig, BertModel, DistilBertConfig, DistilBertModel

from nas_meta import search
from nas_meta.errors import TrialError
from nas_meta.learners.finetune import FineTune, FineTuneOptions
from nas_meta.models.adapters import Insertion, adapter_names, has_adapters, insert, roles, stack, without_adapters
from nas_meta.models.encoder import Encoder
from nas_meta.outputs.export.exported_model import evaluate_folder
from nas_meta.outputs.export.folder import export
from nas_meta.space.architecture import Architecture
from nas_meta.testing import SpaceTests
from search_spaces.pretrained.peft_bert import PeftBert, PeftBertOptions

IDS, MASK = torch.tensor([[2, 3, 4, 5], [6, 7, 8, 0]]), torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])


def bert():
    torch.manual_seed(0)
    return BertModel(
        BertConfig(vocab_size=29, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=64)
    ).eval()


def distilbert():
    torch.manual_seed(0)
    return DistilBertModel(DistilBertConfig(vocab_size=29, dim=32, n_layers=3, n_heads=4, hidden_dim=64)).eval()


def states(model):
    with torch.no_grad():
        return model(input_ids=IDS, attention_mask=MASK).last_hidden_state


def disturbed(model):
    torch.manual_seed(1)
    inserted = set(adapter_names(model))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in inserted:
                parameter += 0.3 * torch.randn_like(parameter)
    return model


@pytest.mark.parametrize("make", [bert, distilbert])
def test_parts_change_nothing_at_first_and_merge_without_a_trace(make):
    model, plain = make(), states(make())
    both = ("attention", "ffn")
    insert(model, {0: Insertion("lora", 4, both), 1: Insertion("ia3", on=both), 2: Insertion("adapter", 3)})
    torch.testing.assert_close(states(model), plain, atol=1e-6, rtol=1e-5)
    changed = states(disturbed(model))
    assert (changed - plain).abs().max() > 0.1
    merged = without_adapters(copy.deepcopy(model), merge=True)
    torch.testing.assert_close(states(merged), changed, atol=1e-5, rtol=1e-4)
    assert not has_adapters(merged) and all(
        type(m).__module__.startswith(("torch", "transformers")) for m in merged.modules()
    )
    torch.testing.assert_close(states(without_adapters(model, merge=False)), plain, atol=1e-6, rtol=1e-5)


def test_each_part_equals_its_equation():
    x = torch.randn(5, 32)
    model = bert()
    weight, bias = (p.detach() for p in model.encoder.layer[0].attention.self.query.parameters())
    up, down = model.encoder.layer[2].intermediate.dense, model.encoder.layer[2].output.dense
    key = model.encoder.layer[1].attention.self.key
    insert(model, {0: Insertion("lora", 4), 1: Insertion("ia3"), 2: Insertion("adapter", 3)})
    disturbed(model)
    query = model.encoder.layer[0].attention.self.query
    a, b = query.lora_A["lora"].weight, query.lora_B["lora"].weight
    assert a.shape == (4, 32)
    torch.testing.assert_close(query(x), x @ weight.T + bias + x @ a.T @ b.T)  # α = r
    scaled = model.encoder.layer[1].attention.self.key
    torch.testing.assert_close(scaled(x), key(x) * scaled.ia3_l["ia3"].flatten())
    wide, narrow = model.encoder.layer[2].intermediate.dense, model.encoder.layer[2].output.dense
    expected = down(F.gelu(up(x))) + F.gelu(wide.adapter(x)) @ narrow.adapter.weight.T
    torch.testing.assert_close(narrow(F.gelu(wide(x))), expected)


def test_roles_are_found_in_other_models_too():
    layer = torch.nn.TransformerEncoderLayer(8, 2, 16)
    assert roles(layer) == {"up": "linear1", "down": "linear2"}
    narrow = stack(
        BertModel(
            BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=2)
        )
    )
    assert "up" not in roles(narrow[1][0]) or roles(narrow[1][0])["up"] == "intermediate.dense"
    narrow = BertConfig(
        vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=2
    )  # fmt: skip
    for neurons in (2, 8):
        narrow.intermediate_size = neurons
        found = roles(stack(BertModel(narrow))[1][0])
        assert (found["up"], found["down"]) == ("intermediate.dense", "output.dense")
    with pytest.raises(TrialError, match="has no list of layers"):
        stack(torch.nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("adapt", "moved"),
    [
        # two layers of width 32 and 64 neurons, rank 8: A and B of query and value; l of key, value and the block's
        # input; D, d and U
        ("lora", 2 * 2 * 2 * 8 * 32),
        pytest.param("ia3", 2 * (32 + 32 + 64), marks=pytest.mark.slow),
        pytest.param("adapter", 2 * (8 * 32 + 8 + 8 * 32), marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("learner", marked(["maml", "reptile", "finetune", "meta-sgd"], ["maml"]))
def test_only_the_parts_move_on_a_support_set_and_they_travel_with_the_export(
    small_config, tmp_path, adapt, moved, learner
):
    small_config["learner"] = {"name": learner, "steps": 2, "adapt": adapt}
    small_config["space"] |= {"heads": [1.0], "ffn": [1.0], "min_layers": 2}
    small_config["strategy"] = {"name": "random"}
    small_config["budget"]["trials"] = 1
    run = search(small_config, tmp_path / "run", inline=True)
    assert run.best.metrics["adapted_share"] == pytest.approx(moved / run.best.metrics["params"])
    folder = export(run, tmp_path / "export")
    score = evaluate_folder(folder, run.config, episodes=20)
    assert score["accuracy"] == pytest.approx(run.test_of(run.best)["test_accuracy"], abs=1e-6)


def test_fine_tuning_with_lora_leaves_everything_else_as_it_was(tiny_model, labelled_texts):
    from transformers import AutoModel

    from nas_meta.tasks.episodes import EpisodeShape, episode
    from nas_meta.tasks.sources.files import FileOptions, JSONLines
    from nas_meta.tasks.tokenization import load_tasks, load_tokenizer

    source = JSONLines(FileOptions(path=labelled_texts))
    pool = load_tasks(source, load_tokenizer(str(tiny_model)), 16)["meta-train"]
    learner = FineTune(FineTuneOptions(adapt="lora", body_lr=0.1))
    model = AutoModel.from_pretrained(tiny_model)
    learner.equip(model)
    encoder = Encoder(model)
    seen = {}
    original = FineTune._descend

    def watch(self, *arguments):
        before = {n: p.detach().clone() for n, p in encoder.named_parameters()}
        yield from original(self, *arguments)
        seen.update({n: not torch.equal(p, before[n]) for n, p in encoder.named_parameters()})

    FineTune._descend = watch
    try:
        learner.classify(encoder, pool, episode(pool, EpisodeShape(3, 1, 3), 0, 0))
    finally:
        FineTune._descend = original
    moved = {n for n, changed in seen.items() if changed}
    assert moved and all(".lora_" in n for n in moved)


def test_a_model_with_adapters_of_its_own_gets_no_second_ones():
    model = bert()
    insert(model, {0: Insertion("lora")})
    with pytest.raises(TrialError, match="already has adapters"):
        insert(model, {1: Insertion("ia3")})


@pytest.fixture
def space(tiny_model):
    return PeftBert(PeftBertOptions(model=str(tiny_model), ranks=[2, 4]))


class TestPeftBertSpace(SpaceTests):
    @pytest.fixture(autouse=True)
    def _space(self, space):
        self.space = space

    def make_space(self):
        return PeftBert(self.space.options)


def test_trained_parameters_are_counted_without_a_build(space):
    import numpy as np

    rng = np.random.default_rng(0)
    for _ in range(20):
        architecture = space.sample(rng)
        model = space.build(architecture)
        assert space.count_trained(architecture) == sum(p.numel() for p in model.parameters() if p.requires_grad)
    small = PeftBert(space.options.model_copy(update={"max_trained": 150}))
    assert all(small.count_trained(small.sample(rng)) <= 150 for _ in range(20))
    nothing = {f"layer{i}.part": "none" for i in range(2)}
    assert "no layer has an adapter to train" in space.problem(space.canonical(nothing))


@pytest.mark.slow
def test_a_search_over_parts_keeps_the_encoder_frozen_and_exports_the_same_outputs(small_config, tiny_model, tmp_path):
    from transformers import AutoModel

    small_config["space"] = {"name": "peft-bert", "model": str(tiny_model), "ranks": [2, 4]}
    small_config["learner"] |= {"steps": 6, "lr": 0.05}
    small_config["objectives"] = [{"metric": "accuracy"}, {"metric": "trained_params", "direction": "minimize"}]
    run = search(small_config, tmp_path / "run", inline=True)
    assert {t.status for t in run.trials} == {"completed"}
    space = PeftBert(PeftBertOptions(model=str(tiny_model), ranks=[2, 4]))
    for trial in run.trials:
        architecture = Architecture(trial.architecture)
        assert trial.metrics["trained_params"] == space.count_trained(architecture)
    folder = export(run, tmp_path / "export")
    from nas_meta.config.components import make_evaluation
    from nas_meta.tasks.episodes import EpisodeShape

    evaluation = make_evaluation(run.config, space, None, EpisodeShape(3, 1, 3), 1)
    trained = evaluation.restored(Architecture(run.best.architecture), run.weights_of(run.best)).eval().model.cpu()
    torch.testing.assert_close(
        states(AutoModel.from_pretrained(folder, trust_remote_code=True).eval()), states(trained), atol=1e-5, rtol=1e-4
    )
    assert not torch.allclose(states(trained), states(space.reference()), atol=1e-3)
    base = space.reference().state_dict()
    kept = without_adapters(copy.deepcopy(trained), merge=False).state_dict()
    assert all(torch.equal(base[name], kept[name]) for name in base)

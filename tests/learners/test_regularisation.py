"""Noise, adversaries and a teacher under ``learner.training``, against numbers by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModel

from nas_meta import search
from nas_meta.config.resolved import resolve
from nas_meta.errors import ConfigError, NasMetaError
from nas_meta.learners.maml import MAML, MAMLOptions
from nas_meta.learners.protonet import ProtoNet, ProtoNetOptions
from nas_meta.learners.training.adversary import Adversary
from nas_meta.learners.training.options import TrainingOptions
from nas_meta.learners.training.regularisation import regularise, teacher_distance
from nas_meta.models.encoder import Encoder
from nas_meta.tasks.augmentation import add_noise, augment, parse_thesaurus
from nas_meta.tasks.episodes import EpisodeShape, episode
from nas_meta.tasks.tokenization import load_tokenizer

SHAPE = EpisodeShape(3, 1, 3)
WORDS = [((2,), False), ((10,), True), ((11, 12), True), ((13,), True), ((3,), False)]
OPTIONS = ({"word_dropout": 0.3}, {"word_swap": 0.3}, {"adversarial": "fgm"}, {"adversarial": "pgd"},
           {"adversarial": "freelb"}, {"distill": 1.0})  # fmt: skip
SLOW = pytest.mark.slow


@pytest.fixture
def encoder(tiny_model):
    encoder = Encoder(AutoModel.from_pretrained(tiny_model)).double()
    for module in encoder.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for layer in encoder.model.encoder.layer:
        layer.attention.self.config.attention_probs_dropout_prob = 0.0
    return encoder


@given(st.integers(0, 10_000), st.floats(0, 0.99), st.floats(0, 1))
def test_noise_keeps_words_whole_and_special_tokens_in_place(seed, dropout, swap):
    text = add_noise(WORDS, dropout, swap, 0.0, {}, np.random.default_rng(seed))
    assert text[0] == 2 and text[-1] == 3
    rest = text[1:-1]
    assert rest and set(rest) <= {10, 11, 12, 13}
    assert (11 in rest) == (12 in rest) and (11 not in rest or rest[rest.index(11) + 1] == 12)
    if dropout == 0:
        assert sorted(rest) == [10, 11, 12, 13]


def test_noise_comes_with_the_chance_that_was_asked_for():
    rng = np.random.default_rng(0)
    many = [((i,), True) for i in range(10, 1010)]
    assert len(add_noise(many, 0.2, 0, 0, {}, rng)) == pytest.approx(800, abs=40)
    replaced = add_noise(many, 0, 0, 0.3, {(i,): [(i + 5000,), (i + 7000, 1)] for i in range(10, 1010)}, rng)
    assert sum(t >= 5000 for t in replaced) == pytest.approx(300, abs=45)
    assert sum(t == 1 for t in replaced) == pytest.approx(150, abs=40)


def test_words_of_several_tokens_are_known_from_the_tokenizer(pool):
    groups = pool.words_of(0)
    assert [t for g, _ in groups for t in g] == list(pool.tokens[: pool.offsets[1]])
    assert not groups[0][1] and not groups[-1][1] and all(is_word for _, is_word in groups[1:-1])
    ids, mask = augment(pool, np.array([0, 1]), 0, 0, 0, np.random.default_rng(0))
    expected = pool.batch(np.array([0, 1]))
    assert np.array_equal(ids, expected[0]) and np.array_equal(mask, expected[1])


def test_the_thesaurus_is_read_by_commas_within_semicolons():
    text = """
     378. Physical Pain -- N. pain; suffering, sufferance, bodily
pain; ache &c v.; smart [Lat.], sting.
     379. Other -- V. hurt, wound; cut.
"""
    found = parse_thesaurus(text)
    assert found["suffering"] == {"sufferance"} and found["smart"] == {"sting"} and found["wound"] == {"hurt"}
    assert "ache" not in found and "pain" not in found


@pytest.mark.slow
def test_synonyms_of_the_package_reach_the_training_texts(small_config, tmp_path):
    pytest.importorskip("roget")
    from nas_meta.config.problem import load_problem
    from nas_meta.config.resolved import resolve
    from nas_meta.tasks.augmentation import thesaurus

    assert {"crack", "rupture"} <= thesaurus()["fracture"]
    resolved = resolve(
        {"tasks": {"source": "icd10"}, "learner": {"training": {"synonyms": 0.5}}}
    )  # fmt: skip
    _, tasks, _ = load_problem(resolved)
    pool, tokenizer = tasks["meta-train"], load_tokenizer("starter:minilm")
    fracture = tuple(tokenizer("fracture", add_special_tokens=False)["input_ids"])
    assert "crack" in [tokenizer.decode(list(s)) for s in pool.synonyms[fracture]]
    assert not tasks["meta-validation"].synonyms


@pytest.mark.parametrize("name", ["mixup", "average_last"])
def test_removed_options_are_accepted_where_earlier_versions_wrote_that_they_are_off(name):
    assert TrainingOptions.model_validate({name: 0}) == TrainingOptions()
    with pytest.raises(ConfigError, match=rf"'learner\.training\.{name}' is not a known key"):
        resolve({"learner": {"training": {name: 2}}})


def test_the_distance_to_the_teacher_by_hand():
    z, t = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 1.0], [0.0, 3.0]])
    assert teacher_distance(z, t).item() == pytest.approx((1 - 0.5**0.5) / 2)
    wide = torch.tensor([[1.0, 1.0, 0.0], [0.0, 3.0, 0.0]])
    # Cosines between the two texts: 0 for the student, 1/√2 for the teacher; two of four entries differ.
    assert teacher_distance(z, wide).item() == pytest.approx(0.5 * 2 / 4)


class Quadratic(torch.nn.Module):
    """L = ½ ||e·w||² of a table's row e: g = w(w·e), by hand."""

    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(1, 2).double()
        self.w = torch.nn.Parameter(torch.tensor([1.0, 2.0], dtype=torch.float64))
        self.table.weight.data = torch.tensor([[1.0, 1.0]], dtype=torch.float64)

    def loss(self):
        e = self.table(torch.tensor([[0]]))
        loss = (e @ self.w).square().sum() / 2
        return loss, loss


def gradient_at(e, w):
    return (e @ w) * e


@pytest.mark.parametrize("kind", ["fgm", "pgd", "freelb"])
def test_the_adversary_equals_its_equations(kind):
    model = Quadratic()
    adversary = Adversary(model.table, TrainingOptions(adversarial=kind, epsilon=0.5, adversarial_steps=2))
    shown = adversary.backward(model.loss, share=1.0)
    assert shown == pytest.approx(4.5)
    e, w = torch.tensor([1.0, 1.0], dtype=torch.float64), model.w.detach()
    unit = w / w.norm()  # g = (e·w) w, and e·w stays positive
    if kind == "freelb":
        # δ: 0, then 1.5·0.5/2 along w; the mean of the gradients at both.
        expected = (gradient_at(e, w) + gradient_at(e + 0.375 * unit, w)) / 2
    else:
        # fgm goes ε at once; pgd 0.375 twice and back onto the sphere of radius ε.
        expected = (gradient_at(e, w) + gradient_at(e + 0.5 * unit, w)) / 2
    torch.testing.assert_close(model.w.grad, expected)
    adversary.close()
    torch.testing.assert_close(model.loss()[0].item(), 4.5)


# Each switch and each learner stand in a pair that is not slow.
FAST_PAIRS = {
    ("protonet", "word_dropout"), ("finetune", "fgm"), ("maml", "distill"),
}  # fmt: skip
PAIRS = [
    pytest.param(learner, options, id=f"{learner}-{switch}", marks=() if (learner, switch) in FAST_PAIRS else SLOW)
    for learner in ("protonet", "maml", "reptile", "finetune", "mann")
    for options in OPTIONS
    for switch in [options.get("adversarial", next(iter(options)))]
]


@pytest.mark.parametrize(("learner", "options"), PAIRS)
def test_every_switch_works_with_every_kind_of_learner(small_config, tmp_path, options, learner):
    small_config["learner"] = {"name": learner, "steps": 2, "lr": 1e-4, "training": options}
    small_config["budget"]["trials"] = 1
    small_config["evaluation"] = {"compare": False, "episodes": 4, "test_episodes": 4, "test_best": 1}
    run = search(small_config, tmp_path / "run", inline=True)
    assert run.best.status == "completed"


def test_switches_act_in_training_only_and_leave_no_trace(encoder, pool):
    task = episode(pool, SHAPE, 0, 0)
    options = TrainingOptions(word_dropout=0.5, adversarial="fgm")
    plain = encoder.eval().embed(pool, task.indices)
    with regularise(encoder, options):
        torch.testing.assert_close(encoder.embed(pool, task.indices), plain)
        assert not torch.allclose(encoder.train().embed(pool, task.indices), plain)
    torch.testing.assert_close(encoder.embed(pool, task.indices), plain)


def test_distillation_pulls_a_small_model_towards_its_teacher(small_config, tmp_path):
    """The distance of a one-layer sub-network's embeddings to the full model's shrinks more with it than without."""
    from nas_meta.config.components import make_evaluation
    from nas_meta.config.problem import load_problem
    from nas_meta.config.resolved import resolve
    from nas_meta.evaluation.trial import result_of

    small_config["space"] |= {"heads": [1.0], "ffn": [1.0]}
    distances = []
    for weight in (0.0, 5.0):
        small_config["learner"] = {"steps": 30, "lr": 1e-3, "training": {"distill": weight, "dropout": 0.0}}
        resolved = resolve(small_config)
        space, tasks, shape = load_problem(resolved)
        evaluation = make_evaluation(resolved, space, tasks, shape, 1)
        first = space.canonical({n: c.values[0] for n, c in space.table.items()} | {"layer1.keep": False})
        weights = result_of(evaluation.trial(first, 0, keep_above=0.0)).weights
        small = evaluation.restored(first, bytes(weights)).eval().cpu()
        pool, full = tasks["meta-validation"], Encoder(space.reference()).eval()
        everything = np.arange(len(pool.texts))
        with torch.no_grad():
            distances.append(teacher_distance(small.embed(pool, everything), full.embed(pool, everything)).item())
    assert distances[1] < 0.7 * distances[0]


def test_distillation_without_a_full_model_is_refused(small_config, tmp_path, monkeypatch):
    from search_spaces.pretrained.bert_subnet import BertSubnet

    monkeypatch.setattr(BertSubnet, "reference", lambda self: None)
    small_config["learner"]["training"] = {"distill": 1.0}
    with pytest.raises(NasMetaError, match="needs a full model to learn from"):
        search(small_config, tmp_path / "run", inline=True)


def test_adversarial_protonet_changes_what_is_learned(encoder, pool):
    def trained(**options):
        model = Encoder(type(encoder.model)(encoder.model.config)).double()
        model.load_state_dict(encoder.state_dict())
        learner = ProtoNet(ProtoNetOptions(steps=3, lr=1e-3, training=TrainingOptions(dropout=0.0, **options)))
        torch.manual_seed(0)
        list(learner.meta_train(model, pool, lambda i: episode(pool, SHAPE, 0, i)))
        return model.model.encoder.layer[0].output.dense.weight

    assert not torch.allclose(trained(), trained(adversarial="fgm", epsilon=1.0), atol=1e-5)
    assert MAML(MAMLOptions()).options.training.adversarial == "none"

"""One-shot strategies: gradients against closed forms, and architectures derived from a supernet."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.planted_optimum import Planted, evaluation_of
from nas_meta import Architecture, ChoiceInput, ChoiceLayer, ChoiceSupernet, SearchSpace
from nas_meta.core.objectives import Limit
from nas_meta.errors import ConfigError
from nas_meta.learners.protonet import ProtoNet
from nas_meta.space.architecture import Choice
from nas_meta.space.wrappers import LimitedSpace
from nas_meta.tasks.episodes import EpisodeShape, episode
from search_spaces.cell.cell_encoder import CellEncoder, CellEncoderOptions
from strategies.metanas.most_probable import most_probable
from strategies.one_shot.bilevel import EpisodeLoss, first_order, second_order, split_classes
from strategies.one_shot.nni_supermodules import GumbelSoftmax, differentiable, is_alpha, paths, proxyless
from strategies.one_shot.spos import crossover


class Scales(SearchSpace):
    """Multiplies by one of three numbers, then takes one of two states: small enough for sums by hand."""

    def choices(self):
        return {"scale": ["one", "two", "four"], "state": ["first", "second"]}

    def build(self, architecture):
        raise AssertionError("not built here")


class Scale(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(float(factor)))

    def forward(self, x):
        return self.factor * x


class Toy(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = ChoiceLayer("scale", {"one": Scale(1), "two": Scale(2), "four": Scale(4)})
        self.state = ChoiceInput("state", ("first", "second"))

    def forward(self, x):
        y = self.scale(x)
        return self.state([y, y * y])


def toy():
    return ChoiceSupernet(Toy(), Scales().build)


def quadratic(weights, alphas):
    """½(w - a)² of scalars, the DARTS paper's way to a closed form; the lower level."""
    return 0.5 * (weights["w"] - alphas["a"]) ** 2


def outer(weights, alphas):
    """aw - 2a + 1, the toy objective of DARTS, section 2 (with its own lower level w² - 2aw + a²)."""
    return alphas["a"] * weights["w"] - 2 * alphas["a"] + 1


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5])
def test_second_order_is_the_closed_form_of_a_quadratic(rate):
    """w' = w - ξ(w - a), L = aw' - 2a + 1: dL/da = w' - 2 + aξ. ξ = 0 is first order."""
    w, a = 3.0, 2.0
    at = [{name: torch.tensor(value, requires_grad=True)} for name, value in (("w", w), ("a", a))]
    gradient, loss = second_order(quadratic, outer, *at, rate)
    moved = w - rate * (w - a)
    assert gradient["a"].item() == pytest.approx(moved - 2 + a * rate)
    assert loss.item() == pytest.approx(a * moved - 2 * a + 1)
    if rate == 0:
        assert first_order(outer, *at)[0]["a"].item() == pytest.approx(gradient["a"].item())


def test_bilevel_descent_finds_the_optimum_that_first_order_misses():
    """DARTS, figure 2: L_val = aw - 2a + 1, L_train = w² - 2aw + a². At its minimum w = a: L_val is least at 1."""

    def lower(weights, alphas):
        return weights["w"] ** 2 - 2 * alphas["a"] * weights["w"] + alphas["a"] ** 2

    ends = {}
    for rate in (0.0, 0.5):
        w, a = torch.tensor(-2.0, requires_grad=True), torch.tensor(2.0, requires_grad=True)
        for _ in range(400):
            gradient, _ = second_order(lower, outer, {"w": w}, {"a": a}, rate)
            with torch.no_grad():
                a -= 0.05 * gradient["a"]
            slope = torch.autograd.grad(lower({"w": w}, {"a": a}), w)[0]
            with torch.no_grad():
                w -= 0.25 * slope
        ends[rate] = a.item()
    assert ends[0.5] == pytest.approx(1.0, abs=1e-2)
    assert ends[0.0] == pytest.approx(2.0, abs=1e-2)  # where the gradient w - 2 at fixed w is zero


def test_the_mixture_and_its_gradient_are_those_by_hand():
    """y = Σ p_i f_i x with p = softmax(α); out = q_1 y + q_2 y². ∂out/∂α_i = (q_1 + 2 q_2 y) x p_i (f_i - Σ p f)."""
    supernet = toy()
    modules = differentiable(supernet)
    alpha, beta = [0.1, -0.4, 0.7], [0.3, -0.2]
    with torch.no_grad():
        modules.alphas["scale"].copy_(torch.tensor(alpha))
        modules.alphas["state"].copy_(torch.tensor(beta))
    out = supernet(torch.tensor(1.5))
    out.backward()
    p, q = (np.exp(v) / np.exp(v).sum() for v in (np.array(alpha), np.array(beta)))
    factors = np.array([1.0, 2.0, 4.0])
    y = p @ factors * 1.5
    assert out.item() == pytest.approx(q[0] * y + q[1] * y**2, rel=1e-5)
    by_hand = (q[0] + 2 * q[1] * y) * 1.5 * p * (factors - p @ factors)
    np.testing.assert_allclose(modules.alphas["scale"].grad.numpy(), by_hand, rtol=1e-4)
    by_hand = q[0] * q[1] * (y - y**2) * np.array([1, -1])
    np.testing.assert_allclose(modules.alphas["state"].grad.numpy(), by_hand, rtol=1e-4)


def test_proxyless_gives_the_gates_gradient():
    """∂L/∂α_i = Σ_j ∂L/∂g_j p_j (δ_ij - p_i) with ∂L/∂g_j = (output of j) · ∂L/∂output (Cai et al. 2019, eq. 4)."""
    supernet = toy()
    modules = proxyless(supernet)
    with torch.no_grad():
        modules.alphas["scale"].copy_(torch.tensor([0.5, 0.0, -0.5]))
    drawn = {"scale": 2, "state": [1]}
    for module in modules.modules:
        module.resample(drawn)
    x = torch.tensor([1.5, -0.5])
    out = supernet(x)
    torch.testing.assert_close(out, (4 * x) ** 2)
    out.sum().backward()
    p = np.exp([0.5, 0.0, -0.5]) / np.exp([0.5, 0.0, -0.5]).sum()
    y = 4 * x.numpy()  # what the layer gave; d out / d y = 2 y
    gates = np.array([(f * x.numpy() * 2 * y).sum() for f in (1, 2, 4)])
    by_hand = p * (gates - p @ gates)
    np.testing.assert_allclose(modules.alphas["scale"].grad.numpy(), by_hand, rtol=1e-4)
    wiring = np.array([y.sum(), (y**2).sum()])
    q = modules.alphas["state"].detach().softmax(0).numpy()
    np.testing.assert_allclose(modules.alphas["state"].grad.numpy(), q * (wiring - q @ wiring), rtol=1e-4)


def test_hard_gumbel_samples_are_one_hot_with_the_frequencies_of_the_softmax():
    torch.manual_seed(0)
    softmax = GumbelSoftmax()
    softmax.hard = True
    logits = torch.tensor([1.0, 0.0, -1.0])
    samples = torch.stack([softmax(logits) for _ in range(4000)])
    assert torch.equal(samples.sort(1).values, torch.tensor([0.0, 0.0, 1.0]).expand(4000, 3))
    torch.testing.assert_close(samples.mean(0), logits.softmax(0), atol=0.03, rtol=0)


def test_a_path_is_the_selected_architecture():
    plain, mutated = toy(), toy()
    modules = paths(mutated)
    for scale, state in itertools.product(("one", "two", "four"), ("first", "second")):
        architecture = Architecture({"scale": scale, "state": state})
        plain.select(architecture)
        modules.follow(architecture)
        assert plain(torch.tensor(1.5)) == mutated(torch.tensor(1.5))


def cells(tiny_model, **options):
    small = {"layers": 2, "heads": [2], "kernels": [3], "gated": [1.0], "ffn": [1.0], **options}
    return CellEncoder(CellEncoderOptions(model=str(tiny_model), **small))


def test_second_order_through_a_supernet_is_the_change_of_the_loss_after_the_step(tiny_model):
    """Against central differences in α of L_upper(w - ξ∇L_lower(w, α), α), the step being taken for real."""
    planted = evaluation_of(Planted(), 0)
    pool, shape = planted.tasks["meta-train"], EpisodeShape(3, 1, 2)
    torch.manual_seed(0)
    supernet = cells(tiny_model).supernet()
    modules = differentiable(supernet)
    encoder = planted.encoder(supernet).double()
    for name, parameter in encoder.named_parameters():
        parameter.requires_grad_("operation" in name or is_alpha(name))
    pool = replace(pool, tokens=pool.tokens % encoder.model.model.config.vocab_size)
    loss = EpisodeLoss(ProtoNet(), encoder.eval(), is_alpha)
    lower, upper = (loss.of(pool, episode(pool, shape, seed, 0)) for seed in (1, 2))
    rate = 0.5
    gradient, value = second_order(lower, upper, loss.weights, loss.alphas, rate)

    def after_the_step():
        weights = loss.weights
        slopes = torch.autograd.grad(lower(weights, loss.alphas), list(weights.values()), allow_unused=True)
        moved = {n: w if g is None else w - rate * g for (n, w), g in zip(weights.items(), slopes, strict=True)}
        return upper(moved, loss.alphas).item()

    assert value.item() == pytest.approx(after_the_step())
    exact = False
    for name, alpha in loss.alphas.items():
        for i in range(2):
            around = []
            for shift in (1e-4, -2e-4):
                with torch.no_grad():
                    alpha[i] += shift
                around.append(after_the_step())
            with torch.no_grad():
                alpha[i] += 1e-4
            assert gradient[name][i].item() == pytest.approx((around[0] - around[1]) / 2e-4, rel=1e-3, abs=1e-8)
        first, _ = first_order(upper, loss.weights, loss.alphas)
        exact |= not torch.allclose(first[name], gradient[name], rtol=1e-3)
    assert exact, "the second-order term is nothing here: the test would not see it missing"
    assert set(modules.values) == {"layer0.op", "layer1.op", "layer1.input", "layer1.add"}


def test_weights_and_architecture_learn_on_disjoint_classes():
    pool = evaluation_of(Planted(), 0).tasks["meta-train"]
    lower, upper = split_classes(pool, 0.3, 5, seed=1)
    assert (len(lower.classes), len(upper.classes)) == (14, 6)
    assert not set(lower.classes) & set(upper.classes) and {*lower.classes, *upper.classes} == set(pool.classes)
    for part in (lower, upper):
        tasks = [episode(part, EpisodeShape(5, 1, 2), 0, n) for n in range(20)]
        assert {pool.classes[pool.labels[i]] for task in tasks for i in task.indices} <= set(part.classes)
    again, other = (split_classes(pool, 0.3, 5, seed=seed)[0].classes for seed in (1, 2))
    assert again == lower.classes != other
    with pytest.raises(ConfigError, match=r"held_out is 0.9, which leaves 2 of 20 meta-train classes .* and 18 for"):
        split_classes(pool, 0.9, 5, seed=1)


class Conditional(SearchSpace):
    def choices(self):
        return {"kind": ["a", "b"], "size": Choice([1, 2, 3], when={"kind": "a"}), "other": [0, 1]}

    def build(self, architecture):
        raise AssertionError("not built here")

    def problem(self, architecture):
        return "no" if architecture.values == {"kind": "b", "other": 1} else None


def test_derived_architectures_come_in_the_order_of_their_probability():
    space = Conditional()
    probabilities = {"kind": [0.6, 0.4], "size": [0.2, 0.5, 0.3], "other": [0.7, 0.3]}
    found = most_probable(space, probabilities, 100, 0)

    def share(architecture):
        places = {n: space.table[n].values.index(v) for n, v in architecture.values.items()}
        return math.prod(probabilities[n][i] / max(probabilities[n]) for n, i in places.items())

    rows = itertools.product(*(choice.values for choice in space.table.values()))
    every = {space.canonical(dict(zip(space.table, row, strict=True))) for row in rows}
    allowed = [a for a in every if space.problem(a) is None]
    assert len(found) == len(set(found)) == len(allowed) == 7
    assert [share(a) for a in found] == sorted(map(share, allowed), reverse=True)
    assert found[0].values == {"kind": "a", "size": 2, "other": 0}
    assert most_probable(space, probabilities, 2, 0) == found[:2]


def test_derived_architectures_keep_the_limits(tiny_model):
    """The most probable are too large: those that fit are proposed, the best of them first."""
    space = cells(tiny_model)
    space.prepare(None, 0)
    sure = {n: [0.96, *[0.04 / (len(c.values) - 1)] * (len(c.values) - 1)] for n, c in space.table.items()}
    free = most_probable(space, sure, 1, 0)[0]
    limit = space.counts(free, 8)["params"] - 1
    limited = LimitedSpace(space, [Limit("params", most=limit)], 8)
    found = most_probable(limited, sure, 5, 0)
    assert len(set(found)) == 5 and free not in found
    assert all(space.counts(a, 8)["params"] <= limit for a in found)


def test_children_have_their_parents_choices():
    space, rng = Conditional(), np.random.default_rng(0)
    one, other = Architecture({"kind": "a", "size": 3, "other": 1}), Architecture({"kind": "b", "other": 0})
    children = {crossover(space, one, other, rng) for _ in range(60)} - {None}
    assert children == {
        Architecture({"kind": "a", "size": 3, "other": 0}), Architecture({"kind": "a", "size": 3, "other": 1}),
        Architecture({"kind": "b", "other": 0}),
    }  # fmt: skip

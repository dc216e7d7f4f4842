"""The learners against closed forms, finite differences and cases by hand."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from installed import EMBEDDING_LEARNERS

from nas_meta.core import plugins
from nas_meta.learners.anil import ANIL
from nas_meta.learners.finetune import FineTune, FineTuneOptions
from nas_meta.learners.inner_loop.descent import InnerLoop, descend
from nas_meta.learners.maml import HEAD, MAML, MAMLOptions
from nas_meta.learners.mann import MANN, MANNOptions, accuracy_by_presentation, least_used
from nas_meta.learners.matching import FullContext, Matching, MatchingOptions, attention_log_probabilities
from nas_meta.learners.meta_sgd import MetaSGD, MetaSGDOptions
from nas_meta.learners.protonet import ProtoNet, ProtoNetOptions, cosine_logits, prototype_logits
from nas_meta.learners.prototype_maml import PrototypeMAML, PrototypeMAMLOptions
from nas_meta.learners.reptile import Reptile, ReptileOptions, SecondMoments
from nas_meta.learners.ridge import Ridge, ridge_weights
from nas_meta.learners.training.options import TrainingOptions
from nas_meta.models.encoder import Encoder
from nas_meta.tasks.episodes import EpisodeShape, episode
from nas_meta.tasks.sources.files import FileOptions, JSONLines
from nas_meta.tasks.tokenization import load_tasks, load_tokenizer

SHAPE = EpisodeShape(3, 2, 3)


@pytest.fixture(scope="module")
def tasks(tiny_model, labelled_texts):
    return load_tasks(JSONLines(FileOptions(path=labelled_texts)), load_tokenizer(str(tiny_model)), 16)


@pytest.fixture
def make(tiny_model):
    """An encoder with what a learner needs, in float64 and without dropout where ``exact``."""
    from transformers import AutoModel

    def build(learner, exact=True):
        torch.manual_seed(0)
        encoder = Encoder(AutoModel.from_pretrained(tiny_model))
        encoder.learned = learner.learned(encoder, SHAPE.ways)
        return encoder.double().eval() if exact else encoder

    return build


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_the_meta_gradient_of_a_quadratic_is_the_closed_form(steps, checkpointed):
    """L_s = ½(θ-a)ᵀA(θ-a): θ' = a + (I - αA)ᵏ(θ-a), so ∇_θ L_q(θ') = (I - αA)ᵏ B(θ'-b); FOMAML has B(θ'-b)."""
    rng = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=rng, dtype=torch.float64)  # noqa: E731
    half = draw(5, 5), draw(5, 5)
    hessian_s, hessian_q = (h @ h.T / 5 + torch.eye(5, dtype=torch.float64) for h in half)
    a, b, theta, rate = draw(5), draw(5), draw(5), 0.1
    for second_order in (True, False):
        start = theta.clone().requires_grad_()
        loss = lambda w: (w["x"] - a) @ hessian_s @ (w["x"] - a) / 2  # noqa: E731
        end = descend(loss, {"x": start}, ["x"], {"x": rate}, InnerLoop(steps, second_order, checkpointed))["x"]
        gradient = torch.autograd.grad((end - b) @ hessian_q @ (end - b) / 2, start)[0]
        shrink = torch.linalg.matrix_power(torch.eye(5, dtype=torch.float64) - rate * hessian_s, steps)
        expected_end = a + shrink @ (theta - a)
        expected = hessian_q @ (expected_end - b)
        torch.testing.assert_close(end, expected_end, atol=1e-12, rtol=0)
        torch.testing.assert_close(gradient, shrink @ expected if second_order else expected, atol=1e-10, rtol=0)


def meta_gradient(learner, encoder, pool, task):
    named = {n: p for n, p in encoder.named_parameters() if p.requires_grad}
    gradients = torch.autograd.grad(learner.meta_loss(encoder, pool, task), list(named.values()), allow_unused=True)
    return {n: g for n, g in zip(named, gradients, strict=True) if g is not None}


@pytest.mark.parametrize(
    "learner",
    [
        MAML(MAMLOptions(inner_steps=2)),
        ANIL(),
        MetaSGD(),
        PrototypeMAML(PrototypeMAMLOptions(inner_steps=2)),
        Ridge(),
        Matching(),
        Matching(MatchingOptions(full_context=True, context_steps=2)),
        ProtoNet(),
        ProtoNet(ProtoNetOptions(distance="cosine")),
    ],
    ids=lambda learner: f"{type(learner).__name__}",
)
def test_the_meta_gradient_on_a_transformer_agrees_with_finite_differences(learner, make, tasks):
    encoder, pool = make(learner), tasks["meta-train"]
    task = episode(pool, SHAPE, 0, 0)
    gradient = meta_gradient(learner, encoder, pool, task)
    assert any(name.startswith("model.encoder.layer.0") for name in gradient)
    named = dict(encoder.named_parameters())
    rng = torch.Generator().manual_seed(1)
    # The token tables do not move within the inner loop, but the outer derivative has to know that.
    direction = {n: torch.randn(g.shape, generator=rng, dtype=torch.float64) for n, g in gradient.items()}
    expected = sum((gradient[n] * direction[n]).sum().item() for n in gradient)
    losses, size = [], 1e-5
    for sign in (1, -1):
        with torch.no_grad():
            for name, d in direction.items():
                named[name] += sign * size * d
        losses.append(learner.meta_loss(encoder, pool, task).item())
        with torch.no_grad():
            for name, d in direction.items():
                named[name] -= sign * size * d
    assert (losses[0] - losses[1]) / (2 * size) == pytest.approx(expected, rel=2e-4)


def test_fomaml_is_the_query_gradient_where_the_inner_loop_ends(make, tasks):
    """Gradient descent by hand on a copy, then the plain gradient of the query loss there."""
    learner = MAML(MAMLOptions(inner_steps=3, inner_lr=0.1, head_lr=None, first_order=True))
    encoder, pool = make(learner), tasks["meta-train"]
    task = episode(pool, SHAPE, 0, 0)
    got = meta_gradient(learner, encoder, pool, task)
    copied = copy.deepcopy(encoder)
    moving = [p for n, p in copied.named_parameters() if n in set(learner.adapted(copied)) | set(HEAD)]

    def loss(indices, labels):
        z = 10**0.5 * F.normalize(copied.embed(pool, indices), dim=-1)
        return F.cross_entropy(copied.learned["head"](z), torch.from_numpy(labels))

    for _ in range(3):
        gradients = torch.autograd.grad(loss(task.support.ravel(), task.support_labels), moving, allow_unused=True)
        with torch.no_grad():
            for parameter, gradient in zip(moving, gradients, strict=True):
                parameter -= 0.1 * (gradient if gradient is not None else 0)
    names = {id(p): n for n, p in copied.named_parameters()}
    plain = torch.autograd.grad(loss(task.query.ravel(), task.labels), moving, allow_unused=True)
    for parameter, gradient in zip(moving, plain, strict=True):
        if gradient is not None:
            torch.testing.assert_close(got[names[id(parameter)]], gradient, atol=1e-10, rtol=1e-8)
    second = meta_gradient(MAML(MAMLOptions(inner_steps=3, inner_lr=0.1, head_lr=None)), encoder, pool, task)
    weight = "model.encoder.layer.0.attention.self.query.weight"
    assert (second[weight] - got[weight]).norm() > 1e-3 * got[weight].norm()


def test_anil_adapts_the_head_and_nothing_else(make, tasks):
    learner = ANIL()
    encoder, pool = make(learner), tasks["meta-validation"]
    task = episode(pool, SHAPE, 0, 0)
    with torch.no_grad():
        z = 10**0.5 * F.normalize(encoder.embed(pool, task.indices), dim=-1)
    head = copy.deepcopy(encoder.learned["head"])
    optimizer = torch.optim.SGD(head.parameters(), lr=learner.options.head_lr)
    for _ in range(learner.options.inner_steps):
        optimizer.zero_grad()
        F.cross_entropy(head(z[:6]), torch.from_numpy(task.support_labels)).backward()
        optimizer.step()
    torch.testing.assert_close(learner.classify(encoder, pool, task), head(z[6:]).detach())


def test_meta_sgd_with_equal_rates_is_maml_and_its_rates_learn(make, tasks):
    options = {"inner_steps": 2, "inner_lr": 0.1, "head_lr": None}
    sgd, maml = MetaSGD(MetaSGDOptions(**options)), MAML(MAMLOptions(**options))
    encoder, pool = make(sgd), tasks["meta-train"]
    task = episode(pool, SHAPE, 0, 0)
    torch.testing.assert_close(sgd.classify(encoder, pool, task), maml.classify(encoder, pool, task))
    before = {n: p.clone() for n, p in encoder.learned["rates"].named_parameters()}
    sgd = MetaSGD(MetaSGDOptions(**options, steps=2))
    list(sgd.meta_train(encoder, pool, lambda i: episode(pool, SHAPE, 0, i)))
    moved = [n for n, p in encoder.learned["rates"].named_parameters() if not torch.equal(p, before[n])]
    assert len(moved) > len(before) / 2


def test_prototype_maml_starts_as_a_prototypical_network(make, tasks):
    learner = PrototypeMAML(PrototypeMAMLOptions(inner_lr=1e-12))
    encoder, pool = make(learner), tasks["meta-validation"]
    task = episode(pool, SHAPE, 0, 0)
    with torch.no_grad():
        z = 10**0.5 * F.normalize(encoder.embed(pool, task.indices), dim=-1)
    expected = prototype_logits(z[:6].view(3, 2, -1), z[6:]) + z[6:].square().sum(1, keepdim=True)
    torch.testing.assert_close(learner.classify(encoder, pool, task), expected, atol=1e-6, rtol=1e-6)


def test_woodbury_gives_the_ridge_solution():
    z, y = torch.randn(6, 20, dtype=torch.float64), torch.eye(3, dtype=torch.float64).repeat_interleave(2, 0)
    direct = torch.linalg.solve(z.T @ z + 0.7 * torch.eye(20, dtype=torch.float64), z.T @ y)
    torch.testing.assert_close(ridge_weights(z, y, 0.7), direct, atol=1e-12, rtol=1e-10)


def test_matching_equals_numbers_by_hand():
    support = torch.tensor([[[2.0, 0.0]], [[0.0, 3.0]]])
    query = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    p = math.e / (math.e + 1)
    expected = torch.tensor([[p, 1 - p], [0.5, 0.5]])
    torch.testing.assert_close(attention_log_probabilities(support, query, 1.0).exp(), expected)
    # Two shots of one class count twice.
    support = torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [0.0, 1.0]]])
    torch.testing.assert_close(attention_log_probabilities(support, query, 1.0).exp(), expected)


def test_full_context_sees_the_whole_support_set():
    torch.manual_seed(0)
    context = FullContext(4, 3)
    z, query = torch.randn(3, 4), torch.randn(2, 4)
    changed = torch.cat([z[:2], z[2:] + 1])
    assert not torch.allclose(context.support(z)[0], context.support(changed)[0])
    assert not torch.allclose(context.query(query, z), context.query(query, changed))
    for parameter in context.parameters():
        torch.nn.init.zeros_(parameter)
    # With every weight zero the gates are one half of nothing: what is left is the embedding itself.
    torch.testing.assert_close(context.support(z), z)
    torch.testing.assert_close(context.query(query, z), query)


def test_cosine_logits_equal_numbers_by_hand():
    support = torch.tensor([[[3.0, 0.0], [1.0, 0.0]], [[0.0, 2.0], [0.0, 2.0]]])
    query = torch.tensor([[1.0, 1.0], [0.0, 5.0]])
    expected = torch.tensor([[0.5**0.5, 0.5**0.5], [0.0, 1.0]])
    torch.testing.assert_close(cosine_logits(support, query, 1.0), expected)


def test_reptile_moves_towards_where_adam_ends(make, tasks):
    """One task, one step from fresh moments: v̂ = g², so Adam moves by α·sign(g), and φ by ε of that."""
    options = ReptileOptions(
        steps=1, inner_steps=1, meta_batch=1, inner_batch=100, outer_lr=0.5, lr=1e-3, learned_lr=1e-2,
        training=TrainingOptions(weight_decay=0, clip=1e9),
    )  # fmt: skip
    learner = Reptile(options)
    encoder, pool = make(learner), tasks["meta-train"]
    for module in encoder.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for layer in encoder.model.encoder.layer:
        layer.attention.self.config.attention_probs_dropout_prob = 0.0
    before = {n: p.detach().clone() for n, p in encoder.named_parameters()}
    task = episode(pool, SHAPE, 0, 0)
    gradient = meta_gradient(learner, encoder, pool, task)
    list(learner.meta_train(encoder, pool, lambda i: task))
    after = dict(encoder.named_parameters())
    for name, rate in (("model.encoder.layer.1.output.dense.weight", 1e-3), ("learned.head.weight", 1e-2)):
        g = gradient[name]
        expected = before[name] - 0.5 * rate * g / (g.abs() + 1e-8)
        torch.testing.assert_close(after[name].detach(), expected, atol=1e-6, rtol=0)
    table = "model.embeddings.word_embeddings.weight"
    assert torch.equal(after[table], before[table])


def test_second_moments_equal_torchs_adam_with_beta1_zero():
    torch.manual_seed(0)
    ours = [torch.nn.Parameter(torch.randn(4, 3, dtype=torch.float64))]
    theirs = [torch.nn.Parameter(ours[0].detach().clone())]
    adam = torch.optim.Adam(theirs, lr=0.1, betas=(0.0, 0.9))
    moments = SecondMoments([ours[0].shape]).double()
    for _ in range(5):
        gradient = torch.randn(4, 3, dtype=torch.float64)
        ours[0].grad, theirs[0].grad = gradient.clone(), gradient.clone()
        moments.step(ours, [0.1], 0.9, 0.0)
        adam.step()
    torch.testing.assert_close(ours[0], theirs[0], atol=1e-7, rtol=1e-7)


def test_the_least_used_slots_by_hand():
    usage = torch.tensor([[0.5, 0.1, 0.3, 0.2]])
    expected = torch.tensor([[[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]])
    torch.testing.assert_close(least_used(usage, 2), expected)


def test_one_step_of_the_memory_by_hand():
    """With α = 0 half of the write goes to the least used slot, which is wiped, half to what was read last."""
    network = MANN(MANNOptions(slots=3, memory_width=2, hidden=4, reads=1)).learned(
        type("E", (), {"width": 2})(), ways=2
    )
    state = network.start(torch.zeros(1, 2))
    state = type(state)(
        memory=torch.tensor([[[1.0, 1.0], [2.0, 0.0], [0.0, 3.0]]]),
        read=torch.tensor([[[0.0, 0.25, 0.75]]]), least=torch.tensor([[[1.0, 0.0, 0.0]]]),
        usage=torch.tensor([[0.1, 1.0, 2.0]]), hidden=torch.zeros(1, 4), cell=torch.zeros(1, 4),
    )  # fmt: skip
    torch.nn.init.zeros_(network.keys.weight)
    network.keys.bias.data = torch.tensor([0.5, 0.0])
    _, after = network(torch.zeros(1, 2), torch.zeros(1, 2), state)
    key = math.tanh(0.5)
    write = torch.tensor([0.5, 0.125, 0.375])
    expected = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 3.0]]) + write[:, None] * torch.tensor([key, 0.0])
    torch.testing.assert_close(after.memory[0], expected)
    cosine = torch.tensor([0.5**0.5, 1.0, 0.0])
    torch.testing.assert_close(after.read[0, 0], torch.softmax(cosine, 0))
    torch.testing.assert_close(after.usage[0], 0.95 * torch.tensor([0.1, 1.0, 2.0]) + torch.softmax(cosine, 0) + write)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_memory_network_learns_to_remember():
    """Three new classes in every sequence: chance is 1/3, and only memory tells the second example of a class."""
    torch.manual_seed(0)
    options = MANNOptions(slots=16, memory_width=16, hidden=64, reads=1)
    network = MANN(options).learned(type("E", (), {"width": 8})(), ways=3)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for _ in range(4000):
        labels = torch.stack([torch.arange(3).repeat(6)[torch.randperm(18)] for _ in range(32)])
        classes = F.normalize(torch.randn(32, 3, 8), dim=-1)
        z = classes.gather(1, labels[..., None].expand(-1, -1, 8)) + 0.1 * torch.randn(32, 18, 8)
        logits, _, _ = network.run(F.normalize(z, dim=-1), labels)
        optimizer.zero_grad()
        F.cross_entropy(logits.flatten(0, 1), labels.flatten()).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
    rows = [accuracy_by_presentation(t, s) for t, s in zip(labels.numpy(), logits.argmax(2).numpy(), strict=True)]
    second, fifth = (np.mean([row[f"accuracy_at_{k}"] for row in rows]) for k in (2, 5))
    assert second > 0.7 and fifth > 0.8


def test_accuracy_by_presentation_by_hand():
    labels = np.array([0, 1, 0, 1, 0])
    predicted = np.array([1, 1, 0, 1, 1])
    assert accuracy_by_presentation(labels, predicted) == {"accuracy_at_1": 0.5, "accuracy_at_2": 1.0}


@pytest.mark.parametrize("adapt", ["all", "head", "bitfit"])
def test_scoring_in_the_middle_of_meta_training_does_not_stop_it(adapt, make, tasks):
    """The trajectory with validation between the steps is the one without."""
    learner = FineTune(FineTuneOptions(steps=3, adapt=adapt, adapt_steps=2))
    pool, task = tasks["meta-train"], episode(tasks["meta-validation"], SHAPE, 0, 0)
    ends = []
    for look in (False, True):
        encoder = make(learner, exact=False)
        torch.manual_seed(0)
        for _ in learner.meta_train(encoder, pool, lambda i: episode(pool, SHAPE, 0, i)):
            if look:
                learner.classify(encoder, tasks["meta-validation"], task)
        ends.append(encoder.model.encoder.layer[0].output.dense.weight.detach())
    torch.testing.assert_close(ends[0], ends[1])


@pytest.mark.parametrize("name", EMBEDDING_LEARNERS)
def test_every_learner_learns_and_leaves_the_encoder_alone_when_scoring(name, make, tasks):
    plugin = plugins.load("learners", name)
    learner = plugin(plugin.Options(steps=3))
    encoder, pool = make(learner, exact=False), tasks["meta-train"]
    steps = list(learner.meta_train(encoder, pool, lambda i: episode(pool, SHAPE, 0, i)))
    assert [s.number for s in steps] == [1, 2, 3] and all(math.isfinite(s.loss) for s in steps)
    encoder.eval()
    before = {n: t.clone() for n, t in encoder.state_dict().items()}
    other = tasks["meta-validation"]
    drawn = [episode(other, SHAPE, 0, i) for i in range(3)]
    scores = learner.accuracies(encoder, other, drawn)
    singly = [(learner.classify(encoder, other, t).argmax(1).numpy() == t.labels).mean() for t in drawn]
    np.testing.assert_allclose(scores, singly)
    assert all(torch.equal(before[n], t) for n, t in encoder.state_dict().items())
    again = make(learner, exact=False)
    again.load_state_dict(encoder.state_dict())
    again.eval()
    np.testing.assert_allclose(learner.accuracies(again, other, drawn), scores)


def test_functional_weights_give_what_the_parameters_give(make, tasks):
    encoder, pool = make(ProtoNet()), tasks["meta-train"]
    weights = {n: p + 0.01 for n, p in encoder.named_parameters() if "layer" in n}
    indices = np.arange(7)
    with torch.no_grad():
        got = encoder.embed(pool, indices, weights=weights)
        for name, p in encoder.named_parameters():
            if name in weights:
                p.copy_(weights[name])
        torch.testing.assert_close(got, encoder.embed(pool, indices))


@pytest.mark.parametrize(
    ("adapt", "parts"),
    [
        ("all", {"model.encoder.layer.0", "model.encoder.layer.1", "model.embeddings.LayerNorm", "model.pooler"}),
        ("head", set()),
        ("last-n", {"model.encoder.layer.1"}),
    ],
)
def test_only_what_is_adapted_moves_on_a_support_set(adapt, parts, make, tasks):
    learner = MAML(MAMLOptions(adapt=adapt))
    names = set(learner.adapted(make(learner)))
    assert {next((p for p in parts if n.startswith(p)), n) for n in names} == parts
    bias = set(MAML(MAMLOptions(adapt="bitfit")).adapted(make(learner)))
    assert bias and all(n.endswith("bias") for n in bias)


def test_early_stopping_takes_the_steps_that_serve_a_held_out_shot_best(make, tasks):
    """With a head that overshoots, the loss on the held-out shot turns; the steps taken are those to its minimum."""
    pool = tasks["meta-validation"]
    task = episode(pool, EpisodeShape(3, 3, 3), 0, 4)
    options = {"body_lr": 0, "head_lr": 5.0, "adapt_steps": 30}
    stopping = FineTune(FineTuneOptions(**options, early_stopping=True))
    encoder = make(stopping)
    held = episode(pool, EpisodeShape(3, 3, 3), 0, 4)
    losses = []
    for steps in range(1, 31):
        plain = FineTune(FineTuneOptions(**options | {"adapt_steps": steps}))
        logits = plain.classify(encoder, pool, type(held)(held.support[:, :2], held.support[:, 2:]))
        losses.append(F.cross_entropy(logits, torch.arange(3)).item())
    best = int(np.argmin(losses)) + 1
    assert best < 30
    expected = FineTune(FineTuneOptions(**options | {"adapt_steps": best})).classify(encoder, pool, task)
    torch.testing.assert_close(stopping.classify(encoder, pool, task), expected)

"""Inner loops at once or one by one, kept or computed again: the same result, and never more memory than there is."""

import pytest
import torch

from nas_meta.errors import TrialError
from nas_meta.learners.inner_loop import planning
from nas_meta.learners.inner_loop.planning import Plan, plan, second_order_bytes, works_under_vmap
from nas_meta.learners.maml import MAML, MAMLOptions
from nas_meta.learners.meta_sgd import MetaSGD, MetaSGDOptions
from nas_meta.learners.prototype_maml import PrototypeMAML, PrototypeMAMLOptions
from nas_meta.models.encoder import Encoder
from nas_meta.tasks.episodes import EpisodeShape, episode

SHAPE = EpisodeShape(3, 2, 3)


@pytest.fixture
def make(encoder_for):
    return lambda learner: encoder_for(learner, SHAPE.ways).double().eval()


def gradients(encoder, loss):
    encoder.zero_grad(set_to_none=True)
    loss.backward()
    return {name: p.grad.clone() for name, p in encoder.named_parameters() if p.grad is not None}


LEARNERS = [
    MAML(MAMLOptions(inner_steps=3)),
    MAML(MAMLOptions(inner_steps=2, first_order=True)),
    MAML(MAMLOptions(inner_steps=2, adapt="bitfit")),
    MetaSGD(MetaSGDOptions(inner_steps=2)),
    PrototypeMAML(PrototypeMAMLOptions(inner_steps=2)),
]
NAMES = ["maml", "fomaml", "maml-bitfit", "meta-sgd", "prototype-maml"]
CASES = [
    pytest.param(learner, id=name, marks=() if name in ("maml", "prototype-maml") else pytest.mark.slow)
    for learner, name in zip(LEARNERS, NAMES, strict=True)
]


@pytest.mark.parametrize("learner", CASES)
def test_tasks_at_once_give_the_gradient_of_tasks_one_by_one(learner, make, pool):
    encoder = make(learner)
    tasks = [episode(pool, SHAPE, 0, i) for i in range(4)]
    at_once = learner.meta_losses(encoder, pool, tasks)
    one_by_one = torch.stack([learner.meta_loss(encoder, pool, task) for task in tasks])
    torch.testing.assert_close(at_once, one_by_one, atol=1e-10, rtol=1e-8)
    together, singly = (gradients(encoder, losses.mean()) for losses in (at_once, one_by_one))
    assert {n for n, g in together.items() if g.any()} == {n for n, g in singly.items() if g.any()}
    for name, gradient in singly.items():
        torch.testing.assert_close(together[name], gradient, atol=1e-8, rtol=1e-5)


@pytest.mark.parametrize("learner", CASES)
def test_a_checkpointed_inner_loop_gives_the_same_gradient(learner, make, pool):
    encoder = make(learner)
    task = episode(pool, SHAPE, 0, 0)
    kept, recomputed = (gradients(encoder, learner.meta_loss(encoder, pool, task, c)) for c in (False, True))
    assert {n for n, g in kept.items() if g.any()} == {n for n, g in recomputed.items() if g.any()}
    for name, gradient in kept.items():
        if gradient.any():
            torch.testing.assert_close(recomputed[name], gradient, atol=1e-12, rtol=1e-9)


def test_a_checkpointed_step_draws_the_same_dropout_again(make, pool):
    """The recomputed graph is that of the forward pass: finite differences with fixed random numbers agree."""
    learner = MAML(MAMLOptions(inner_steps=2))
    encoder = make(learner).train()
    task = episode(pool, SHAPE, 0, 0)
    weight = encoder.model.encoder.layer[0].output.dense.weight

    def loss():
        torch.manual_seed(7)
        return learner.meta_loss(encoder, pool, task, checkpointed=True)

    slope = gradients(encoder, loss())["model.encoder.layer.0.output.dense.weight"]
    direction = slope / slope.norm()
    ends = []
    for sign in (1, -1):
        with torch.no_grad():
            weight += sign * 1e-5 * direction
        ends.append(loss().item())
        with torch.no_grad():
            weight -= sign * 1e-5 * direction
    assert (ends[0] - ends[1]) / 2e-5 == pytest.approx(slope.norm().item(), rel=1e-3)


def test_the_plan_follows_from_what_fits(make, pool):
    tasks = [episode(pool, SHAPE, 0, i) for i in range(2)]
    learner = MAML(MAMLOptions(inner_steps=5))
    encoder = make(learner)
    kept, recomputed = second_order_bytes(learner, encoder, pool, tasks[0])
    assert recomputed < kept

    def planned(gib):
        return plan(MAML(MAMLOptions(inner_steps=5, memory_limit=gib / planning.GIB)), encoder, pool, tasks)

    assert planned(3 * kept) == Plan(batched=True)
    assert planned(1.5 * kept) == Plan()
    assert planned((kept + recomputed) / 2) == Plan(checkpointed=True)
    with pytest.raises(TrialError, match=r"needs about .* GiB per task even with checkpointing, but .* are available"):
        planned(recomputed / 2)
    first = MAML(MAMLOptions(inner_steps=5, memory_limit=recomputed / 2 / planning.GIB, first_order=True))
    assert plan(first, encoder, pool, tasks) == Plan(batched=True)


def test_more_steps_and_more_texts_take_more_memory_but_not_when_recomputed(make, pool):
    few, many = (MAML(MAMLOptions(inner_steps=steps)) for steps in (1, 9))
    encoder, task = make(few), episode(pool, SHAPE, 0, 0)
    (kept_few, again_few), (kept_many, again_many) = (second_order_bytes(m, encoder, pool, task) for m in (few, many))
    assert kept_many > 3 * kept_few and again_many < 2.5 * again_few
    bigger = episode(pool, EpisodeShape(3, 4, 3), 0, 0)
    assert second_order_bytes(few, encoder, pool, bigger)[0] > 1.2 * kept_few


def test_what_is_counted_is_what_autograd_saves():
    """x ↦ Σ x²·w saves x twice over (pow and the product with w), each storage once."""
    x, w = torch.ones(1000, requires_grad=True), torch.ones(1000, requires_grad=True)
    squared = 4000
    assert planning.saved_bytes(lambda: (x * x * w).sum()) == 4000 + squared + 4000


def test_a_model_that_does_not_bear_vmap_is_run_one_by_one(pool):
    class Looks(torch.nn.Module):
        """Looks at values, as transformers does at masks."""

        def __init__(self):
            super().__init__()
            self.table, self.dense = torch.nn.Embedding(100, 8), torch.nn.Linear(8, 8)

        def forward(self, input_ids, attention_mask):
            if attention_mask.sum().item() < 0:
                return self.table(input_ids)
            return self.dense(self.table(input_ids))

    learner = MAML(MAMLOptions(inner_steps=1))
    encoder = Encoder(Looks())
    encoder.learned = learner.learned(encoder, SHAPE.ways)
    tasks = [episode(pool, SHAPE, 0, i) for i in range(2)]
    assert not works_under_vmap(encoder, pool, tasks)
    assert plan(learner, encoder, pool, tasks) == Plan()


def test_a_trial_that_would_not_fit_fails_in_words_and_the_search_goes_on(small_config, tmp_path):
    from nas_meta import search
    from nas_meta.errors import NasMetaError

    small_config["learner"] = {"name": "maml", "steps": 2, "memory_limit": 1e-6}
    small_config["budget"]["trials"] = 2
    with pytest.raises(NasMetaError, match="second-order inner loop of 3 steps needs about"):
        search(small_config, tmp_path / "run", inline=True)


@pytest.mark.slow
def test_maml_needs_no_text_and_no_classes():
    """A few hundred steps on sinusoids: ten points and ten gradient steps make a new one a quarter better known."""
    from benchmarks.sinusoid import Sinusoids, errors, meta_trained, np

    pool = Sinusoids(np.linspace(-5, 5, 1001, dtype=np.float32)[:, None])
    network, _ = meta_trained(pool, 1, seed=0, steps=800)
    before, after = (errors(network, pool, steps, tasks=40).mean() for steps in (0, 10))
    assert after < 0.75 * before

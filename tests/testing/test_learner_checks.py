"""The checks of learners: every learner that ships passes them, and each finds the fault that it is for."""

import random
import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from installed import shipped
from torch import nn

from nas_meta import Learner
from nas_meta.errors import TrialError
from nas_meta.learners.metric import MetricLearner
from nas_meta.learners.protonet import ProtoNet
from nas_meta.testing import CheckError, LearnerTests, check_learner
from nas_meta.testing import learner_checks as checks
from nas_meta.testing.device_rule import DeviceRule
from nas_meta.testing.episodes import encoder_for

FAST = ["protonet", "matching", "ridge"]  # prompts and inner loops take 5 to 10 seconds


@pytest.mark.parametrize("name", shipped("learners", fast=FAST))
def test_the_learners_that_ship_pass(name):
    assert [result for result in check_learner(name) if result.problem] == []


class Sound(Learner):
    """Class means and dot products; the faulty learners below derive from it."""

    def learned(self, encoder, ways):
        module = nn.Module()
        module.scale = nn.Parameter(torch.tensor(1.0))
        return module

    def logits(self, encoder, pool, episode):
        ways, shots = episode.support.shape
        z = F.normalize(encoder.embed(pool, episode.indices), dim=-1)
        return 10 * encoder.learned.scale * z[ways * shots :] @ z[: ways * shots].view(ways, shots, -1).mean(1).T

    def meta_loss(self, encoder, pool, episode):
        logits = self.logits(encoder, pool, episode)
        return F.cross_entropy(logits, torch.from_numpy(episode.labels).to(logits.device))

    def classify(self, encoder, pool, episode):
        with torch.no_grad():
            return self.logits(encoder, pool, episode)


class TestSound(LearnerTests):
    def make_learner(self):
        return Sound()


class TransposedLogits(Sound):
    def classify(self, encoder, pool, episode):
        return super().classify(encoder, pool, episode).T


class NoTensor(Sound):
    def classify(self, encoder, pool, episode):
        return super().classify(encoder, pool, episode).tolist()


class InfiniteLogits(Sound):
    def classify(self, encoder, pool, episode):
        return super().classify(encoder, pool, episode) / 0


class VectorLoss(Sound):
    def meta_loss(self, encoder, pool, episode):
        return self.logits(encoder, pool, episode).sum(1)


class Stands(Sound):
    def meta_loss(self, encoder, pool, episode):
        return 1 + 0 * super().meta_loss(encoder, pool, episode)


class Reversed(Sound):
    """Columns of the logits belong to other classes in evaluation than in training."""

    def classify(self, encoder, pool, episode):
        return super().classify(encoder, pool, episode).flip(1)


class Detached(Sound):
    def logits(self, encoder, pool, episode):
        with torch.no_grad():
            z = super().logits(encoder, pool, episode) / encoder.learned.scale
        return encoder.learned.scale * z


class Unused(Sound):
    def learned(self, encoder, ways):
        module = super().learned(encoder, ways)
        module.bias = nn.Parameter(torch.zeros(1))
        return module


class TrainsEmbeddings(Sound):
    def meta_loss(self, encoder, pool, episode):
        with torch.no_grad():
            encoder.model.embeddings.word_embeddings.weight.mul_(0.99)
        return super().meta_loss(encoder, pool, episode)


class AdaptsCopies(Sound):
    def adapted(self, encoder):
        return {name: p.detach().clone() for name, p in encoder.named_parameters()}


class LeavesWeights(Sound):
    """Adapts on the support set and does not restore the weights."""

    def classify(self, encoder, pool, episode):
        with torch.no_grad():
            encoder.learned.scale.mul_(1.1)
        return super().classify(encoder, pool, episode)


class Remembers(Sound):
    calls = 0

    def classify(self, encoder, pool, episode):
        self.calls += 1
        return super().classify(encoder, pool, episode) + self.calls


class NumpyNoise(Sound):
    def meta_loss(self, encoder, pool, episode):
        return super().meta_loss(encoder, pool, episode) * float(np.random.rand())


class PythonNoise(Sound):
    def classify(self, encoder, pool, episode):
        return super().classify(encoder, pool, episode) * random.random()


class Counts(Sound):
    """Keeps state of the training on the learner, where a checkpoint does not have it."""

    done = 0

    def meta_loss(self, encoder, pool, episode):
        self.done += 1
        return super().meta_loss(encoder, pool, episode) * (1 + 0.1 * self.done)


class Favours(MetricLearner):
    """The first class gets higher logits."""

    def logits(self, encoder, support, query):
        logits = query @ support.mean(1).T
        return logits + torch.arange(len(support), 0, -1, device=logits.device)


class NeedsLabels(Sound):
    def classify(self, encoder, pool, episode):
        logits = super().classify(encoder, pool, episode)
        return logits.new_tensor(np.eye(len(episode.support))[episode.labels]) + logits


class NeedsEqualClasses(ProtoNet):
    def task_logits(self, encoder, support, labels, ways, query):
        return self.logits(encoder, support.view(ways, -1, support.shape[-1]), query)[:-1]


class FixedHead(Sound):
    def learned(self, encoder, ways):
        module = super().learned(encoder, ways)
        module.head = nn.Linear(ways, ways)
        return module

    def logits(self, encoder, pool, episode):
        logits = super().logits(encoder, pool, episode)
        return logits if len(episode.support) <= 1 else encoder.learned.head(logits)


class Spread(Sound):
    """The spread of the logits of one class is zero."""

    def classify(self, encoder, pool, episode):
        logits = super().classify(encoder, pool, episode)
        return logits / (logits - logits.mean(1, keepdim=True)).abs().sum(1, keepdim=True)


class CpuLabels(Sound):
    def meta_loss(self, encoder, pool, episode):
        return F.cross_entropy(self.logits(encoder, pool, episode), torch.from_numpy(episode.labels))


class Unpicklable(Sound):
    def __init__(self, options=None):
        super().__init__(options)
        self.lock = threading.Lock()


FAULTS = [
    (TransposedLogits, checks.check_outputs, r"a tensor of torch.float32 and shape \[3, 9\]; return floating-point"),
    (NoTensor, checks.check_outputs, r"classify\(\) returned a list; return a tensor of logits"),
    (InfiniteLogits, checks.check_outputs, r"classify\(\) returned logits that are not finite"),
    (VectorLoss, checks.check_outputs, r"VectorLoss.meta_loss\(\) returned torch.float32 \[9\]"),
    (Stands, checks.check_learning, r"the loss is 1.000 in the first ten of 200 training steps and 1.000 in the last"),
    (Reversed, checks.check_learning, r"after 200 training steps, \d+ % of the query examples"),
    (Detached, checks.check_gradients, r"training does not change model.* and \d+ more; compute the loss"),
    (Unused, checks.check_gradients, "training does not change learned.bias"),
    (TrainsEmbeddings, checks.check_gradients, "changes model.embeddings.word_embeddings.weight, which should be"),
    (AdaptsCopies, checks.check_gradients, r"adapted\(\) returned .*, which the encoder does not have"),
    (LeavesWeights, checks.check_restoring, "classifying an episode changes learned.scale; train a copy"),
    (Remembers, checks.check_restoring, "the same episode gets other logits after another episode"),
    (NumpyNoise, checks.check_seeds, "two trainings with the same seed have different training losses"),
    (PythonNoise, checks.check_seeds, "two trainings with the same seed have different logits"),
    (Counts, checks.check_resuming, "the losses of steps 3 and 4 are .* when training resumes at step 2"),
    (Favours, checks.check_class_order, "the logits of a class depend on its place among the classes"),
    (NeedsLabels, checks.check_unequal_shots, "the logits of the same queries change with their labels; use"),
    (NeedsEqualClasses, checks.check_unequal_shots, r"task_logits\(\) returned logits of shape \[5, 3\]"),
    (FixedHead, checks.check_numbers_of_classes, "mat1 and mat2 shapes cannot be multiplied"),
    (Spread, checks.check_numbers_of_classes, r"for 1 class .* logits of shape \[2, 1\] that are not finite"),
    (CpuLabels, checks.check_devices, r"(?i)tensors of the CPU would meet tensors of a GPU in line \d+ of test_learner_"
     r"checks.py \(nn.functional.cross_entropy\); create tensors|on a GPU it fails"),
    (Unpicklable, checks.check_pickling, "cannot pickle"),
]  # fmt: skip


@pytest.mark.parametrize(("plugin", "check", "problem"), FAULTS, ids=[f"{p.__name__}" for p, _, _ in FAULTS])
def test_a_fault_is_found(plugin, check, problem):
    with pytest.raises(Exception, match=problem):
        check(checks.Subject(plugin))


def test_every_check_has_a_fault_that_it_finds_and_a_pytest_method():
    assert {check for _, check, _ in FAULTS} == set(checks.CHECKS.values())
    assert len([name for name in vars(LearnerTests) if name.startswith("test_")]) == len(checks.CHECKS)


def test_a_failed_check_is_a_failed_test():
    class Tests(LearnerTests):
        def make_learner(self):
            return Remembers()

    with pytest.raises(CheckError, match="keep nothing on the learner between episodes"):
        Tests().test_classifying_leaves_the_model_as_it_was()


def test_a_learner_for_models_of_its_own_brings_them():
    class Picky(Sound):
        def equip(self, model):
            raise TrialError("it needs another model")

    with pytest.raises(TrialError, match="it needs another model"):
        checks.check_outputs(checks.Subject(Picky))
    checks.check_outputs(checks.Subject(Picky, model=lambda learner, seed: encoder_for(Sound(), seed)))


def test_operations_on_two_devices_are_found_without_a_gpu():
    x = torch.randn(3, device="cpu")
    allowed = [
        lambda: x + torch.arange(3).to(x.device),
        lambda: x + torch.from_numpy(np.arange(3)).to(x),
        lambda: x + torch.arange(3, device=x.device),
        lambda: (x.cpu() + torch.arange(3)).numpy(),
        lambda: x[torch.arange(2)],
        lambda: torch.where(x > 0, torch.tensor(1.0), x),
        lambda: x + torch.zeros_like(x),
        lambda: torch.arange(3) + torch.ones(3),
    ]
    for operation in allowed:
        with DeviceRule() as rule:
            operation()
        assert rule.violations == []
    wrong = [
        lambda: x + torch.arange(3),
        lambda: x + 2 * torch.from_numpy(np.arange(3)),
        lambda: x.cpu() + x,
        lambda: F.cross_entropy(x[None], torch.tensor([1])),
    ]
    for operation in wrong:
        with DeviceRule() as rule:
            operation()
        assert len(rule.violations) == 1
    assert torch.from_numpy(np.arange(3)).sum() == 3

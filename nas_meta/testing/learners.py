"""Conformance tests of learners, as a pytest class and by name."""

from __future__ import annotations

from collections.abc import Callable

from nas_meta.learners.base import Learner
from nas_meta.models.encoder import Encoder
from nas_meta.testing import learner_checks as checks
from nas_meta.testing.checks import NotApplicable, Result, check_plugin
from nas_meta.testing.episodes import encoder_for
from nas_meta.testing.learner_subject import Subject


class LearnerTests:
    """Conformance tests of a learner, as a pytest class.

    Subclass it and define :meth:`make_learner`; pytest then collects every test below for your learner. The tests train
    a tiny model with random weights, with the options of the learner except for ``steps``, ``lr``, ``meta_batch`` and
    ``training.weight_decay``.
    """

    def make_learner(self) -> Learner:
        """Return a new instance of the learner under test.

        Subclasses must override this method.
        """
        raise AssertionError(
            f"{type(self).__name__} does not define make_learner(); expected a method that returns a learner"
        )

    def make_encoder(self, learner: Learner, seed: int) -> Encoder:
        """Return an encoder that the learner can train; by default a tiny BERT, or else a tiny Llama.

        Args:
            learner: The learner.
            seed: Seed of the weights.
        """
        return encoder_for(learner, seed)

    def test_losses_and_logits_have_the_right_shapes(self) -> None:
        """The loss is a finite scalar, and the logits have a row per query example and a column per class."""
        self._run(checks.check_outputs)

    def test_it_learns_separable_episodes(self) -> None:
        """The loss falls, and accuracy rises above chance, on two episodes that are easy to separate."""
        self._run(checks.check_learning)

    def test_training_changes_what_it_should(self) -> None:
        """Gradients reach every trained parameter, and frozen parameters stay."""
        self._run(checks.check_gradients)

    def test_classifying_leaves_the_model_as_it_was(self) -> None:
        """An episode does not depend on those that were classified before it."""
        self._run(checks.check_restoring)

    def test_the_same_seed_gives_the_same_numbers(self) -> None:
        """Training and classifying draw random numbers from torch's generator only."""
        self._run(checks.check_seeds)

    def test_training_resumes_from_a_checkpoint(self) -> None:
        """The state of a step is complete; skipped if steps have none."""
        self._run(checks.check_resuming)

    def test_the_order_of_the_classes_does_not_matter(self) -> None:
        """Permuted classes have permuted logits; skipped unless it is a metric learner of any number of classes."""
        self._run(checks.check_class_order)

    def test_classes_may_have_different_numbers_of_examples(self) -> None:
        """Support sets of users work: unequal classes, and queries without a label."""
        self._run(checks.check_unequal_shots)

    def test_episodes_may_have_other_numbers_of_classes(self) -> None:
        """Episodes of one class work and, if ``any_ways`` is set, those with more classes than in training."""
        self._run(checks.check_numbers_of_classes)

    def test_tensors_are_on_the_device_of_the_model(self) -> None:
        """The learner works on a GPU; on a machine without one, operations that would fail there are found."""
        self._run(checks.check_devices)

    def test_the_learner_can_be_sent_to_workers(self) -> None:
        """The learner pickles."""
        self._run(checks.check_pickling)

    def _run(self, check: Callable[[Subject], None]) -> None:
        encoder = encoder_for if type(self).make_encoder is LearnerTests.make_encoder else self.make_encoder
        try:
            check(Subject(self.make_learner, model=encoder))
        except NotApplicable as reason:
            import pytest

            pytest.skip(str(reason))


def check_learner(name: str, seed: int = 0) -> list[Result]:
    """Run every conformance check on a learner.

    Args:
        name: An installed name, such as ``protonet``, or ``path/to/file.py:Name``. The learner is made with its
            default options, except for those that suit a tiny model; see :class:`LearnerTests`.
        seed: Seed of the model and of the episodes.

    Returns:
        One result per check. If the learner cannot be loaded, the only result has the reason.
    """
    return check_plugin("learners", name, checks.CHECKS, lambda plugin: Subject(plugin, seed))

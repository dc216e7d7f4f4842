"""The checks of learners: a tiny model with random weights and texts whose classes are separable by their words."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import cloudpickle
import numpy as np
import torch
from torch import Tensor

from nas_meta.core.wording import counted
from nas_meta.learners.balancing import balanced_rows
from nas_meta.learners.metric import MetricLearner
from nas_meta.learners.support import UserTask
from nas_meta.models.state import restore_training, serialize_training
from nas_meta.tasks.episodes import Episode
from nas_meta.testing.checks import NotApplicable, expect
from nas_meta.testing.device_rule import DeviceRule
from nas_meta.testing.episodes import encoder_for, rows_of
from nas_meta.testing.learner_subject import Subject, classify, described, train_and_evaluate

MOST_STEPS, EVERY = 200, 20  # steps of the check of learning, which ends as soon as it has succeeded
FALL, ENOUGH = 0.95, 0.6  # share of the initial loss, and accuracy of three classes, from which a learner has learned


def check_outputs(subject: Subject) -> None:
    """Check the loss of an episode and the logits of its query examples.

    Args:
        subject: The learner.

    Raises:
        CheckError: They have another type or shape, or are not finite.
    """
    learner, encoder, pool = subject.trained(1)
    (task,) = subject.episodes(learner, 1)
    losses = [step.loss for step in subject.train(learner, encoder)]
    expect(
        np.isfinite(losses).all(), f"the training losses are {losses}",
        "divide by numbers that cannot be zero, and use functions such as F.cross_entropy and log_softmax",
    )  # fmt: skip
    logits = classify(learner, encoder.eval(), pool, task)
    expected = [task.query.size, len(task.support)]
    expect(
        list(logits.shape) == expected and logits.is_floating_point(),
        f"classify() returned a tensor of {logits.dtype} and shape {list(logits.shape)}",
        f"return floating-point logits {expected}, a row per query example and a column per class",
    )
    expect(torch.isfinite(logits).all(), "classify() returned logits that are not finite", "mask or clamp them")


def check_learning(subject: Subject) -> None:
    """Check that the loss falls and that the episodes of the training are classified above chance.

    Args:
        subject: The learner.

    Raises:
        CheckError: The learner did not learn two separable episodes.
    """
    learner = subject.learner(MOST_STEPS)
    encoder, pool, tasks = subject.model(learner, subject.seed), subject.pool(learner), subject.episodes(learner, 2)
    torch.manual_seed(subject.seed)
    losses: list[float] = []
    first = last = accuracy = 0.0
    for step in subject.train(learner, encoder):
        losses.append(step.loss)
        if step.number % EVERY == 0:
            with torch.random.fork_rng():
                accuracy = float(learner.accuracies(encoder, pool, tasks).mean())
            first, last = float(np.mean(losses[:10])), float(np.mean(losses[-10:]))
            if last < FALL * first and accuracy > ENOUGH:
                return
    expect(
        last < FALL * first,
        f"the loss is {first:.3f} in the first ten of {len(losses)} training steps and {last:.3f} in the last ten",
        "let meta_loss() return a loss of the query examples that falls when the model improves",
    )
    expect(
        accuracy > ENOUGH,
        f"after {len(losses)} training steps, {100 * accuracy:.0f} % of the query examples of the same three-way "
        "episodes are classified correctly",
        "let classify() use the support examples as meta_loss() does: column n of the logits is row n of the support",
    )


def check_gradients(subject: Subject) -> None:
    """Check that training changes all parameters that it should change, and no others.

    Args:
        subject: The learner.

    Raises:
        CheckError: A trained parameter does not change, a frozen one does, or ``adapted`` names a foreign parameter.
    """
    learner = subject.learner()
    encoder = subject.model(learner, subject.seed)
    before = {name: p.detach().clone() for name, p in encoder.named_parameters()}
    body = {id(p) for p in encoder.body_parameters(learner.options.train_embeddings)}
    torch.manual_seed(subject.seed)
    for _ in subject.train(learner, encoder):
        continue
    after = dict(encoder.named_parameters())
    changed = {name for name, old in before.items() if name in after and not torch.equal(old, after[name])}
    # The softmax of attention is the same for every bias of the keys, so their gradient is zero.
    exempt = ("key.bias", "key/bias")
    trained = {n for n, p in after.items() if (id(p) in body or n.startswith("learned.")) and not n.endswith(exempt)}
    stuck = sorted(trained & before.keys() - changed)
    expect(
        not stuck,
        f"training does not change {_some(stuck)}",
        "compute the loss from encoder.embed() with gradients enabled, without detach(), .data or .item()",
    )
    moved = sorted(changed - trained - {n for n in after if n.endswith(exempt)})
    expect(
        not moved,
        f"training changes {_some(moved)}, which should be frozen",
        "train encoder.body_parameters(options.train_embeddings) and encoder.learned only",
    )
    names = {name for name, _ in encoder.named_parameters()}
    foreign = sorted(name for name, p in learner.adapted(encoder).items() if name not in names or p is not after[name])
    expect(
        not foreign,
        f"adapted() returned {_some(foreign)}, which the encoder does not have",
        "return a part of dict(encoder.named_parameters())",
    )


def check_restoring(subject: Subject) -> None:
    """Check that classifying leaves the encoder as it was, so that an episode does not depend on those before it.

    Args:
        subject: The learner.

    Raises:
        CheckError: The encoder or the logits changed.
    """
    learner, encoder, pool = subject.trained()
    one, two = subject.episodes(learner, 2)
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    first = classify(learner, encoder, pool, one)
    classify(learner, encoder, pool, two)
    learner.accuracies(encoder, pool, [one, two])
    changed = [name for name, old in before.items() if not torch.equal(old, encoder.state_dict()[name])]
    expect(
        not changed,
        f"classifying an episode changes {_some(changed)}",
        "train a copy of the parameters, or restore them in a finally block",
    )
    expect(
        torch.allclose(first, classify(learner, encoder, pool, one), atol=1e-5),
        "the same episode gets other logits after another episode",
        "keep nothing on the learner between episodes, because one instance serves all trials of a worker",
    )


def check_seeds(subject: Subject) -> None:
    """Check that the same seed of torch gives the same numbers.

    The generators of ``random`` and ``numpy`` are set to other states, because a trial does not seed them.

    Args:
        subject: The learner.

    Raises:
        CheckError: Losses or logits differ.
    """
    found = []
    state = random.getstate(), np.random.get_state()
    try:
        for run in range(2):
            random.seed(run)
            np.random.seed(run)
            learner = subject.learner()
            encoder = subject.model(learner, subject.seed)
            torch.manual_seed(subject.seed)
            losses = torch.tensor([step.loss for step in subject.train(learner, encoder)])
            torch.manual_seed(subject.seed)
            (task,) = subject.episodes(learner, 1)
            found.append((losses, classify(learner, encoder.eval(), subject.pool(learner), task)))
    finally:
        random.setstate(state[0])
        np.random.set_state(state[1])
    for what, one, other in zip(("training losses", "logits"), *found, strict=True):
        expect(
            torch.allclose(one, other, atol=1e-5, equal_nan=True),
            f"two trainings with the same seed have different {what}",
            "draw random numbers from torch's generator, or from one that is seeded with the number of the step",
        )


def check_resuming(subject: Subject) -> None:
    """Check that training resumes from the state of a step.

    Args:
        subject: The learner.

    Raises:
        CheckError: The resumed training has other losses.
        NotApplicable: The steps of the learner have no state.
    """
    learner = subject.learner(4)
    encoders = [subject.model(learner, subject.seed) for _ in range(2)]
    torch.manual_seed(subject.seed)
    losses, checkpoint = [], None
    for step in subject.train(learner, encoders[0]):
        losses.append(step.loss)
        if step.number == 2:
            if step.state is None:
                raise NotApplicable("its steps have no state")
            checkpoint = serialize_training(encoders[0], learner=step.state())
    assert checkpoint is not None
    state = restore_training(checkpoint, encoders[1])["learner"]
    resumed = [step.loss for step in subject.train(learner, encoders[1], state)]
    expect(
        np.allclose(losses[2:], resumed, rtol=1e-4) if len(resumed) == 2 else False,
        f"the losses of steps 3 and 4 are {_numbers(losses[2:])}, but {_numbers(resumed)} when training resumes at "
        "step 2",
        "put everything that a step changes into Step.state or into encoder.learned",
    )


def check_class_order(subject: Subject) -> None:
    """Check that a metric learner does not depend on the order of the classes.

    Args:
        subject: The learner.

    Raises:
        CheckError: Other logits belong to the same classes in another order.
        NotApplicable: The learner has outputs of a fixed order, or is not a metric learner.
    """
    if not isinstance(subject.make(), MetricLearner) or not subject.make().any_ways:
        raise NotApplicable("only metric learners of any number of classes promise it")
    learner, encoder, pool = subject.trained()
    (task,) = subject.episodes(learner, 1)
    order = [2, 0, 1]
    logits = classify(learner, encoder, pool, task)
    permuted = classify(learner, encoder, pool, Episode(task.support[order], task.query))
    expect(
        torch.allclose(logits[:, order], permuted, atol=1e-4),
        "the logits of a class depend on its place among the classes",
        "compute every column from the support examples of its class alone, or set any_ways = False",
    )


def check_unequal_shots(subject: Subject) -> None:
    """Check support sets as users have them: classes of different sizes, and queries whose class is not known.

    Args:
        subject: The learner.

    Raises:
        CheckError: The logits have another shape, are not finite, or depend on labels.
    """
    learner, encoder, pool = subject.trained()
    labels = np.array([0, 0, 0, 1, 2, 2])
    sizes = np.bincount(labels)
    support = np.concatenate([rows_of([c], n)[0] for c, n in enumerate(sizes)])
    task = UserTask(support[balanced_rows(labels, 3)], rows_of([0, 1, 2], 2, start=6).reshape(1, -1))
    logits = classify(learner, encoder, pool, task)
    expect(
        list(logits.shape) == [6, 3] and torch.isfinite(logits).all(),
        f"for six queries of unknown classes and three classes, classify() returned {described(logits)}",
        "take the number of classes from len(episode.support), and that of queries from episode.query.size",
    )
    labelled = classify(learner, encoder, pool, UserTask(task.support, task.query.reshape(3, 2)))
    expect(
        torch.allclose(logits, labelled, atol=1e-4),
        "the logits of the same queries change with their labels",
        "use episode.labels in meta_loss() only",
    )
    if not isinstance(learner, MetricLearner):
        return
    with torch.no_grad():
        z, q = encoder.embed(pool, support), encoder.embed(pool, task.query.ravel())
        unequal = learner.task_logits(encoder, z, torch.from_numpy(labels).to(z.device), 3, q)
    expect(
        isinstance(unequal, Tensor) and list(unequal.shape) == [6, 3] and torch.isfinite(unequal).all(),
        f"for classes of 3, 1 and 2 examples, task_logits() returned {described(unequal)}",
        "return finite logits [queries, classes] for classes of any size",
    )


def check_numbers_of_classes(subject: Subject) -> None:
    """Check episodes with one class, and with more classes than in training.

    Args:
        subject: The learner.

    Raises:
        CheckError: The logits have another shape or are not finite.
    """
    learner, encoder, pool = subject.trained()
    for ways in (1, 2, 5) if learner.any_ways else (1, 2):
        task = Episode(rows_of(range(ways), 1), rows_of(range(ways), 2, start=4))
        logits = classify(learner, encoder, pool, task)
        # A head of a fixed size has further columns, which callers cut off.
        enough = logits.shape[1] == ways if learner.any_ways else logits.shape[1] >= ways
        expect(
            len(logits) == 2 * ways and enough and torch.isfinite(logits).all(),
            f"for {counted(ways, 'class', 'classes')} with one example each, classify() returned {described(logits)}",
            f"return finite logits [{2 * ways}, {ways}]"
            + ("; set any_ways = False if the learner has a head of a fixed size" if learner.any_ways else ""),
        )


def check_devices(subject: Subject) -> None:
    """Check that training and evaluation work on a GPU; without one, that no operation mixes tensors of two devices.

    Args:
        subject: The learner.

    Raises:
        CheckError: A tensor of the CPU meets one of the model's device.
    """
    learner = subject.learner(2)
    remedy = "create tensors on the device of the embeddings: torch.from_numpy(labels).to(z.device)"
    if torch.cuda.is_available() and subject.model is encoder_for:
        encoder = encoder_for(learner, subject.seed, "cuda")
        try:
            train_and_evaluate(subject, learner, encoder)
        except RuntimeError as error:
            expect("device" not in str(error), f"on a GPU it fails: {str(error).splitlines()[0]}", remedy)
            raise
        return
    encoder = subject.model(learner, subject.seed)
    with DeviceRule() as rule:
        train_and_evaluate(subject, learner, encoder)
    expect(not rule.violations, f"tensors of the CPU would meet tensors of a GPU in {_some(rule.violations)}", remedy)


def check_pickling(subject: Subject) -> None:
    """Check that the learner can be sent to worker processes.

    Args:
        subject: The learner.

    Raises:
        CheckError: The learner that arrives has other options.
    """
    learner = subject.make()
    arrived = cloudpickle.loads(cloudpickle.dumps(learner))
    expect(arrived.options == learner.options, "its options change when it is pickled", "keep options as plain data")


CHECKS: dict[str, Callable[[Subject], None]] = {
    "losses and logits have the right shapes": check_outputs,
    "it learns separable episodes": check_learning,
    "training changes what it should, and nothing else": check_gradients,
    "classifying leaves the model as it was": check_restoring,
    "the same seed gives the same numbers": check_seeds,
    "training resumes from a checkpoint": check_resuming,
    "the order of the classes does not matter": check_class_order,
    "classes may have different numbers of examples": check_unequal_shots,
    "episodes may have one class, or more than in training": check_numbers_of_classes,
    "tensors are on the device of the model": check_devices,
    "the learner can be sent to workers": check_pickling,
}


def _some(names: Sequence[str]) -> str:
    """Name the first entry of a list, and the number of the others."""
    if not names:
        return "nothing"
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _numbers(values: Sequence[float]) -> str:
    return " and ".join(f"{value:.4f}" for value in values) or "missing"

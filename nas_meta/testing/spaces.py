"""Conformance tests of search spaces: draw architectures, build their models, run and pickle them."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import cloudpickle
import numpy as np
import torch

from nas_meta.core import plugins
from nas_meta.core.guard import first_line
from nas_meta.errors import NasMetaError
from nas_meta.models.encoder import Encoder
from nas_meta.models.inputs import check_modality, describe_inputs, example_inputs
from nas_meta.space.architecture import Architecture
from nas_meta.space.search_space import SearchSpace

SAMPLES = 5  # random architectures per check


class SpaceTests:
    """Conformance tests of a search space, as a pytest class.

    Subclass it and define :meth:`make_space`; pytest then collects every test below for your space. Each test draws
    five random architectures.
    """

    def make_space(self) -> SearchSpace:
        """Return a new instance of the space under test.

        Subclasses must override this method. Every test calls it once.
        """
        raise AssertionError(
            f"{type(self).__name__} does not define make_space(); expected a method that returns a space"
        )

    def test_samples_are_architectures_of_the_space(self) -> None:
        """Random architectures are valid, and the same seed gives the same architectures."""
        check_sampling(self.make_space())

    def test_architectures_build_and_learn(self) -> None:
        """Built models give one finite embedding per example, and gradients reach their parameters."""
        check_building(self.make_space())

    def test_equal_architectures_build_equal_shapes(self) -> None:
        """Building an architecture twice gives parameters of the same shapes, but no shared parameters."""
        check_shapes(self.make_space())

    def test_the_space_and_its_architectures_pickle(self) -> None:
        """The space and its architectures can be sent to worker processes."""
        check_pickling(self.make_space())


def check_space(name: str, seed: int = 0) -> tuple[list[str], list[str]]:
    """Run every conformance check on a search space.

    Args:
        name: An installed name, such as ``bert-subnet``, or ``path/to/file.py:Name``. The space is made with
            its default options.
        seed: Seed of the random architectures and of the random images.

    Returns:
        Two lists of sentences: the checks that failed, with the reasons, and the checks that passed. If the space
        cannot be loaded, the first list holds the reason and the second is empty.
    """
    problems: list[str] = []
    passed: list[str] = []
    try:
        space = plugins.load("spaces", name)()
        architectures = space.size()
    except (Exception, SystemExit) as error:
        return [first_line(error)], []
    passed.append(f"{len(space.table)} choices, {architectures:,} architectures")
    checks: dict[str, Callable[[SearchSpace, int], None]] = {
        "random architectures belong to the space": check_sampling,
        "architectures build, run forward and backward": check_building,
        "equal architectures build equal shapes": check_shapes,
        "the space and its architectures pickle": check_pickling,
    }
    for description, check in checks.items():
        try:
            check(space, seed)
            passed.append(description)
        except (Exception, SystemExit) as error:
            detail = str(error) if isinstance(error, (AssertionError, NasMetaError)) else first_line(error)
            problems.append(f"{description}: {detail}")
    return problems, passed


def _samples(space: SearchSpace, seed: int) -> list[Architecture]:
    """Draw the random architectures of a check."""
    rng = np.random.default_rng(seed)
    return [space.sample(rng) for _ in range(SAMPLES)]


def check_sampling(space: SearchSpace, seed: int = 0) -> None:
    """Check that random architectures are valid, and that the same seed gives the same architectures.

    Args:
        space: The space under test.
        seed: Seed of the random architectures.

    Raises:
        AssertionError: The check failed.
        NasMetaError: The space refused one of its own architectures.
    """
    for architecture in _samples(space, seed):
        values = {n: c.values[0] for n, c in space.table.items()} | dict(architecture.values)
        assert space.architecture(values) == architecture, "space.architecture() changes a sampled architecture"
    assert _samples(space, seed) == _samples(space, seed), "the same seed gives different architectures"


def check_building(space: SearchSpace, seed: int = 0) -> None:
    """Check that models give finite embeddings of shape ``[2, width]`` for two examples, and pass gradients back.

    Args:
        space: The space under test.
        seed: Seed of the random architectures and of the random images.

    Raises:
        AssertionError: The check failed.
        NasMetaError: The output of a model cannot become an embedding.
    """
    check_modality(space)
    inputs = example_inputs(space, 2, 4)
    if "input_ids" in inputs:
        ids = torch.tensor([[1, 2, 3, 4], [5, 6, 0, 0]])
        inputs |= {"input_ids": ids, "attention_mask": (ids > 0).long()}
    if "pixel_values" in inputs:
        shape, random = inputs["pixel_values"].shape, torch.Generator().manual_seed(seed)
        inputs["pixel_values"] = 2 * torch.rand(shape, generator=random) - 1
    for architecture in _samples(space, seed):
        model = space.build(architecture)
        assert isinstance(model, torch.nn.Module), (
            f"build() returned {type(model).__name__} for {architecture}; expected a torch module"
        )
        embeddings = Encoder(model, space.pooling(architecture) or "mean")(**inputs)
        assert embeddings.ndim == 2 and len(embeddings) == 2, (
            f"the model of {architecture} gives embeddings of shape {list(embeddings.shape)} for "
            f"{describe_inputs(space, 2, 4)}; expected [2, width]"
        )
        assert torch.isfinite(embeddings).all(), f"the model of {architecture} gives embeddings that are not finite"
        embeddings.square().sum().backward()
        reached = [p for p in model.parameters() if p.grad is not None]
        assert reached, f"no parameter of the model of {architecture} receives a gradient"


def check_shapes(space: SearchSpace, seed: int = 0) -> None:
    """Check that building an architecture twice gives parameters of equal names and shapes, none of them shared.

    Args:
        space: The space under test.
        seed: Seed of the random architectures.

    Raises:
        AssertionError: The check failed.
    """
    for architecture in _samples(space, seed):
        first, second = space.build(architecture), space.build(architecture)
        shapes = [{n: tuple(p.shape) for n, p in model.named_parameters()} for model in (first, second)]
        assert shapes[0] == shapes[1], f"building {architecture} twice gives different shapes"
        shared = {p.data_ptr() for p in first.parameters()} & {p.data_ptr() for p in second.parameters()}
        assert not shared, f"two models of {architecture} share parameters: training one would change the other"


def check_pickling(space: SearchSpace, seed: int = 0) -> None:
    """Check that the space and an architecture survive pickling, which sends them to workers.

    Args:
        space: The space under test.
        seed: Seed of the random architecture.

    Raises:
        AssertionError: The unpickled architecture differs, or the unpickled space builds different shapes.
    """
    architecture = _samples(space, seed)[0]
    copy = cloudpickle.loads(cloudpickle.dumps(space))
    assert pickle.loads(cloudpickle.dumps(architecture)) == architecture, "an architecture changes when it is pickled"
    shapes = [[tuple(p.shape) for p in s.build(architecture).parameters()] for s in (space, copy)]
    assert shapes[0] == shapes[1], "the unpickled space builds different shapes"

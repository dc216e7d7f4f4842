"""Conformance tests for plugin authors, the same that ``nas-meta space check`` runs.

In a plugin's tests::

    from nas_meta.testing import SpaceTests

    class TestMySpace(SpaceTests):
        def make_space(self):
            return MySpace()
"""

from __future__ import annotations

import pickle
from collections.abc import Callable

import cloudpickle
import numpy as np
import torch

from nas_meta.core import plugins
from nas_meta.errors import NasMetaError
from nas_meta.execution.engine import cause
from nas_meta.models.encoder import Encoder
from nas_meta.models.inputs import check_modality, describe_inputs, example_inputs
from nas_meta.space.architecture import Architecture
from nas_meta.space.search_space import SearchSpace

SAMPLES = 5


class SpaceTests:
    """pytest class; subclasses define :meth:`make_space`."""

    def make_space(self) -> SearchSpace:
        """A fresh instance of the space under test."""
        raise AssertionError("define make_space()")

    def test_samples_are_architectures_of_the_space(self) -> None:
        check_sampling(self.make_space())

    def test_architectures_build_and_learn(self) -> None:
        check_building(self.make_space())

    def test_equal_architectures_build_equal_shapes(self) -> None:
        check_shapes(self.make_space())

    def test_the_space_and_its_architectures_pickle(self) -> None:
        check_pickling(self.make_space())


def check_space(name: str, seed: int = 0) -> tuple[list[str], list[str]]:
    """Runs every check on a space by name; returns what is wrong and what is right, in words."""
    problems: list[str] = []
    passed: list[str] = []
    try:
        space = plugins.load("spaces", name)()
        architectures = space.size()
    except (Exception, SystemExit) as error:
        return [cause(error)], []
    passed.append(f"{len(space.table)} choices, {architectures:,} architectures")
    checks: dict[str, Callable[[SearchSpace, int], None]] = {
        "random architectures belong to the space": check_sampling,
        "architectures build, run forward and backward": check_building,
        "equal architectures build equal shapes": check_shapes,
        "the space and its architectures pickle": check_pickling,
    }
    for words, check in checks.items():
        try:
            check(space, seed)
            passed.append(words)
        except (Exception, SystemExit) as error:
            detail = str(error) if isinstance(error, (AssertionError, NasMetaError)) else cause(error)
            problems.append(f"{words}: {detail}")
    return problems, passed


def _sampled(space: SearchSpace, seed: int) -> list[Architecture]:
    rng = np.random.default_rng(seed)
    return [space.sample(rng) for _ in range(SAMPLES)]


def check_sampling(space: SearchSpace, seed: int = 0) -> None:
    """Samples validate, and the same seed gives the same ones."""
    for architecture in _sampled(space, seed):
        values = {n: c.values[0] for n, c in space.table.items()} | dict(architecture.values)
        assert space.architecture(values) == architecture, "a sampled architecture does not validate to itself"
    assert _sampled(space, seed) == _sampled(space, seed), "the same seed gives other architectures"


def check_building(space: SearchSpace, seed: int = 0) -> None:
    """Every sample builds a module whose embeddings are finite, of one width, and reach its parameters."""
    check_modality(space)
    inputs = example_inputs(space, 2, 4)
    if "input_ids" in inputs:
        ids = torch.tensor([[1, 2, 3, 4], [5, 6, 0, 0]])
        inputs |= {"input_ids": ids, "attention_mask": (ids > 0).long()}
    if "pixel_values" in inputs:
        shape, random = inputs["pixel_values"].shape, torch.Generator().manual_seed(seed)
        inputs["pixel_values"] = 2 * torch.rand(shape, generator=random) - 1
    for architecture in _sampled(space, seed):
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
        assert reached, f"no parameter of the model of {architecture} gets a gradient"


def check_shapes(space: SearchSpace, seed: int = 0) -> None:
    """Building an architecture twice gives parameters of the same names and shapes, not shared."""
    for architecture in _sampled(space, seed):
        one, two = space.build(architecture), space.build(architecture)
        shapes = [{n: tuple(p.shape) for n, p in model.named_parameters()} for model in (one, two)]
        assert shapes[0] == shapes[1], f"building {architecture} twice gives different shapes"
        shared = {p.data_ptr() for p in one.parameters()} & {p.data_ptr() for p in two.parameters()}
        assert not shared, f"two models of {architecture} share parameters: training one would change the other"


def check_pickling(space: SearchSpace, seed: int = 0) -> None:
    """A copy that went through pickle builds the same shapes."""
    architecture = _sampled(space, seed)[0]
    copy = cloudpickle.loads(cloudpickle.dumps(space))
    assert pickle.loads(cloudpickle.dumps(architecture)) == architecture, "an architecture changes when pickled"
    shapes = [[tuple(p.shape) for p in s.build(architecture).parameters()] for s in (space, copy)]
    assert shapes[0] == shapes[1], "the pickled space builds other shapes"

"""Replaces the choices of a supernet by NNI's super-modules, for plain training loops without Lightning.

A replaced module keeps its name and the names of its parameters. Architecture parameters are named as in NNI: each
choice has one vector under ``_arch_alpha``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from nas_meta import Architecture, ChoiceInput, ChoiceLayer, ChoiceSupernet
from nas_meta.errors import ConfigError
from strategies.nni import bare  # noqa: F401  must precede the imports of NNI's super-modules

with warnings.catch_warnings():
    warnings.simplefilter("ignore", RuntimeWarning)  # NNI warns of modules that only newer versions of torch have
    from nni.mutable import frozen_context
    from nni.nas.nn.pytorch import InputChoice, LayerChoice
    from nni.nas.oneshot.pytorch.supermodule.base import BaseSuperNetModule
    from nni.nas.oneshot.pytorch.supermodule.differentiable import (
        DifferentiableMixedInput,
        DifferentiableMixedLayer,
        GumbelSoftmax,
    )
    from nni.nas.oneshot.pytorch.supermodule.proxyless import ProxylessMixedInput, ProxylessMixedLayer
    from nni.nas.oneshot.pytorch.supermodule.sampling import PathSamplingInput, PathSamplingLayer

__all__ = ["ALPHA", "GumbelSoftmax", "SuperModules", "differentiable", "paths", "proxyless"]

ALPHA = "_arch_alpha"
INITIAL_DEVIATION = 1e-3  # standard deviation of the initial architecture parameters, as in DARTS
Hook = Callable[[nn.Module, str, dict, dict], nn.Module | None]


class SuperModules:
    """Replaces the choices of a supernet by NNI's super-modules, in place, and controls them.

    Use :func:`differentiable`, :func:`proxyless` or :func:`paths` to create one.

    Args:
        supernet: The supernet to change.
        hooks: NNI's functions that make a super-module from a layer choice and from an input choice.
        learned: Whether choices have architecture parameters.
        softmax: Turns architecture parameters into weights; by default NNI's, a plain softmax.

    Attributes:
        values: The values of each choice, by the name of the choice, in the order of NNI's candidates.
        alphas: The architecture parameters of each choice, ``[values]``, by its name; empty unless ``learned``.
        modules: The super-modules, in the order of the supernet.
    """

    def __init__(self, supernet: ChoiceSupernet, hooks: tuple[Hook, Hook], learned: bool, softmax: nn.Module | None):
        containers = list(supernet.containers())
        self.values = {container.name: container.values for _, container in containers}
        sizes = {name: len(values) for name, values in self.values.items() if learned}
        self.alphas = {name: nn.Parameter(INITIAL_DEVIATION * torch.randn(size)) for name, size in sizes.items()}
        self.modules: list[BaseSuperNetModule] = []
        settings = {} if softmax is None else {"softmax": softmax}
        for path, container in containers:
            with frozen_context():  # the context in which NNI's model spaces create their modules
                choice = _nni_choice(container)
                module = next(filter(None, (hook(choice, path, self.alphas, settings) for hook in hooks)))
            supernet.model.set_submodule(path, module)
            self.modules.append(module)

    def follow(self, architecture: Architecture) -> None:
        """Make the supernet compute one architecture from now on.

        Args:
            architecture: The architecture. Choices without effect in it are set to their first value.
        """
        sample: dict[str, int | list[int]] = {}
        for module in self.modules:
            name = module.label
            index = self.values[name].index(architecture[name]) if name in architecture.values else 0
            sample[name] = [index] if isinstance(module, InputChoice) else index
        for module in self.modules:
            module.resample(sample)

    def resample(self) -> None:
        """Draw a path from the architecture parameters; all modules of one choice get the same value."""
        memo: dict = {}
        for module in self.modules:
            memo.update(module.resample(memo))

    def probabilities(self) -> dict[str, Tensor]:
        """Return the softmax of the architecture parameters of every choice.

        Returns:
            ``[values]`` by the name of the choice, detached.
        """
        return {name: alpha.detach().softmax(0) for name, alpha in self.alphas.items()}


def differentiable(supernet: ChoiceSupernet, softmax: nn.Module | None = None) -> SuperModules:
    """Make every choice the sum of its candidates, weighted by a softmax of its architecture parameters.

    Args:
        supernet: The supernet, changed in place.
        softmax: The softmax; by default a plain one.

    Returns:
        The control over the choices.
    """
    return SuperModules(supernet, (DifferentiableMixedLayer.mutate, DifferentiableMixedInput.mutate), True, softmax)


def proxyless(supernet: ChoiceSupernet) -> SuperModules:
    """Make every choice compute one candidate, drawn from its architecture parameters, which get its gradient.

    Args:
        supernet: The supernet, changed in place.

    Returns:
        The control over the choices. Call :meth:`SuperModules.resample` before each forward pass.
    """
    return SuperModules(supernet, (ProxylessMixedLayer.mutate, ProxylessMixedInput.mutate), True, None)


def paths(supernet: ChoiceSupernet) -> SuperModules:
    """Make every choice compute the candidate that :meth:`SuperModules.follow` selects.

    Args:
        supernet: The supernet, changed in place.

    Returns:
        The control over the choices, without architecture parameters.
    """
    return SuperModules(supernet, (PathSamplingLayer.mutate, PathSamplingInput.mutate), False, None)


def is_alpha(name: str) -> bool:
    """Return whether the parameter of a name is an architecture parameter.

    Args:
        name: The dotted name of the parameter.
    """
    return name.rpartition(".")[2] == ALPHA


def choice_supernet(supernet: nn.Module | None, strategy: str, space: str) -> ChoiceSupernet:
    """Return a space's supernet after checking that it is made of choices.

    Args:
        supernet: The result of the space's ``supernet()``.
        strategy: The name of the strategy, for the error message.
        space: The name of the space, for the error message.

    Returns:
        The supernet.

    Raises:
        ConfigError: The space has no supernet, or one of another type.
    """
    if isinstance(supernet, ChoiceSupernet):
        return supernet
    what = "has none" if supernet is None else f"has one that is not made of choices ({type(supernet).__name__})"
    raise ConfigError(
        f"strategy '{strategy}' needs a space with a supernet, but {space} {what}; "
        "expected cell-encoder or a space whose supernet() returns a ChoiceSupernet"
    )


def _nni_choice(container: ChoiceLayer | ChoiceInput) -> LayerChoice | InputChoice:
    """NNI's module for a container, labelled with the name of the choice."""
    if isinstance(container, ChoiceLayer):
        return LayerChoice(list(container), label=container.name)
    return InputChoice(len(container.values), n_chosen=1, label=container.name)


def weights_of(supernet: ChoiceSupernet) -> Mapping[str, Tensor]:
    """Return the state of a changed supernet without its architecture parameters.

    Args:
        supernet: The supernet whose choices are NNI's super-modules.

    Returns:
        A state that the space's own supernet can load.
    """
    return {name: tensor for name, tensor in supernet.state_dict().items() if not is_alpha(name)}

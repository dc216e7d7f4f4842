"""The wall before NNI's super-modules: a supernet's choices as NNI's, in a plain loop, without Lightning.

What is replaced keeps its name and those of its parameters; architecture parameters are NNI's, one vector a
choice, under ``_arch_alpha``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from nas_meta import Architecture, ChoiceInput, ChoiceLayer, ChoiceSupernet
from nas_meta.errors import ConfigError
from strategies.nni import bare  # noqa: F401  before NNI's super-modules

with warnings.catch_warnings():
    warnings.simplefilter("ignore", RuntimeWarning)  # that it does not know what newer versions of torch have
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
SPREAD = 1e-3  # deviation of the first architecture parameters, as in DARTS
Hook = Callable[[nn.Module, str, dict, dict], nn.Module | None]


class SuperModules:
    """A supernet whose choices became NNI's super-modules.

    Attributes:
        values: those of each choice, by name, in the order of NNI's candidates.
        alphas: the architecture parameter of each choice, ``[values]``; none where paths are sampled from outside.
    """

    def __init__(self, supernet: ChoiceSupernet, hooks: tuple[Hook, Hook], learned: bool, softmax: nn.Module | None):
        containers = list(supernet.containers())
        self.values = {container.name: container.values for _, container in containers}
        sizes = {name: len(values) for name, values in self.values.items() if learned}
        self.alphas = {name: nn.Parameter(SPREAD * torch.randn(size)) for name, size in sizes.items()}
        self.modules: list[BaseSuperNetModule] = []
        settings = {} if softmax is None else {"softmax": softmax}
        for path, container in containers:
            with frozen_context():  # NNI would have its modules made by a model space, which gives them this
                plain = _labelled(container)
                module = next(filter(None, (hook(plain, path, self.alphas, settings) for hook in hooks)))
            supernet.model.set_submodule(path, module)
            self.modules.append(module)

    def follow(self, architecture: Architecture) -> None:
        """From now on the supernet computes this architecture; choices that it does not have keep what they had."""
        sample: dict[str, int | list[int]] = {}
        for module in self.modules:
            name = module.label
            index = self.values[name].index(architecture[name]) if name in architecture.values else 0
            sample[name] = [index] if isinstance(module, InputChoice) else index
        for module in self.modules:
            module.resample(sample)

    def resample(self) -> None:
        """Draws a path from the architecture parameters, as NNI does; one value for all modules of a choice."""
        memo: dict = {}
        for module in self.modules:
            memo.update(module.resample(memo))

    def probabilities(self) -> dict[str, Tensor]:
        """The softmax of every architecture parameter, detached."""
        return {name: alpha.detach().softmax(0) for name, alpha in self.alphas.items()}


def differentiable(supernet: ChoiceSupernet, softmax: nn.Module | None = None) -> SuperModules:
    """Every choice is the sum of its candidates, weighted with a softmax of the architecture parameter (in place)."""
    return SuperModules(supernet, (DifferentiableMixedLayer.mutate, DifferentiableMixedInput.mutate), True, softmax)


def proxyless(supernet: ChoiceSupernet) -> SuperModules:
    """Every choice computes one candidate, drawn; its gradient reaches the architecture parameter (in place)."""
    return SuperModules(supernet, (ProxylessMixedLayer.mutate, ProxylessMixedInput.mutate), True, None)


def paths(supernet: ChoiceSupernet) -> SuperModules:
    """Every choice computes the candidate that it is told to (in place)."""
    return SuperModules(supernet, (PathSamplingLayer.mutate, PathSamplingInput.mutate), False, None)


def is_alpha(name: str) -> bool:
    """Whether a parameter of that name is an architecture parameter."""
    return name.rpartition(".")[2] == ALPHA


def choice_supernet(supernet: nn.Module | None, strategy: str, space: str) -> ChoiceSupernet:
    """The supernet, if it is made of choices.

    Raises:
        ConfigError: there is none, or it has another form.
    """
    if isinstance(supernet, ChoiceSupernet):
        return supernet
    what = "has none" if supernet is None else f"has one that is not made of choices ({type(supernet).__name__})"
    raise ConfigError(
        f"strategy '{strategy}' needs a space with a supernet, but {space} {what}; "
        "expected cell-encoder or a space whose supernet() returns a ChoiceSupernet"
    )


def _labelled(container: ChoiceLayer | ChoiceInput) -> LayerChoice | InputChoice:
    if isinstance(container, ChoiceLayer):
        return LayerChoice(list(container), label=container.name)
    return InputChoice(len(container.values), n_chosen=1, label=container.name)


def weights_of(supernet: ChoiceSupernet) -> Mapping[str, Tensor]:
    """The supernet's state without architecture parameters: what the space's own supernet can load."""
    return {name: tensor for name, tensor in supernet.state_dict().items() if not is_alpha(name)}

"""Containers for the choices of a supernet.

They mark which modules or states of a model a choice selects from. How the supernet is trained is up to the strategy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from nas_meta.space.architecture import Architecture, Value
from nas_meta.space.supernet import Supernet


class ChoiceLayer(nn.ModuleList):
    """Module list that runs the selected one of several candidate modules.

    Args:
        name: Name of the choice in the search space.
        candidates: One module for every value of the choice. All take the same positional arguments and return tensors
            of the same shape.

    Attributes:
        chosen: Index of the selected candidate.
    """

    def __init__(self, name: str, candidates: Mapping[Value, nn.Module]):
        super().__init__(candidates.values())
        self.name, self.values, self.chosen = name, tuple(candidates), 0

    def forward(self, *inputs: Any) -> Tensor:
        return self[self.chosen](*inputs)


class ChoiceInput(nn.Module):
    """Module that returns the selected one of several states, for choices of a model's wiring.

    Args:
        name: Name of the choice in the search space.
        values: Values of the choice, in the order of the states that :meth:`forward` takes.

    Attributes:
        chosen: Index of the selected state.
    """

    def __init__(self, name: str, values: Sequence[Value]):
        super().__init__()
        self.name, self.values, self.chosen = name, tuple(values), 0

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        """Return the selected state.

        Args:
            states: One tensor for every value of the choice, all of the same shape.
        """
        return states[self.chosen]


class ChoiceSupernet(Supernet):
    """Supernet around one model that contains :class:`ChoiceLayer` and :class:`ChoiceInput` modules.

    Args:
        model: Model with the same inputs and outputs as the models of the space.
        build: Function that builds the stand-alone model of an architecture, such as ``space.build``. Where ``model``
            has a :class:`ChoiceLayer`, the stand-alone model has the chosen candidate under the same name; all other
            parameters have the same names in both.
    """

    def __init__(self, model: nn.Module, build: Callable[[Architecture], nn.Module]):
        super().__init__()
        self.model = model
        self._build = build

    def forward(self, *inputs: Any, **named: Any) -> Any:
        return self.model(*inputs, **named)

    def containers(self) -> Iterator[tuple[str, ChoiceLayer | ChoiceInput]]:
        """Yield the modules of all choices.

        Yields:
            The path of the module in ``model``, and the module.
        """
        for path, module in self.model.named_modules():
            if isinstance(module, (ChoiceLayer, ChoiceInput)):
                yield path, module

    def select(self, architecture: Architecture) -> None:
        for _, container in self.containers():
            if container.name in architecture.values:
                container.chosen = container.values.index(architecture[container.name])

    def extract(self, architecture: Architecture) -> nn.Module:
        # None marks the layer of an inactive choice, which the stand-alone model does not have.
        chosen = {
            path: container.values.index(architecture[container.name])
            if container.name in architecture.values
            else None
            for path, container in self.containers()
            if isinstance(container, ChoiceLayer)
        }
        named = ((_without_choices(name, chosen), tensor) for name, tensor in self.model.state_dict().items())
        weights = {name: tensor for name, tensor in named if name is not None}
        model = self._build(architecture).to(next(self.parameters()).device)
        model.load_state_dict(weights)
        return model.train(self.training)


def _without_choices(name: str, chosen: Mapping[str, int | None]) -> str | None:
    """The name of a supernet's tensor in the stand-alone model; None if that model does not have it.

    Example: with candidate 1 chosen for the layer ``ops.0``, ``ops.0.1.weight`` becomes ``ops.0.weight``, and
    ``ops.0.2.weight`` becomes None.
    """
    path, parts = "", []
    for part in name.split("."):
        if path not in chosen:
            parts.append(part)
        elif part != str(chosen[path]):
            return None
        path = f"{path}.{part}" if path else part
    return ".".join(parts)

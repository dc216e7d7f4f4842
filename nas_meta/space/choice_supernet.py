"""Containers that say where a supernet's choices stand. How it is trained is not their business, but a strategy's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from nas_meta.space.architecture import Architecture, Value
from nas_meta.space.supernet import Supernet


class ChoiceLayer(nn.ModuleList):
    """Of several modules the one that is chosen.

    Args:
        name: the choice of the search space.
        candidates: a module for every value of the choice; all take the same positional arguments and return tensors of
            one shape.
    """

    def __init__(self, name: str, candidates: Mapping[Value, nn.Module]):
        super().__init__(candidates.values())
        self.name, self.values, self.chosen = name, tuple(candidates), 0

    def forward(self, *inputs: Any) -> Tensor:
        return self[self.chosen](*inputs)


class ChoiceInput(nn.Module):
    """Of several states the one that is chosen: the wiring of a model.

    Args:
        name: the choice of the search space.
        values: those of the choice, in the order of the states that :meth:`forward` is given; all of one shape.
    """

    def __init__(self, name: str, values: Sequence[Value]):
        super().__init__()
        self.name, self.values, self.chosen = name, tuple(values), 0

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        return states[self.chosen]


class ChoiceSupernet(Supernet):
    """A supernet made of one model with :class:`ChoiceLayer` and :class:`ChoiceInput` somewhere inside.

    Args:
        model: takes and returns what a model of the space does.
        build: the stand-alone model of an architecture, such as the space's own method. Where ``model`` has a
            :class:`ChoiceLayer`, it has the chosen module itself; everything else has the same name in both.
    """

    def __init__(self, model: nn.Module, build: Callable[[Architecture], nn.Module]):
        super().__init__()
        self.model = model
        self._build = build

    def forward(self, *inputs: Any, **named: Any) -> Any:
        return self.model(*inputs, **named)

    def containers(self) -> Iterator[tuple[str, ChoiceLayer | ChoiceInput]]:
        """Every choice with the path of its module in :attr:`model`."""
        for path, module in self.model.named_modules():
            if isinstance(module, (ChoiceLayer, ChoiceInput)):
                yield path, module

    def select(self, architecture: Architecture) -> None:
        for _, container in self.containers():
            if container.name in architecture.values:
                container.chosen = container.values.index(architecture[container.name])

    def extract(self, architecture: Architecture) -> nn.Module:
        chosen = {
            path: container.values.index(architecture[container.name])
            if container.name in architecture.values
            else None
            for path, container in self.containers()
            if isinstance(container, ChoiceLayer)
        }
        named = ((_without_choices(name, chosen), tensor) for name, tensor in self.model.state_dict().items())
        share = {name: tensor for name, tensor in named if name is not None}
        model = self._build(architecture).to(next(self.parameters()).device)
        model.load_state_dict(share)
        return model.train(self.training)


def _without_choices(name: str, chosen: Mapping[str, int | None]) -> str | None:
    """The name that a supernet's tensor has in the stand-alone model; None where that does not have it."""
    path, kept = "", []
    for part in name.split("."):
        if path not in chosen:
            kept.append(part)
        elif part != str(chosen[path]):
            return None
        path = f"{path}.{part}" if path else part
    return ".".join(kept)

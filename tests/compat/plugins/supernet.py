"""A space whose choices stand in one model: a layer chosen among modules, and where it reads from.

FROZEN: written against nas-meta 0.1. Never edited to make a test pass, for an author's own plugin is not either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pydantic import Field
from torch import Tensor, nn

from nas_meta import Architecture, ChoiceInput, ChoiceLayer, ChoiceSupernet, PluginOptions, SearchSpace, Supernet

WIDTH, ROWS = 8, 40
KINDS: Mapping[str, Callable[[], nn.Module]] = {
    "identity": nn.Identity,
    "linear": lambda: nn.Linear(WIDTH, WIDTH),
    "norm": lambda: nn.LayerNorm(WIDTH),
}


class Layers(nn.Module):
    """States one after the other; the modules are given, those of one architecture or all of them."""

    def __init__(self, layers: Sequence[nn.Module], reads: Sequence[ChoiceInput | int]):
        super().__init__()
        self.table = nn.Embedding(ROWS, WIDTH)
        self.layers = nn.ModuleList(layers)
        self.inputs = nn.ModuleList([r for r in reads if isinstance(r, nn.Module)])
        self.fixed = [r for r in reads if isinstance(r, int)]

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        states: list[Tensor] = [self.table(input_ids)]
        for i, layer in enumerate(self.layers):
            read = self.inputs[i]([*states, states[0]][:2]) if len(self.inputs) else states[min(self.fixed[i], i)]
            states.append(read + layer(read))
        return states[-1]


class LayerOptions(PluginOptions):
    """Options of the space."""

    tokenizer: str = Field(description="a folder with a tokenizer")


class LayerSpace(SearchSpace):
    """Two layers: what each does, and which state it reads."""

    Options = LayerOptions
    options: LayerOptions

    def __init__(self, options: LayerOptions | None = None):
        super().__init__(options)
        self.tokenizer = self.options.tokenizer

    def choices(self) -> Mapping[str, Sequence[int | str]]:
        return {f"kind{i}": list(KINDS) for i in range(2)} | {f"read{i}": [0, 1] for i in range(2)}

    def build(self, architecture: Architecture) -> nn.Module:
        return Layers(
            [KINDS[architecture[f"kind{i}"]]() for i in range(2)], [architecture[f"read{i}"] for i in range(2)]
        )

    def supernet(self) -> Supernet:
        layers = [ChoiceLayer(f"kind{i}", {kind: make() for kind, make in KINDS.items()}) for i in range(2)]
        return ChoiceSupernet(Layers(layers, [ChoiceInput(f"read{i}", [0, 1]) for i in range(2)]), self.build)

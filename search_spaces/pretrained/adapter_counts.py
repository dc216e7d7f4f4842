"""Parameters and FLOPs of an encoder with adapters, from its shapes, without inserting them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from nas_meta.models.adapters import Insertion, roles, stack, targets_of
from nas_meta.models.families import family_of
from search_spaces.pretrained.layer_counts import POOLER, counts_of, relative_positions
from search_spaces.slicing import features, widths


@dataclass(frozen=True)
class AdapterCounts:
    """Counts of the adapter of one layer.

    Attributes:
        params: Trained parameters.
        matrices: Weights that multiply the state of every token.
        products: Multiplications and additions, each pair counted once, that do not depend on the tokens.
    """

    params: int
    matrices: int
    products: int = 0


class AdapterSizes:
    """Sizes of an encoder, from which the counts of all its adapters follow.

    Args:
        model: The encoder without adapters.
    """

    def __init__(self, model: nn.Module):
        self.model, self.layers = model, list(stack(model)[1])
        self.family = family_of(model.config)
        self.params = sum(p.numel() for p in model.parameters())

    def flops(self, tokens: int) -> int:
        """Count the FLOPs of one forward pass of the encoder without adapters.

        A family that the table of families lacks is taken to attend from every token to every token with all its
        projections.

        Args:
            tokens: Number of tokens of the text.
        """
        if self.family is not None and not self.family.causal:
            return counts_of(self.model).count_flops(dict(enumerate(widths(self.model))), tokens)
        linears = {name: m.weight.numel() for name, m in self.model.named_modules() if isinstance(m, nn.Linear)}
        pooler = sum(size for name, size in linears.items() if name.partition(".")[0] == POOLER)
        attention = 2 * tokens**2 * self.model.config.hidden_size * len(self.layers)
        return 2 * (tokens * (sum(linears.values()) - pooler) + pooler + attention)

    def adapter(self, index: int, part: Insertion) -> AdapterCounts:
        """Count one adapter.

        Args:
            index: Index of its layer.
            part: The adapter.
        """
        layer = self.layers[index]
        names = roles(layer, self.family)
        shapes = {name: features(layer.get_submodule(name)) for name in names.values()}
        if part.kind == "adapter":
            params = matrices = part.rank * shapes[names["down"]][1]
            for role in ("up", "gate"):
                if role in names:
                    linear = layer.get_submodule(names[role])
                    blocks = self.family.inward[role].blocks if self.family is not None else 1
                    matrices += part.rank * blocks * shapes[names[role]][0]
                    params += part.rank * blocks * (shapes[names[role]][0] + (linear.bias is not None))
            return AdapterCounts(params, matrices)
        targets = targets_of(part.kind, part.on, names, layer)
        sizes = {name: features(layer.get_submodule(name)) for name in targets}
        if part.kind == "ia3":
            return AdapterCounts(sum(i if name == names.get("down") else o for name, (i, o) in sizes.items()), 0)
        weights = {name: part.rank * (i + o) for name, (i, o) in sizes.items()}
        positions, position_roles = relative_positions(layer, self.family)
        again = sum(weights.get(names.get(role, ""), 0) for role in position_roles)
        return AdapterCounts(sum(weights.values()), sum(weights.values()), positions * again)

"""Adapters: small trainable parts inside a model, which are LoRA and IA³ (through peft) and parallel adapters.

- LoRA (Hu et al. 2022): Wx becomes Wx + α/r · B(Ax) with A ``[r, in]`` and B ``[out, r]``; B starts at zero.
- IA³ (Liu et al. 2022): the keys, the values and the input of the second feed-forward projection are multiplied by
  learned vectors, which start at one; where query, key and value are one projection, so are the queries.
- parallel adapter (He et al. 2022, "Towards a Unified View of Parameter-Efficient Transfer Learning"): Uσ(Dx + d) is
  added to the feed-forward block; U starts at zero. With the block's activation σ, these are r more neurons of the
  block, with a gate if the block has gates. They are built that way, and therefore merge into the block exactly.

Invariant: a newly inserted adapter does not change the outputs of the model.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nas_meta.errors import TrialError
from nas_meta.models.families import Family, family_of

KINDS = ("lora", "ia3", "adapter")
NAMES = {
    "query": ("query", "q_lin", "q_proj", "q"),
    "key": ("key", "k_lin", "k_proj", "k"),
    "value": ("value", "v_lin", "v_proj", "v"),
}


@dataclass(frozen=True)
class Insertion:
    """The adapter that one layer gets.

    Attributes:
        kind: ``lora``, ``ia3`` or ``adapter``.
        rank: Rank r of LoRA, or the number of neurons r of a parallel adapter; IA³ ignores it.
        on: Blocks of the layer that LoRA or IA³ adapt, ``attention`` or ``ffn`` or both; a parallel adapter always
            belongs to the feed-forward block.
    """

    kind: str
    rank: int = 8
    on: Collection[str] = ("attention",)


def stack(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """Return the stack of layers of a model: the first non-empty module list from the outside in.

    Args:
        model: Model such as a transformers encoder or decoder.

    Returns:
        The name of the list in the model, and the list.

    Raises:
        TrialError: If the model has no list of modules.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module):
            return name, module
    raise TrialError(
        "the model has no list of layers to insert adapters into; expected learner.adapt: all, head or bitfit"
    )


def roles(layer: nn.Module, family: Family | None = None) -> dict[str, str]:
    """Find the projections of a layer: in the row of its family, or else by their names and shapes.

    Args:
        layer: One layer of a transformer.
        family: Family of its model, if the table of families has a row for it.

    Returns:
        The submodule names of the roles ``query``, ``key``, ``value``, which are one name if a projection holds all
        three, of the feed-forward pair ``up`` and ``down``, and of a ``gate`` beside ``up``; roles that the layer lacks
        are missing.
    """
    if family is not None:
        named = {role: p.path for role, p in family.inward.items() if role in ("query", "key", "value", "up", "gate")}
        fused = family.inward.get("qkv")
        return named | ({} if fused is None else dict.fromkeys(NAMES, fused.path)) | {"down": family.down}
    linears = {name: module for name, module in layer.named_modules() if isinstance(module, nn.Linear)}
    projections = {
        role: name for role, words in NAMES.items() for name in linears if name.rpartition(".")[2] in words
    }  # fmt: skip
    # The first projection is "up" by its order, not its width: a pruned block may be narrower than the layer.
    rest = {name: module for name, module in linears.items() if "att" not in name and name not in projections.values()}
    for up, first in rest.items():
        for down, second in rest.items():
            if up != down and (first.in_features, first.out_features) == (second.out_features, second.in_features):
                return projections | {"up": up, "down": down}
    return projections


def insert(model: nn.Module, layers: Mapping[int, Insertion]) -> None:
    """Insert adapters into layers of a model, in place.

    The adapters' parameters require gradients; whether the others do is not changed.

    Args:
        model: Model without adapters.
        layers: The adapter of each layer, by the layer's index; layers that are not listed get none.

    Raises:
        TrialError: If the model already has adapters, or if a layer lacks the projections that its adapter needs.
    """
    if has_adapters(model):
        raise TrialError("the model already has adapters; expected learner.adapt: all, head, bitfit or last-n")
    prefix, modules = stack(model)
    frozen = [p for p in model.parameters() if not p.requires_grad]
    learning = [p for p in model.parameters() if p.requires_grad]
    family = family_of(getattr(model, "config", None))
    wanted = {i: (part, roles(modules[i], family)) for i, part in layers.items()}
    for kind in ("lora", "ia3"):
        targets = {
            f"{prefix}.{i}.{name}": part.rank
            for i, (part, names) in wanted.items()
            if part.kind == kind
            for name in targets_of(kind, part.on, names, modules[i])
        }
        if targets:
            _inject(model, kind, targets, [f"{prefix}.{i}.{n['down']}" for i, (_, n) in wanted.items() if "down" in n])
    for i, (part, names) in wanted.items():
        if part.kind == "adapter":
            if "down" not in names:
                raise TrialError(
                    "the model's layers have no pair of feed-forward projections for a parallel adapter; "
                    "expected lora or ia3"
                )
            _widen(modules[i], names, part.rank, family)
    for parameter in frozen:
        parameter.requires_grad_(False)
    for parameter in learning:
        parameter.requires_grad_(True)


def targets_of(kind: str, on: Collection[str], names: Mapping[str, str], layer: nn.Module) -> Sequence[str]:
    """Return the names of the projections in a layer that LoRA or IA³ adapt.

    Args:
        kind: ``lora`` or ``ia3``.
        on: Blocks that are adapted, ``attention`` or ``ffn`` or both.
        names: Names of the projections by role, from :func:`roles`.
        layer: The layer.

    Raises:
        TrialError: The layer lacks the projections.
    """
    wanted = {
        "lora": {"attention": ("query", "value"), "ffn": ("up", "down")},
        "ia3": {"attention": ("key", "value"), "ffn": ("down",)},
    }[kind]
    targets = [names[role] for block, parts in wanted.items() if block in on for role in parts if role in names]
    if targets:
        return list(dict.fromkeys(targets))  # query, key and value may be one projection
    # LoRA fits every projection, so a layer with unknown names gets it on all of them.
    targets = [name for name, module in layer.named_modules() if isinstance(module, nn.Linear)]
    if not targets or kind == "ia3":
        raise TrialError(f"the model's layers have no projections for {kind}; expected a transformer's linear layers")
    return targets


def _inject(model: nn.Module, kind: str, targets: Mapping[str, int], downs: Sequence[str]) -> None:
    """Wrap the targets with LoRA (of these ranks, α = r) or IA³, in place, through peft."""
    import peft

    names = list(targets)
    if kind == "lora":
        config = peft.LoraConfig(
            r=max(targets.values()), lora_alpha=max(targets.values()), target_modules=names,
            rank_pattern=dict(targets), alpha_pattern=dict(targets),
        )  # fmt: skip
    else:
        config = peft.IA3Config(target_modules=names, feedforward_modules=[n for n in names if n in downs])
    with warnings.catch_warnings():
        # peft warns when a second kind of adapter is injected, here into other layers.
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")
        peft.inject_adapter_in_model(config, model, adapter_name=kind)


class WiderUp(nn.Module):
    """A projection to the neurons of a feed-forward block with r more of them, ``[..., in]`` to ``[..., b·(out + r)]``.

    Args:
        base: The projection to extend.
        rank: The number of neurons r.
        blocks: The number of blocks b, one after the other, each with an output for every neuron; 2 if the gate of a
            gated block is in the same projection.
    """

    def __init__(self, base: nn.Linear, rank: int, blocks: int = 1):
        super().__init__()
        self.base, self.blocks = base, blocks
        self.adapter = nn.Linear(
            base.in_features, rank * blocks, bias=base.bias is not None, device=base.weight.device,
            dtype=base.weight.dtype,
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        if self.blocks == 1:
            return torch.cat([self.base(x), self.adapter(x)], dim=-1)
        both = (y.unflatten(-1, (self.blocks, -1)) for y in (self.base(x), self.adapter(x)))
        return torch.cat(list(both), dim=-1).flatten(-2)


class WiderDown(nn.Module):
    """The second projection of a feed-forward block with r more inputs, ``[..., in + r]`` to ``[..., out]``.

    Args:
        base: The projection to extend.
        rank: The number of neurons r that :class:`WiderUp` adds.
    """

    def __init__(self, base: nn.Linear, rank: int):
        super().__init__()
        self.base = base
        self.adapter = nn.Linear(
            rank, base.out_features, bias=False, device=base.weight.device, dtype=base.weight.dtype
        )
        nn.init.zeros_(self.adapter.weight)

    def forward(self, x: Tensor) -> Tensor:
        neurons, added = x.split([self.base.in_features, self.adapter.in_features], dim=-1)
        return self.base(neurons) + self.adapter(added)


def _widen(layer: nn.Module, names: Mapping[str, str], rank: int, family: Family | None) -> None:
    """Add r neurons to the feed-forward block with the projections ``up`` and ``down``, and ``gate`` if it has one."""
    ups = [role for role in ("up", "gate") if role in names]
    for role in (*ups, "down"):
        if not isinstance(layer.get_submodule(names[role]), nn.Linear):
            raise TrialError(
                "the model's feed-forward projections are not linear layers of torch; expected lora or ia3 instead of "
                "a parallel adapter"
            )
    for role in ups:
        blocks = family.inward[role].blocks if family is not None else 1
        layer.set_submodule(names[role], WiderUp(layer.get_submodule(names[role]), rank, blocks))
    layer.set_submodule(names["down"], WiderDown(layer.get_submodule(names["down"]), rank))


def has_adapters(model: nn.Module) -> bool:
    """Return whether a model has adapters of any kind."""
    return any(True for _ in adapter_names(model))


def adapter_names(model: nn.Module) -> list[str]:
    """Return the names of the parameters that belong to adapters, in the order of the model."""
    marks = (".lora_A.", ".lora_B.", ".ia3_l.", ".adapter.")
    return [name for name, _ in model.named_parameters() if any(mark in f".{name}" for mark in marks)]


def without_adapters(model: nn.Module, merge: bool) -> nn.Module:
    """Remove the adapters from a model, in place.

    Args:
        model: Model with or without adapters.
        merge: Whether the adapters are merged into the weights, which keeps the outputs; otherwise they are dropped,
            which restores the outputs from before :func:`insert`.

    Returns:
        The same model.
    """
    if not has_adapters(model):
        return model
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            if merge:
                module.merge()
            model.set_submodule(name, module.get_base_layer())
        elif isinstance(module, WiderUp):
            model.set_submodule(
                name, _concatenated(module.base, module.adapter, 0, module.blocks) if merge else module.base
            )
        elif isinstance(module, WiderDown):
            model.set_submodule(name, _concatenated(module.base, module.adapter, 1) if merge else module.base)
    model.__dict__.pop("peft_config", None)
    return model


@torch.no_grad()
def _concatenated(base: nn.Linear, adapter: nn.Linear, dim: int, blocks: int = 1) -> nn.Linear:
    """One projection from two: more outputs in each block with ``dim`` 0, more inputs with ``dim`` 1."""

    def joined(one: Tensor, other: Tensor, dim: int) -> Tensor:
        if blocks == 1:
            return torch.cat([one, other], dim)
        return torch.cat([t.unflatten(0, (blocks, -1)) for t in (one, other)], 1).flatten(0, 1)

    weight, bias = joined(base.weight, adapter.weight, dim), base.bias
    merged = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, weight.device, weight.dtype)
    merged.weight.copy_(weight)
    if bias is not None:
        merged.bias.copy_(bias if adapter.bias is None else joined(bias, adapter.bias, 0))
    return merged

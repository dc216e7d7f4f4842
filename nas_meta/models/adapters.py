"""Small trainable parts inside a model: LoRA and IA³ (through peft) and parallel adapters.

- LoRA (Hu et al. 2022): Wx becomes Wx + α/r · B(Ax), A ``[r, in]``, B ``[out, r]`` zero at first.
- IA³ (Liu et al. 2022): the outputs of keys and values, and the input of the second feed-forward projection, are
  multiplied by learned vectors that are one at first.
- parallel adapter (He et al. 2022, "Towards a Unified View of Parameter-Efficient Transfer Learning"): beside the
  feed-forward block, Uσ(Dx + d), U zero at first. With the block's own σ these are r more neurons of the block: so they
  are built, and so they merge into it exactly.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nas_meta.errors import TrialError

KINDS = ("lora", "ia3", "adapter")
NAMES = {
    "query": ("query", "q_lin", "q_proj", "q"),
    "key": ("key", "k_lin", "k_proj", "k"),
    "value": ("value", "v_lin", "v_proj", "v"),
}


@dataclass(frozen=True)
class Insertion:
    """What is put into one layer.

    Attributes:
        kind: ``lora``, ``ia3`` or ``adapter``.
        rank: r, of LoRA and adapters.
        on: the parts of the layer, of ``attention`` and ``ffn``; adapters stand beside the feed-forward block anyway.
    """

    kind: str
    rank: int = 8
    on: Collection[str] = ("attention",)


def stack(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """The model's stack of layers, the outermost list of modules, and its name.

    Raises:
        TrialError: there is none.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module):
            return name, module
    raise TrialError(
        "the model has no list of layers to put adapters into; expected learner.adapt: all, head or bitfit"
    )


def roles(layer: nn.Module) -> dict[str, str]:
    """The names of a layer's query, key and value projections and of its feed-forward pair, as far as it has them."""
    linears = {name: module for name, module in layer.named_modules() if isinstance(module, nn.Linear)}
    found = {
        role: name for role, words in NAMES.items() for name in linears if name.rpartition(".")[2] in words
    }  # fmt: skip
    # In the order of definition, and not by width: a cut block may be narrower than the layer.
    rest = {name: module for name, module in linears.items() if "att" not in name and name not in found.values()}
    for up, first in rest.items():
        for down, second in rest.items():
            if up != down and (first.in_features, first.out_features) == (second.out_features, second.in_features):
                return found | {"up": up, "down": down}
    return found


def insert(model: nn.Module, layers: Mapping[int, Insertion]) -> None:
    """Puts the given parts into layers of a model, in place; which parameters learn stays as it was, new ones do.

    Raises:
        TrialError: the model has such parts already, or a layer lacks what they are put on.
    """
    if has_adapters(model):
        raise TrialError("the model has adapters of its own; expected learner.adapt: all, head, bitfit or last-n")
    prefix, modules = stack(model)
    frozen = [p for p in model.parameters() if not p.requires_grad]
    learning = [p for p in model.parameters() if p.requires_grad]
    wanted = {i: (part, roles(modules[i])) for i, part in layers.items()}
    for kind in ("lora", "ia3"):
        targets = {
            f"{prefix}.{i}.{name}": part.rank
            for i, (part, names) in wanted.items()
            if part.kind == kind
            for name in _places(kind, part.on, names, modules[i])
        }
        if targets:
            _inject(model, kind, targets, [f"{prefix}.{i}.{n['down']}" for i, (_, n) in wanted.items() if "down" in n])
    for i, (part, names) in wanted.items():
        if part.kind == "adapter":
            if "down" not in names:
                raise TrialError("the model's layers have no feed-forward pair that an adapter could stand beside")
            _widen(modules[i], names["up"], names["down"], part.rank)
    for parameter in frozen:
        parameter.requires_grad_(False)
    for parameter in learning:
        parameter.requires_grad_(True)


def _places(kind: str, on: Collection[str], names: Mapping[str, str], layer: nn.Module) -> Sequence[str]:
    wanted = {
        "lora": {"attention": ("query", "value"), "ffn": ("up", "down")},
        "ia3": {"attention": ("key", "value"), "ffn": ("down",)},
    }[kind]
    places = [names[role] for part, parts in wanted.items() if part in on for role in parts if role in names]
    if places:
        return places
    # A layer whose projections have other names: all of them.
    places = [name for name, module in layer.named_modules() if isinstance(module, nn.Linear)]
    if not places or kind == "ia3":
        raise TrialError(f"the model's layers have no projections that {kind} could be put on")
    return places


def _inject(model: nn.Module, kind: str, targets: Mapping[str, int], downs: Sequence[str]) -> None:
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
        # Of a second kind in other layers of the same model.
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")
        peft.inject_adapter_in_model(config, model, adapter_name=kind)


class WiderUp(nn.Module):
    """A feed-forward block's first projection with r more neurons: ``[..., in]`` to ``[..., out + r]``."""

    def __init__(self, base: nn.Linear, rank: int):
        super().__init__()
        self.base = base
        self.adapter = nn.Linear(base.in_features, rank, device=base.weight.device, dtype=base.weight.dtype)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.base(x), self.adapter(x)], dim=-1)


class WiderDown(nn.Module):
    """The second projection with the columns of these neurons: ``[..., in + r]`` to ``[..., out]``."""

    def __init__(self, base: nn.Linear, rank: int):
        super().__init__()
        self.base = base
        self.adapter = nn.Linear(
            rank, base.out_features, bias=False, device=base.weight.device, dtype=base.weight.dtype
        )
        nn.init.zeros_(self.adapter.weight)

    def forward(self, x: Tensor) -> Tensor:
        own, more = x.split([self.base.in_features, self.adapter.in_features], dim=-1)
        return self.base(own) + self.adapter(more)


def _widen(layer: nn.Module, up: str, down: str, rank: int) -> None:
    _replace(layer, up, WiderUp(layer.get_submodule(up), rank))
    _replace(layer, down, WiderDown(layer.get_submodule(down), rank))


def has_adapters(model: nn.Module) -> bool:
    """Whether any such part is in the model."""
    return any(True for _ in adapter_names(model))


def adapter_names(model: nn.Module) -> list[str]:
    """The names of the parameters that were put in."""
    marks = (".lora_A.", ".lora_B.", ".ia3_l.", ".adapter.")
    return [name for name, _ in model.named_parameters() if any(mark in f".{name}" for mark in marks)]


def without_adapters(model: nn.Module, merge: bool) -> nn.Module:
    """The plain model, in place: without what was put in, or with it merged into the weights (the same outputs)."""
    if not has_adapters(model):
        return model
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            if merge:
                module.merge()
            _replace(model, name, module.get_base_layer())
        elif isinstance(module, WiderUp):
            _replace(model, name, _joined(module.base, module.adapter, 0) if merge else module.base)
        elif isinstance(module, WiderDown):
            _replace(model, name, _joined(module.base, module.adapter, 1) if merge else module.base)
    model.__dict__.pop("peft_config", None)
    return model


@torch.no_grad()
def _joined(base: nn.Linear, more: nn.Linear, dim: int) -> nn.Linear:
    weight = torch.cat([base.weight, more.weight], dim)
    joined = nn.Linear(weight.shape[1], weight.shape[0], device=weight.device, dtype=weight.dtype)
    joined.weight.copy_(weight)
    joined.bias.copy_(base.bias if more.bias is None else torch.cat([base.bias, more.bias]))
    return joined


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)

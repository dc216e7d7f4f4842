"""The head with which a model was pre-trained on masked words, where it has one: BERT's, RoBERTa's or DistilBERT's.

To go on with it saves the steps in which a new head learns what the old one knew, and disturbs the model below.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from nas_meta.evaluation.pretraining.objectives.base import PretrainingLoss

HEAD = "pretraining_head.safetensors"  # what nas-meta pretrain writes beside a model
# What a family calls the parts of the head that are here dense, norm and bias.
FAMILIES = (
    ("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "cls.predictions.bias"),
    ("lm_head.dense", "lm_head.layer_norm", "lm_head.bias"),
    ("vocab_transform", "vocab_layer_norm", "vocab_projector.bias"),
)


def restore_head(objective: PretrainingLoss, model: str) -> bool:
    """Gives an objective the head of a model (a folder or a hub name); returns whether there is one that fits."""
    own = {name: tensor.shape for name, tensor in objective.state_dict().items()}
    if not own:
        return False
    for found in (_tensors(model, HEAD, tuple(own)), *(_renamed(model, family) for family in FAMILIES)):
        if {name: tensor.shape for name, tensor in found.items()} == own:
            objective.load_state_dict(found)
            return True
    return False


def _renamed(model: str, family: tuple[str, str, str]) -> dict[str, Tensor]:
    tensors = _tensors(model, "model.safetensors", family)
    ours = dict(zip(family, ("dense", "norm", "bias"), strict=True))
    return {ours[part] + n.removeprefix(part): t for n, t in tensors.items() for part in family if n.startswith(part)}


def _tensors(model: str, file: str, beginnings: tuple[str, ...]) -> dict[str, Tensor]:
    """The tensors of a model's file whose names begin so."""
    from safetensors import SafetensorError, safe_open
    from transformers.utils import cached_file

    try:
        path = cached_file(model, file, local_files_only=not Path(model).is_dir())
        with safe_open(path, framework="pt") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys() if name.startswith(beginnings)}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError, TypeError):
        return {}

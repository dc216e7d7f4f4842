"""Reuse the masked-language-modelling head of a pretrained model: BERT's, RoBERTa's or DistilBERT's.

A new head would have to learn what the old one knew, and its first gradients would disturb the model under it.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from nas_meta.evaluation.pretraining.objectives.base import PretrainingLoss

HEAD = "pretraining_head.safetensors"  # written by nas-meta pretrain into the model's folder
# The names that each model family gives to the parts that the objective calls dense, norm and bias.
FAMILIES = (
    ("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "cls.predictions.bias"),
    ("lm_head.dense", "lm_head.layer_norm", "lm_head.bias"),
    ("vocab_transform", "vocab_layer_norm", "vocab_projector.bias"),
)


def restore_head(objective: PretrainingLoss, model: str) -> bool:
    """Load the head of a pretrained model into an objective, if the model has one that fits.

    A head that ``nas-meta pretrain`` wrote comes first, then the heads of ``FAMILIES``.

    Args:
        objective: The loss that gets the head, in place.
        model: A folder, or a hub name whose files are already in the local cache.

    Returns:
        Whether a head with the same shapes was found.
    """
    shapes = {name: tensor.shape for name, tensor in objective.state_dict().items()}
    if not shapes:
        return False
    for head in (_read_tensors(model, HEAD, tuple(shapes)), *(_family_head(model, family) for family in FAMILIES)):
        if {name: tensor.shape for name, tensor in head.items()} == shapes:
            objective.load_state_dict(head)
            return True
    return False


def _family_head(model: str, family: tuple[str, str, str]) -> dict[str, Tensor]:
    """Return the head of a model that belongs to a family, under the objective's names; empty if there is none."""
    tensors = _read_tensors(model, "model.safetensors", family)
    names = dict(zip(family, ("dense", "norm", "bias"), strict=True))
    return {names[part] + n.removeprefix(part): t for n, t in tensors.items() for part in family if n.startswith(part)}


def _read_tensors(model: str, file: str, prefixes: tuple[str, ...]) -> dict[str, Tensor]:
    """Return the tensors of a model's file whose names start with a prefix; empty if the file cannot be read."""
    from safetensors import SafetensorError, safe_open
    from transformers.utils import cached_file

    try:
        path = cached_file(model, file, local_files_only=not Path(model).is_dir())
        with safe_open(path, framework="pt") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys() if name.startswith(prefixes)}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError, TypeError):
        return {}

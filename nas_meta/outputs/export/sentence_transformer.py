"""The files with which Sentence Transformers and SetFit load an exported folder: pooling is part of the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

POOLINGS = {"mean": "mean_tokens", "cls": "cls_token", "last": "lasttoken"}
"""Names of poolings in Sentence Transformers; ``attention`` does not exist there."""
MODES = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")


def write_modules(folder: Path, pooling: str, width: int, max_tokens: int, normalized: bool) -> bool:
    """Write ``modules.json`` and the folders of the modules that follow the transformer.

    Args:
        folder: Folder of a text model and its tokenizer.
        pooling: Pooling of the model.
        width: Length of an embedding.
        max_tokens: Longest text that the model was trained on, in tokens.
        normalized: Whether embeddings are scaled to unit norm.

    Returns:
        Whether the files were written: transformers must know the model, or the folder must contain its code, and
        Sentence Transformers must know the pooling.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if pooling not in POOLINGS or "nas_meta_loading" in config:
        return False
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling"), *([("2_Normalize", "Normalize")] if normalized else [])]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds)
    ]
    for path, _ in kinds[1:]:
        (folder / path).mkdir()
    modes = {f"pooling_mode_{mode}": mode == POOLINGS[pooling] for mode in MODES}
    _write(folder / "modules.json", modules)
    _write(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": width, **modes})
    if normalized:
        _write(folder / "2_Normalize" / "config.json", {})
    _write(folder / "sentence_bert_config.json", {"max_seq_length": max_tokens, "do_lower_case": False})
    return True


def on_unit_sphere(options: Any) -> bool:
    """Return whether a learner scales embeddings to unit norm before it compares them.

    Args:
        options: Options of the learner. All learners do, unless ``normalize`` or ``scale`` turns it off.
    """
    if getattr(options, "scale", 1.0) is None:
        return False
    return getattr(options, "normalize", True) or getattr(options, "distance", None) == "cosine"


def with_padding(tokenizer: Any) -> Any:
    """Give a tokenizer without a padding token its end-of-sequence token for that; padding is masked.

    Args:
        tokenizer: A tokenizer of transformers, changed in place.

    Returns:
        The tokenizer, which can now tokenise batches.
    """
    if tokenizer.pad_token is None and tokenizer.eos_token is not None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _write(file: Path, content: object) -> None:
    file.write_text(json.dumps(content, indent=2), encoding="utf-8")

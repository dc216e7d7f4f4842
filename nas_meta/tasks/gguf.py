"""Conversion of causal language models from a GGUF file to a folder that transformers loads quickly."""

from __future__ import annotations

from pathlib import Path

from nas_meta.tasks.cache import converted


def convert_gguf(file: Path, sha256: str) -> Path:
    """Convert the model and tokenizer of a GGUF file to a transformers folder with fp32 safetensors.

    The conversion takes half a minute and is done once per user and file.

    Args:
        file: GGUF file of a causal language model.
        sha256: SHA-256 of the file in hexadecimal, which identifies the cached conversion.

    Returns:
        Folder that ``from_pretrained`` loads.

    Raises:
        ConfigError: The cache cannot be written.
    """
    return converted(f"{file.stem.lower()}-{sha256[:16]}", file.name, lambda folder: _convert(file, folder))


def _convert(file: Path, folder: Path) -> None:
    """Write the model and tokenizer of a GGUF file into a folder."""
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    source = {"gguf_file": file.name, "trust_remote_code": False}
    AutoTokenizer.from_pretrained(file.parent, **source).save_pretrained(folder)
    loaded = AutoModelForCausalLM.from_pretrained(file.parent, **source)
    # transformers marks the model as quantised and refuses to save it, although its weights are plain fp32.
    config = loaded.config
    del config.quantization_config
    plain = AutoModelForCausalLM.from_config(config)
    plain.load_state_dict(loaded.state_dict())
    plain.save_pretrained(folder)

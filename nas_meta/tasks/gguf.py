"""Conversion of causal language models from a GGUF file to a folder that transformers loads quickly.

The folder is cached. It is written under a temporary name and then renamed: other processes see all of it or nothing.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from nas_meta.errors import ConfigError

CACHE = "NAS_META_CACHE"


def cache_folder() -> Path:
    """Return the folder of converted models: ``$NAS_META_CACHE``, by default ``nas-meta`` in the user's cache."""
    path = os.environ.get(CACHE)
    return Path(path) if path else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nas-meta"


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
    folder = cache_folder() / f"{file.stem.lower()}-{sha256[:16]}"
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix="converting-", dir=folder.parent))
    except OSError as error:
        raise ConfigError(
            f"{folder.parent} cannot be written ({error.strerror}), but {file.name} must be converted once; "
            f"expected a writable folder in {CACHE}"
        ) from error
    try:
        _convert(file, part)
        # Atomic: if several processes convert at the same time, the first rename wins.
        part.rename(folder)
    except OSError as error:
        if not folder.is_dir():
            raise ConfigError(f"{folder} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


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

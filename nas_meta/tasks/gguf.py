"""Causal language models that come as one GGUF file, converted once to what transformers loads at once."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from nas_meta.errors import ConfigError

CACHE = "NAS_META_CACHE"


def cache_folder() -> Path:
    """Where converted models are kept: ``$NAS_META_CACHE``, or ``nas-meta`` in the user's cache."""
    own = os.environ.get(CACHE)
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nas-meta"


def convert_gguf(file: Path, sha256: str) -> Path:
    """The model and tokenizer of a GGUF file as a transformers folder with fp32 safetensors.

    Converting takes half a minute, so it is done once for each user and file; ``sha256`` is the file's.

    Raises:
        ConfigError: the cache cannot be written.
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
            f"expected another folder in {CACHE}"
        ) from error
    try:
        _convert(file, part)
        # Whole or not at all, also where several processes convert at a time: the first one wins.
        part.rename(folder)
    except OSError as error:
        if not folder.is_dir():
            raise ConfigError(f"{folder} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def _convert(file: Path, folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    given = {"gguf_file": file.name, "trust_remote_code": False}
    AutoTokenizer.from_pretrained(file.parent, **given).save_pretrained(folder)
    loaded = AutoModelForCausalLM.from_pretrained(file.parent, **given)
    # What was loaded counts as quantised and does not let itself be saved; its weights are plain fp32.
    config = loaded.config
    del config.quantization_config
    plain = AutoModelForCausalLM.from_config(config)
    plain.load_state_dict(loaded.state_dict())
    plain.save_pretrained(folder)

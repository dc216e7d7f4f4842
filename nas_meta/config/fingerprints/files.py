"""Digests of the files that a config names: the folders of pretrained models, and the files of plugins."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas_meta.config.plugin_trust import plugin_files
from nas_meta.core.files import regular_file
from nas_meta.core.paths import PLUGIN_FILE
from nas_meta.tasks.cache import sha256_of

if TYPE_CHECKING:
    from nas_meta.config.resolved import ResolvedConfig

HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
CONFIG = "config.json"
WEIGHTS = (("model*.safetensors*",), ("pytorch_model*.bin*",))  # the first kind that a folder has is the one loaded
TOKENIZER = (
    "tokenizer*.json", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges*", "*.model", "*.tiktoken",
    "tekken.json",
)  # fmt: skip
OWN_SECTIONS = ("space", "learner", "strategy", "stopping")  # the data of ``tasks`` are hashed after they were read


def digest_of(file: Path) -> str:
    """Return the SHA-256 of a file, which is read once per process unless it changes.

    Args:
        file: The file.

    Returns:
        The digest in hexadecimal.

    Raises:
        OSError: The file cannot be read.
    """
    status = regular_file(file).stat()
    return _digest(os.path.realpath(file), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=1024)
def _digest(path: str, size: int, modified: int) -> str:
    with open(path, "rb") as stream:
        return sha256_of(stream)


def named_models(resolved: ResolvedConfig) -> dict[str, tuple[str, dict[str, str]]]:
    """Return the digests of the pretrained models and tokenizers that a config names.

    Args:
        resolved: The config as the user wrote it, without what the run made.

    Returns:
        For each key of the config, such as ``space.model``, the name that it has, and the digest of each file that
        transformers loads. The models of packages, such as ``starter:minilm``, and hub models that are not in the local
        cache are left out.
    """
    models = {}
    for key, name in _named(resolved):
        folder = _folder_of(name)
        files = {} if folder is None else {file.name: digest_of(file) for file in _model_files(folder)}
        if files:
            models[key] = (name, files)
    return models


def missing_model(resolved: ResolvedConfig, key: str) -> str | None:
    """Return the absolute path that a key of a config names, if there is nothing at that path.

    Args:
        resolved: The config.
        key: A key, as :func:`named_models` returns it.
    """
    name = dict(_named(resolved)).get(key)
    return name if name is not None and os.path.isabs(name) and not os.path.exists(name) else None


def named_files(resolved: ResolvedConfig) -> dict[str, str]:
    """Return the digests of the plugin files that a config names, and of the files in the options of plugins.

    Args:
        resolved: The config.

    Returns:
        Digests by absolute path. What a plugin file imports is not included, and neither are the files of the data.
    """
    paths = {name.rpartition(":")[0] for name in plugin_files(resolved.document) if PLUGIN_FILE in name}
    paths |= {value for _, value in _named(resolved) if os.path.isabs(value)}
    digests = {}
    for path in sorted(paths):
        try:
            digests[path] = digest_of(Path(path).expanduser())
        except (OSError, ValueError):
            continue  # a folder, or a value that only looks like a path
    return digests


def file_differences(before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    """Yield a clause for each file of a model that differs.

    Args:
        before: Digests by file name when the run began.
        now: Digests as they are.

    Yields:
        Such as ``model.safetensors differs from the file that the run began with``.
    """
    for name in sorted({*before, *now}):
        if name not in now:
            yield f"{name} is gone"
        elif name not in before:
            yield f"{name} is new"
        elif before[name] != now[name]:
            yield f"{name} differs from the file that the run began with"


def _named(resolved: ResolvedConfig) -> Iterator[tuple[str, str]]:
    """Yield all text values in the options of plugins, and the models that other sections name, with their keys."""
    for section in OWN_SECTIONS:
        yield from _texts(section, resolved.options[section].model_dump(mode="json"))
    pretraining = resolved.sections.pretraining
    if pretraining is not None and isinstance(pretraining.inherit, str):
        yield "pretraining.inherit", pretraining.inherit
    final = resolved.sections.final_training
    if final is not None and final.distill is not None and final.distill.model is not None:
        yield "final_training.distill.model", final.distill.model


def _texts(key: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, (Mapping, list)):
        for name, inner in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _texts(f"{key}.{name}", inner)


def _folder_of(name: str) -> Path | None:
    """Return the folder that transformers loads for a name; None if it is not a folder or a hub model in the cache."""
    if os.path.isabs(name):
        return Path(name) if os.path.isdir(name) else None
    if not HUB_NAME.fullmatch(name):
        return None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(name, CONFIG)
    except HFValidationError:
        return None
    return Path(cached).parent if isinstance(cached, str) else None


def _model_files(folder: Path) -> list[Path]:
    """Return the config, the weights and the tokenizer files in a folder; other files do not influence the model."""
    weights = next((found for patterns in WEIGHTS if (found := _matching(folder, patterns))), [])
    return [file for file in (*_matching(folder, (CONFIG,)), *weights, *_matching(folder, TOKENIZER)) if file.is_file()]


def _matching(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    return sorted({file for pattern in patterns for file in folder.glob(pattern)})

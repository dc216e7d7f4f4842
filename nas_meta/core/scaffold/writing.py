"""Writes the starting point of a plugin to the current folder."""

from __future__ import annotations

import keyword
import re
from dataclasses import dataclass
from pathlib import Path

from nas_meta.core.scaffold import learner, space, strategy
from nas_meta.errors import ConfigError

TEMPLATES = {
    "space": (space.PLUGIN, None),
    "strategy": (strategy.PLUGIN, strategy.CONFIG),
    "learner": (learner.PLUGIN, learner.CONFIG),
}
"""The text of the plugin, and that of a config which uses it, by the kind of plugin."""


@dataclass(frozen=True)
class Written:
    """Files that were written.

    Attributes:
        file: The plugin.
        class_name: Its class.
        config: A config that uses it; None if there is none.
    """

    file: Path
    class_name: str
    config: Path | None = None


def write_plugin(kind: str, name: str, folder: Path = Path()) -> Written:
    """Write a working plugin, and for strategies and learners a config of a search with it.

    Args:
        kind: A key of :data:`TEMPLATES`.
        name: Name of the plugin in any style, such as ``TinyEncoder``, ``tiny-encoder`` or ``tiny encoder``. The file
            becomes ``tiny_encoder.py``, the class ``TinyEncoder`` and the config ``tiny_encoder.yaml``.
        folder: Folder for the files; by default the current one.

    Returns:
        The files and the name of the class.

    Raises:
        ConfigError: The name cannot become the name of a class, or a file exists already.
    """
    words = re.findall(r"[A-Za-z][a-z0-9]*|[A-Z0-9]+", name)
    class_name = "".join(w[0].upper() + w[1:] for w in words)
    if not class_name.isidentifier() or keyword.iskeyword(class_name):
        raise ConfigError(f"'{name}' cannot name a class; expected letters and digits, such as TinyEncoder")
    stem = "_".join(w.lower() for w in words)
    plugin, config = TEMPLATES[kind]
    texts = {folder / f"{stem}.py": plugin}
    if config is not None:
        texts[folder / f"{stem}.yaml"] = config
    for file in texts:
        if file.exists():
            raise ConfigError(f"{file} exists already; choose another name")
    for file, text in texts.items():
        file.write_text(text.format(name=class_name, file=f"{stem}.py", config=f"{stem}.yaml"), encoding="utf-8")
    files = list(texts)
    return Written(files[0], class_name, files[1] if len(files) > 1 else None)

"""The starting point of a search-space plugin, as ``nas-meta space new`` writes it."""

from __future__ import annotations

import re
from pathlib import Path

from nas_meta.errors import ConfigError

TEMPLATE = '''"""A search space for nas-meta. Check it: nas-meta space check {file}:{name}"""

from transformers import BertConfig, BertModel

from nas_meta import SearchSpace


class {name}(SearchSpace):
    """Small encoders from scratch: how deep, how many heads, how wide."""

    def choices(self):
        return {{"depth": [1, 2, 3], "heads": [2, 4], "width": [64, 128, 256]}}

    def build(self, architecture):
        return BertModel(
            BertConfig(
                hidden_size=128,
                num_hidden_layers=architecture["depth"],
                num_attention_heads=architecture["heads"],
                intermediate_size=architecture["width"],
            )
        )
'''


def write_space(name: str, folder: Path = Path()) -> tuple[Path, str]:
    """Write a working search-space plugin.

    Args:
        name: Name of the space in any style, such as ``TinyEncoder``, ``tiny-encoder`` or ``tiny encoder``. The file
            becomes ``tiny_encoder.py`` and the class ``TinyEncoder``.
        folder: Folder for the file; by default the current one.

    Returns:
        The path of the file and the name of the class.

    Raises:
        ConfigError: The name cannot become the name of a class, or the file exists already.
    """
    words = re.findall(r"[A-Za-z][a-z0-9]*|[A-Z0-9]+", name)
    class_name = "".join(w[0].upper() + w[1:] for w in words)
    if not class_name.isidentifier():
        raise ConfigError(f"'{name}' cannot name a class; expected letters and digits, such as TinyEncoder")
    file = folder / ("_".join(w.lower() for w in words) + ".py")
    if file.exists():
        raise ConfigError(f"{file} exists already; choose another name")
    file.write_text(TEMPLATE.format(name=class_name, file=file.name), encoding="utf-8")
    return file, class_name

"""Which code an exported folder names: only code that its search space wrote into the folder.

A pretrained model keeps what its own folder says about code, such as ``auto_map``, and writes it again when it is
saved. That code was never run here, and whoever loads the export should not run it either.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CONFIGS = ("*config.json", "*processor*.json")
AUTO_MAP, PIPELINES, LOADING = "auto_map", "custom_pipelines", "nas_meta_loading"
WRITER = "transformers_version"  # in every config that transformers wrote


def drop_foreign_code(folder: Path) -> None:
    """Remove from the configs of a folder the names of all code that is not in the folder.

    Args:
        folder: Hugging Face folder, as the space and the tokenizer saved it.
    """
    for file in sorted({path for pattern in CONFIGS for path in folder.rglob(pattern)}):
        before = json.loads(file.read_text(encoding="utf-8"))
        after = _without_foreign(before, file.parent)
        if after != before:
            file.write_text(json.dumps(after, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def names_code(folder: Path) -> bool:
    """Return whether ``AutoModel`` needs ``trust_remote_code=True`` to load a folder.

    Args:
        folder: Hugging Face folder without foreign code.
    """
    return AUTO_MAP in json.loads((folder / "config.json").read_text(encoding="utf-8"))


def _without_foreign(value: Any, folder: Path) -> Any:
    """Return JSON without the names of foreign code, nested configs included."""
    if isinstance(value, list):
        return [_without_foreign(inner, folder) for inner in value]
    if not isinstance(value, Mapping):
        return value
    kept = {}
    for key, inner in value.items():
        if key == AUTO_MAP and isinstance(inner, Mapping):
            inner = {name: code for name, code in inner.items() if _is_in(code, folder)}
            if inner:
                kept[key] = inner
        # A space writes the code that loads its model only if transformers does not write the config.
        elif key not in (AUTO_MAP, PIPELINES) and not (key == LOADING and WRITER in value):
            kept[key] = _without_foreign(inner, folder)
    return kept


def _is_in(code: Any, folder: Path) -> bool:
    """Return whether ``module.Class``, or each of a list of them, names a file of the folder."""
    if isinstance(code, list):
        return any(code) and all(each is None or _is_in(each, folder) for each in code)
    module, _, name = code.rpartition(".") if isinstance(code, str) else ("", "", "")
    return module.isidentifier() and name.isidentifier() and (folder / f"{module}.py").is_file()

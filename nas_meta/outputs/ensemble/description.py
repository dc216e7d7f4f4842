"""The file that describes an ensemble: its members, which are folders beside it, their weights and temperatures."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nas_meta.core.files import regular_file
from nas_meta.errors import ConfigError

ENSEMBLE = "ensemble.json"
VERSION = 1
MOST_BYTES = 1024**2


@dataclass(frozen=True)
class Member:
    """One model of an ensemble.

    Attributes:
        folder: Name of its exported folder, inside the folder of the ensemble.
        weight: How often it was selected.
        temperatures: By number of classes, what its logits are divided by.
    """

    folder: str
    weight: int
    temperatures: dict[int, float]


@dataclass(frozen=True)
class Description:
    """What the folder of an ensemble says of itself.

    Attributes:
        members: The models.
        measured: Accuracies and latencies on the judging half, for people.
    """

    members: list[Member]
    measured: dict[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write ``ensemble.json``.

        Args:
            folder: Existing folder.
        """
        members = [vars(member) for member in self.members]
        document = {"version": VERSION, "members": members, "measured": self.measured}
        (folder / ENSEMBLE).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def read_ensemble(folder: Path) -> Description:
    """Read the description of an ensemble.

    Args:
        folder: Folder that ``nas-meta ensemble`` wrote.

    Returns:
        The description.

    Raises:
        ConfigError: The file is damaged, or a newer version wrote it.
    """
    file = folder / ENSEMBLE
    try:
        document = json.loads(regular_file(file, MOST_BYTES).read_text(encoding="utf-8"))
        version = document["version"]
        members = [_member(row) for row in document["members"]] if version == VERSION else []
        measured = dict(document["measured"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{file} is damaged; expected what 'nas-meta ensemble' wrote") from error
    if version != VERSION:
        raise ConfigError(f"{file} has the version {version!r}; expected {VERSION}, or a newer nas-meta")
    if not members:
        raise ConfigError(f"{file} names no members; expected what 'nas-meta ensemble' wrote")
    for member in members:
        if not (folder / member.folder).is_dir():
            raise ConfigError(f"{file} names the member '{member.folder}', which is not a folder in {folder}")
    return Description(members, measured)


def _member(row: dict[str, Any]) -> Member:
    """Return a member; a ValueError if something is wrong with it."""
    name, weight = row["folder"], row["weight"]
    temperatures = {int(ways): float(value) for ways, value in row["temperatures"].items()}
    inside = isinstance(name, str) and name not in ("", ".", "..") and not set(name) & set("/\\\0")
    positive = all(0 < value < float("inf") for value in temperatures.values()) and temperatures
    if not inside or not positive or not isinstance(weight, int) or isinstance(weight, bool) or weight < 1:
        raise ValueError("member")
    return Member(name, weight, temperatures)

"""The fingerprint of labelled data, and the difference between two of them in words.

Data are hashed class by class as they were read, cleaned and split, so the fingerprint does not depend on the path, the
format or the modification time of a file, and a difference can be named.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from nas_meta.core.wording import counted
from nas_meta.tasks.source import SPLITS

if TYPE_CHECKING:
    from nas_meta.tasks.pool import Pool, Tasks

DIGITS = 16  # of the digest of a class, in hexadecimal

DataFingerprint = Mapping[str, Mapping[str, Sequence[int | str]]]
"""For each split and each of its classes: the number of examples, and the digest of the examples in their order."""


def fingerprint_of_tasks(tasks: Tasks) -> DataFingerprint:
    """Return the fingerprint of the examples of a search.

    Args:
        tasks: The tasks, read by their source. Tokens are not part of the fingerprint.

    Returns:
        The fingerprint, as plain data.
    """
    return {
        split: {
            name: [len(members), _digest(pool, members.tolist(), pool.groups[label] if pool.groups else "")]
            for label, (name, members) in enumerate(zip(pool.classes, pool.members, strict=True))
        }
        for split, pool in tasks.pools.items()
    }


def names_digest(tasks: Tasks) -> str | None:
    """Return the digest of the names of all classes in words, which a task source may choose freely.

    Args:
        tasks: The tasks, as a search uses them.

    Returns:
        The digest; None if no model reads the names, in support sets or in prompts.
    """
    pools = [tasks[split] for split in SPLITS]
    if not any(pool.name_rows is not None or pool.prompts for pool in pools):
        return None
    return hashlib.sha256(json.dumps([list(pool.names) for pool in pools]).encode()).hexdigest()[:DIGITS]


def _digest(pool: Pool, members: Sequence[int], group: str) -> str:
    """Hash the group and the examples of a class; each part follows its length, so no two lists have the same bytes."""
    digest = hashlib.sha256()

    def add(data: bytes) -> None:
        digest.update(len(data).to_bytes(8, "little") + data)

    add(group.encode())
    for index in members:
        if len(pool.texts):
            add(pool.texts[index].encode())
        if pool.pixels is not None:
            add(repr(pool.pixels[index].shape).encode())
            add(pool.pixels[index].tobytes())
    return digest.hexdigest()[:DIGITS]


def data_difference(before: DataFingerprint, now: DataFingerprint) -> str | None:
    """Return in words how data differ from what they were.

    Args:
        before: The fingerprint of a run.
        now: The fingerprint of the data as they are.

    Returns:
        A clause such as ``meta-train had 1,200 examples of 40 classes and now has 1,210 of 41; class 'x' is new``; None
        if the fingerprints are equal.
    """
    if _in_order(before) == _in_order(now):
        return None
    return "; ".join(_clauses(before, now)) or "the classes are in another order"


def same_counts(before: DataFingerprint, now: DataFingerprint) -> bool:
    """Return whether two fingerprints have the same classes with the same numbers of examples in each split."""
    counts = [
        {split: {name: entry[0] for name, entry in classes.items()} for split, classes in data.items()}
        for data in (before, now)
    ]
    return counts[0] == counts[1]


def _in_order(data: DataFingerprint) -> list[tuple[str, list[tuple[str, list[int | str]]]]]:
    return [(split, [(name, list(entry)) for name, entry in data.get(split, {}).items()]) for split in SPLITS]


def _clauses(before: DataFingerprint, now: DataFingerprint) -> Iterator[str]:
    """Yield the numbers that differ, then the classes: new, gone, in another split, longer or shorter, changed."""
    sizes = [{split: _size(data.get(split, {})) for split in SPLITS} for data in (before, now)]
    splits = [split for split in SPLITS if sizes[0][split] != sizes[1][split]]
    for split in splits:
        (examples, classes), (others, other_classes) = sizes[0][split], sizes[1][split]
        had = f"{counted(examples, 'example')} of {counted(classes, 'class', 'classes')}"
        yield f"{split} had {had} and now has {others:,} of {other_classes:,}"
    old, new = _by_class(before), _by_class(now)
    shared = [name for name in old if name in new]
    if added := [name for name in new if name not in old]:
        yield f"{_classes(added)} new"
    if gone := [name for name in old if name not in new]:
        yield f"{_classes(gone)} gone"
    if moved := [name for name in shared if old[name][0] != new[name][0]]:
        yield f"{_classes(moved)} in another split"
    if resized := [name for name in shared if old[name][1] != new[name][1]]:
        first = resized[0]
        more = f"; the number differs in {len(resized) - 1} more" if len(resized) > 1 else ""
        yield f"class '{first}' had {counted(old[first][1], 'example')} and now has {new[first][1]:,}{more}"
    changed = [name for name in shared if old[name][1] == new[name][1] and old[name][2] != new[name][2]]
    if changed:
        more = f" and of {len(changed) - 1} more" if len(changed) > 1 else ""
        yield f"the examples of class '{changed[0]}'{more} are others, or in another order"


def _size(classes: Mapping[str, Sequence[int | str]]) -> tuple[int, int]:
    return sum(int(entry[0]) for entry in classes.values()), len(classes)


def _by_class(data: DataFingerprint) -> dict[str, tuple[str, int, str]]:
    """Return split, number of examples and digest of every class."""
    return {
        name: (split, int(entry[0]), str(entry[1])) for split in SPLITS for name, entry in data.get(split, {}).items()
    }


def _classes(names: Sequence[str]) -> str:
    """Return some classes as a subject with its verb."""
    if len(names) == 1:
        return f"class '{names[0]}' is"
    return f"class '{names[0]}' and {len(names) - 1} more are"

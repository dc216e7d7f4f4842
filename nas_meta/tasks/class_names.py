"""Class names: spellings of one class, and names in words."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

from nas_meta.tasks.examples import Example, normalised

WORDS = re.compile(r"(?<=[a-z0-9]{2})(?=[A-Z])")  # where a capital letter begins a word, but not in iPhone


def in_words(name: str) -> str:
    """Return a class name as words.

    Example: ``card_lost`` and ``card-lost`` become ``card lost``, and ``CardLost`` becomes ``Card Lost``.

    Args:
        name: The name.

    Returns:
        The name with spaces for underscores, hyphens between words and changes to capital letters, unless it has
        spaces already; the name itself if nothing else remained.
    """
    spaced = name.replace("_", " ").strip()
    if " " not in name.strip():
        spaced = WORDS.sub(" ", spaced.replace("-", " ")).strip()
    return " ".join(spaced.split()) or name


def are_words(names: Sequence[str]) -> bool:
    """Return whether class names say what the classes are about, unlike ``3``, ``A07`` or ``class 3``.

    Args:
        names: The names of all classes.
    """
    without_digits = {re.sub(r"[\W\d_]+", "", name.lower()) for name in names}
    return len(without_digits) == len(names) and all(len(name) >= 3 for name in without_digits)


def merge_names(classes: Mapping[str, Sequence[Example]]) -> tuple[dict[str, list[Example]], dict[str, str]]:
    """Normalise class names, and merge the classes whose names become equal.

    Args:
        classes: Examples by class.

    Returns:
        Examples by normalised name, and the normalised name of every other spelling that was merged into a class.
    """
    merged: dict[str, list[Example]] = defaultdict(list)
    spellings: dict[str, list[str]] = defaultdict(list)
    for name, examples in classes.items():
        merged[normalised(name)] += examples
        spellings[normalised(name)].append(name)
    others = {
        spelling: name
        for name, found in spellings.items()
        if len(found) > 1
        for spelling in (found if name in found else found[1:])
        if spelling != name
    }
    return dict(merged), others


def merge_report(others: Mapping[str, str]) -> list[str]:
    """Return the sentence that reports merged class names.

    Args:
        others: Normalised name by each spelling that was merged, as :func:`merge_names` returns it.

    Returns:
        One sentence with up to three examples; none if nothing was merged.
    """
    if not others:
        return []
    some = ", ".join(f"{_shown(other, name)} into '{name}'" for other, name in list(others.items())[:3])
    rest = f" and {len(others) - 3} more" if len(others) > 3 else ""
    return [f"class names that differ in white space or Unicode form alone merged: {some}{rest}"]


def _shown(spelling: str, name: str) -> str:
    """Quote a spelling so that its difference to the name can be seen."""
    return f"'{spelling}'" if spelling.strip() == name else ascii(spelling)

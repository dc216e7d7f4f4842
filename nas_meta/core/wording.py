"""Words of sentences that hold numbers."""

from __future__ import annotations


def counted(count: int, one: str, several: str = "") -> str:
    """Return a number with its noun, in the singular for 1.

    Args:
        count: The number.
        one: The noun in the singular.
        several: The noun in the plural; by default the singular with an ``s``.

    Returns:
        Words such as ``1 class`` or ``12,000 texts``.
    """
    return f"{count:,} {one if count == 1 else several or one + 's'}"

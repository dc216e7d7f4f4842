"""Labels as users have them: strings, integers or booleans, whose type the classifier keeps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from nas_meta.core.guard import type_name
from nas_meta.errors import DataError

Label = str | int | bool


def plain_labels(labels: Iterable[Any]) -> list[Label]:
    """Return labels as Python's own types.

    Args:
        labels: Strings, integers or booleans, all of one type; also as an array or a column of a table.

    Returns:
        The labels.

    Raises:
        DataError: A label has another type, or there are several types.
    """
    if isinstance(labels, str) or not isinstance(labels, Iterable):
        raise DataError(f"labels is {type_name(labels)}; expected one label per example")
    plain = [label.item() if isinstance(label, np.generic) else label for label in labels]
    for label in plain:
        if type(label) not in (str, int, bool):
            raise DataError(f"a label is {label!r}; expected strings, integers or booleans")
    kinds = sorted({type(label).__name__ for label in plain})
    if len(kinds) > 1:
        raise DataError(f"the labels have the types {' and '.join(kinds)}; expected labels of one type")
    return plain


def label_array(labels: Sequence[Label]) -> np.ndarray:
    """Return labels as an array of their own type.

    Args:
        labels: What :func:`plain_labels` returned.

    Returns:
        ``[M]`` array of strings, 64-bit integers or booleans; of objects if an integer has more bits.
    """
    try:
        array = np.array(labels)
    except OverflowError:
        return np.array(labels, dtype=object)
    return array if array.dtype.kind in "Uib" else np.array(labels, dtype=object)

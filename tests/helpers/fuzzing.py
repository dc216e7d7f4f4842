"""Shared parts of the fuzz tests: junk values, numbers of cases, and the property that every case must satisfy."""

import os

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from nas_meta.errors import NasMetaError

TEXTS = [
    "",
    "a\0b",
    "a\nb",
    "\u202e\u0000",
    "é" * 300,
    "x" * 100_000,
    "[/red]",
    "\x1b[31m",
    "../../etc/passwd",
    "nan",
    "~no one",
]
NUMBERS = [0, -1, 1, 2, 10**400, -(10**30), 2**63, 1e308, -0.0, 5e-324, float("nan"), float("inf"), True]
junk = st.recursive(
    st.none() | st.booleans() | st.sampled_from(NUMBERS) | st.sampled_from(TEXTS) | st.integers() | st.floats()
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


def tried(fast: int, slow: int):
    """Mark a property test to run with few cases, and with many cases as a slow test: ``@tried(100, 5000)``.

    The test receives the number as ``cases`` and decorates its property with ``@many(cases)``.

    Args:
        fast: Number of cases in the fast suite.
        slow: Number of cases in the slow suite.

    Returns:
        A pytest mark.
    """
    return pytest.mark.parametrize("cases", [fast, pytest.param(slow, marks=pytest.mark.slow)])


def many(cases: int):
    """Return the Hypothesis settings of a property.

    Args:
        cases: Number of cases to generate.

    Returns:
        Settings without deadlines. Cases are the same in every run, unless ``NAS_META_FUZZ`` is set.
    """
    quiet = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]
    return settings(
        max_examples=cases, deadline=None, suppress_health_check=quiet, database=None, print_blob=False,
        derandomize="NAS_META_FUZZ" not in os.environ,  # set it to try new cases
    )  # fmt: skip


def sentence(function, *arguments, **options):
    """Call a function that either succeeds or raises a :class:`NasMetaError` whose message is one printable line.

    Args:
        function: The function to call.
        *arguments: Its positional arguments.
        **options: Its keyword arguments.

    Returns:
        The result of the function, or ``None`` after a :class:`NasMetaError`. Any other exception propagates.
    """
    try:
        return function(*arguments, **options)
    except NasMetaError as error:
        message = str(error)
        assert message and message.isprintable() and len(message) < 2000, repr(message)
        return None


def spoiled(document, data):
    """Corrupt a document at one random place.

    Args:
        document: Nested dictionaries and lists; changed in place.
        data: The ``data()`` strategy of Hypothesis, which draws the place and the change.

    Returns:
        The document, with one value replaced, added, renamed or removed.
    """
    paths = list(_paths(document))
    holder, key = data.draw(st.sampled_from(paths))
    change = data.draw(st.sampled_from(["replace", "replace", "add", "rename", "remove"]))
    if change == "replace":
        holder[key] = data.draw(junk)
    elif change == "remove":
        del holder[key]
    elif isinstance(holder, list):
        holder.insert(key, data.draw(junk))
    else:
        name = data.draw(st.sampled_from([str(key)[:-1], f"{key}s", "choice", "name"]) | st.text(max_size=10))
        holder[name] = data.draw(junk) if change == "add" else holder.pop(key)
    return document


def _paths(value):
    """Yield every container in a document with each of its keys or indices."""
    for key, inner in list(value.items() if isinstance(value, dict) else enumerate(value)):
        yield value, key
        if isinstance(inner, (dict, list)):
            yield from _paths(inner)

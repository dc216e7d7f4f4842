"""What the fuzz tests share: junk values, how many cases are tried, and the property that holds for all of them."""

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
    """Marks a property for a few cases, and again for many with the slow tests: ``@tried(100, 5000)``.

    The test takes their number as ``cases``, and its property is run under :func:`many` of it.
    """
    return pytest.mark.parametrize("cases", [fast, pytest.param(slow, marks=pytest.mark.slow)])


def many(cases: int):
    """Hypothesis' settings for so many cases."""
    quiet = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]
    return settings(
        max_examples=cases, deadline=None, suppress_health_check=quiet, database=None, print_blob=False,
        derandomize="NAS_META_FUZZ" not in os.environ,  # set it for cases that nobody has tried
    )  # fmt: skip


def sentence(function, *arguments, **options):
    """The result of a function, or None where it ended with one of our errors, in one line that says something."""
    try:
        return function(*arguments, **options)
    except NasMetaError as error:
        said = str(error)
        assert said and said.isprintable() and len(said) < 2000, repr(said)
        return None


def spoiled(document, data):
    """A document with one value replaced, added, renamed or removed somewhere, drawn by hypothesis."""
    paths = list(_paths(document))
    holder, key = data.draw(st.sampled_from(paths))
    way = data.draw(st.sampled_from(["replace", "replace", "add", "rename", "remove"]))
    if way == "replace":
        holder[key] = data.draw(junk)
    elif way == "remove":
        del holder[key]
    elif isinstance(holder, list):
        holder.insert(key, data.draw(junk))
    else:
        name = data.draw(st.sampled_from([str(key)[:-1], f"{key}s", "choice", "name"]) | st.text(max_size=10))
        holder[name] = data.draw(junk) if way == "add" else holder.pop(key)
    return document


def _paths(value):
    for key, inner in list(value.items() if isinstance(value, dict) else enumerate(value)):
        yield value, key
        if isinstance(inner, (dict, list)):
            yield from _paths(inner)

"""What a strategy and a plugin author rely on: architectures are canonical, checked and counted."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas_meta.errors import ConfigError
from nas_meta.space.architecture import Architecture, Choice
from nas_meta.space.enumeration import assignments, count
from nas_meta.space.search_space import SearchSpace


class Toy(SearchSpace):
    def choices(self):
        return {
            "keep": [True, False],
            "heads": Choice([2, 4], when={"keep": True}),
            "width": [8, 16, 32],
        }

    def build(self, architecture):
        raise AssertionError("not built here")


def test_choices_without_effect_do_not_change_the_id():
    space = Toy()
    one = space.architecture({"keep": False, "heads": 2, "width": 8})
    other = space.architecture({"keep": False, "heads": 4, "width": 8})
    assert one == other and one.id == other.id and "heads" not in one.values
    assert one.id != space.architecture({"keep": True, "heads": 4, "width": 8}).id


@given(st.permutations(["keep", "heads", "width"]))
def test_the_id_ignores_the_order_of_choices(order):
    values = {"keep": True, "heads": 2, "width": 16}
    assert Toy().architecture({n: values[n] for n in order}).id == Toy().architecture(values).id


def test_the_number_of_architectures_equals_enumeration():
    space = Toy()
    everything = itertools.product([True, False], [2, 4], [8, 16, 32])
    distinct = {space.architecture({"keep": k, "heads": h, "width": w}) for k, h, w in everything}
    assert space.size() == len(distinct) == (2 + 1) * 3


class Nested(Toy):
    """Two groups: a chain of three conditions, one of two values, and a choice that hangs on two others."""

    def choices(self):
        return {
            "kind": ["none", "small", "large"],
            "heads": Choice([2, 4], when={"kind": ("small", "large")}),
            "width": Choice([8, 16, 32], when={"heads": 4}),
            "extra": Choice([1, 2], when={"kind": "large", "width": (8, 16)}),
            "norm": ["pre", "post"],
            "bias": Choice([True, False], when={"norm": "pre"}),
        }


def test_conditions_of_conditions_are_counted_within_their_group():
    small = 1 + 3  # two heads, or four and a width
    large = 1 + 2 * 2 + 1  # of the widths two have an extra
    assert Nested().size() == len(set(Nested().walk())) == (1 + small + large) * (2 + 1)


def test_the_examples_of_the_docstrings_are_counted_and_enumerated():
    layer = {"keep": Choice((True, False)), "heads": Choice((2, 4), when={"keep": True})}
    expected = [{"keep": True, "heads": 2}, {"keep": True, "heads": 4}, {"keep": False}]
    assert list(assignments(layer)) == expected
    assert count(layer | {"width": Choice((8, 16, 32))}) == 9
    depth = {
        "depth": Choice((1, 2)),
        "a": Choice(("x", "y"), when={"depth": (1, 2)}),
        "b": Choice(("x", "y"), when={"depth": 2}),
    }
    assert count(depth) == len(list(assignments(depth))) == 6


def test_a_small_space_is_counted_within_its_constraints_a_large_one_before_them():
    class Constrained(Toy):
        def problem(self, architecture):
            return "too wide" if architecture["width"] == 32 else None

    class Large(Constrained):
        def choices(self):
            return {**super().choices(), **{f"more{i}": [1, 2, 3] for i in range(20)}}

    assert Constrained().size() == 3 * 2
    assert Large().size() == 9 * 3**20


def test_what_is_one_model_has_one_architecture():
    class Sum(Toy):
        """A sum does not depend on the order of its terms."""

        def choices(self):
            return {"a": [1, 2, 3], "b": [1, 2, 3]}

        def representative(self, architecture):
            return Architecture(dict(zip("ab", sorted(architecture.values.values()), strict=True)))

    space = Sum()
    assert space.architecture({"a": 3, "b": 1}) == space.architecture({"a": 1, "b": 3})
    assert space.size() == len(list(space.walk())) == 6
    rng = np.random.default_rng(0)
    assert {space.sample(rng) for _ in range(100)} == set(space.walk())


@pytest.mark.parametrize("values", [[1, 1.0], [0, False], ["x", "x"]])
def test_values_that_are_equal_are_refused(values):
    class Twice(Toy):
        def choices(self):
            return {"a": values}

    with pytest.raises(ConfigError, match="choice 'a' lists a value twice"):
        Twice().size()


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"keep": True, "heads": 3, "width": 8}, "'heads' cannot be 3; expected one of 2, 4"),
        ({"keep": True, "width": 8}, "has no value for the choice 'heads' of Toy"),
        ({"keep": 1, "heads": 2, "width": 8}, "'keep' cannot be 1"),
        ({"keep": False, "width": 8, "widht": 8}, "did you mean 'width'"),
    ],
)
def test_wrong_architectures_are_refused_in_words(values, sentence):
    with pytest.raises(ConfigError, match=sentence):
        Toy().architecture(values)


def test_a_circle_of_conditions_is_named():
    class Circle(Toy):
        def choices(self):
            return {"a": Choice([1, 2], when={"b": 1}), "b": Choice([1, 2], when={"a": 1})}

    with pytest.raises(ConfigError, match="the conditions of choices form a cycle"):
        Circle().size()

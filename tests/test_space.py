"""What a strategy and a plugin author rely on: architectures are canonical, checked and counted."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas_meta.errors import ConfigError
from nas_meta.space import Choice, SearchSpace


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


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"keep": True, "heads": 3, "width": 8}, "'heads' cannot be 3; expected one of 2, 4"),
        ({"keep": True, "width": 8}, "leaves out 'heads'"),
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

    with pytest.raises(ConfigError, match="circle"):
        Circle().size()

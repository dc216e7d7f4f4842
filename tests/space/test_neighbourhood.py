"""Mutations and neighbours, against brute force over random spaces with conditions and constraints."""

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_spaces import spaces

from nas_meta import Architecture, Choice, SearchSpace
from nas_meta.core.objectives import Limit
from nas_meta.space.wrappers import JointSpace, LimitedSpace

few = settings(max_examples=60, suppress_health_check=list(HealthCheck))


class Layers(SearchSpace):
    """One or two layers, each with a width; two layers of width 3 are too wide together."""

    def choices(self):
        return {"depth": [1, 2], "width0": [1, 2, 3], "width1": Choice([1, 2, 3], when={"depth": 2})}

    def build(self, architecture):
        raise AssertionError("a table, not a model")

    def problem(self, architecture):
        return "it is too wide" if architecture.values.get("width1") == architecture["width0"] == 3 else None

    def counts(self, architecture, tokens):
        return {"params": float(sum(architecture.values.values()))}


class Sorted(Layers):
    """The order of the two widths does not matter."""

    def representative(self, architecture):
        values = dict(architecture.values)
        if "width1" in values:
            values["width0"], values["width1"] = sorted((values["width0"], values["width1"]))
        return Architecture(values)


def arch(*values):
    return Architecture(dict(zip(("depth", "width0", "width1"), values, strict=False)))


def test_neighbours_differ_in_one_choice_and_new_layers_get_their_first_value():
    assert list(Layers().neighbours(arch(1, 2))) == [arch(2, 2, 1), arch(1, 1), arch(1, 3)]
    assert list(Layers().neighbours(arch(2, 3, 2))) == [arch(1, 3), arch(2, 1, 2), arch(2, 2, 2), arch(2, 3, 1)]


def test_neighbours_that_are_the_same_architecture_are_yielded_once():
    assert list(Sorted().neighbours(arch(2, 1, 2))) == [arch(1, 1), arch(2, 2, 2), arch(2, 2, 3), arch(2, 1, 1),
                                                        arch(2, 1, 3)]  # fmt: skip


def test_wrapped_spaces_keep_their_limits_and_change_hyperparameters_too():
    joint = JointSpace(LimitedSpace(Layers(), [Limit("params", most=4)], 8), {"learner.lr": Choice([0.1, 0.2])})
    middle = Architecture({"depth": 1, "width0": 2, "learner.lr": 0.1})
    expected = [{"width0": 1}, {"width0": 3}, {"learner.lr": 0.2}]  # two layers would have five parameters
    assert list(joint.neighbours(middle)) == [Architecture({**middle.values, **change}) for change in expected]
    rng = np.random.default_rng(0)
    assert {joint.mutate(middle, rng) for _ in range(100)} == set(joint.neighbours(middle))


def changed(one, other):
    """The choices with an effect in both architectures whose values differ."""
    return {name for name, value in one.values.items() if other.values.get(name, value) != value}


@few
@given(spaces, st.integers(0, 99))
def test_neighbours_are_the_architectures_one_change_away(space, seed):
    middle = space.sample(np.random.default_rng(seed))
    first = {name: choice.values[0] for name, choice in space.table.items()}
    expected = {
        other for other in space.walk()
        if len(changed(middle, other)) == 1
        # What the change brings into effect has its first value.
        and all(other[name] == first[name] for name in other.values if name not in middle.values)
    }  # fmt: skip
    found = list(space.neighbours(middle))
    assert len(found) == len(set(found))
    assert set(found) == expected


@few
@given(spaces, st.integers(0, 99))
def test_a_mutation_is_in_the_space_and_depends_on_the_seed_alone(space, seed):
    middle = space.sample(np.random.default_rng(seed))
    for changes in (1, 2):
        child, again = (space.mutate(middle, np.random.default_rng(seed), changes) for _ in range(2))
        assert child == again
        if child is not None:
            assert child != middle and space.architecture(child.values) == child
            assert 1 <= len(changed(middle, child)) <= changes
    if list(space.neighbours(middle)):
        assert space.mutate(middle, np.random.default_rng(seed), tries=2000) is not None


def test_an_architecture_without_neighbours_has_no_mutation():
    class Alone(Layers):
        def problem(self, architecture):
            return None if architecture == arch(1, 1) else "another one"

    assert list(Alone().neighbours(arch(1, 1))) == []
    assert Alone().mutate(arch(1, 1), np.random.default_rng(0)) is None

"""Random search spaces, conditional, constrained and composed, each with its architectures by brute force."""

import itertools

from hypothesis import assume
from hypothesis import strategies as st

from nas_meta import Choice, ComposedSpace, SearchSpace


def kept(table, values):
    """Return the part of a full assignment that has an effect, directly by the definition of a condition.

    Args:
        table: The choices of a space by name.
        values: A value for every choice.

    Returns:
        The values of the choices whose conditions hold.
    """

    def exists(name):
        when = table[name].when if isinstance(table[name], Choice) else {}
        return all(
            exists(parent) and values[parent] in (wanted if isinstance(wanted, tuple) else (wanted,))
            for parent, wanted in when.items()
        )

    return {name: values[name] for name in table if exists(name)}


def allowed(values, constraint):
    """Return whether an architecture satisfies a constraint on the checksum Σ (length of the name · value).

    Args:
        values: Values by the names of their choices; of a dotted name, the last part counts.
        constraint: ``(modulus, remainder)``; checksums with this remainder are forbidden. A modulus of 1 forbids
            nothing.

    Returns:
        ``True`` if the checksum is allowed.
    """
    modulus, remainder = constraint
    return modulus == 1 or sum(len(n.rpartition(".")[2]) * v for n, v in values.items()) % modulus != remainder


def brute(table, good):
    """Enumerate the architectures of a space: reduce all assignments and test them one by one.

    Args:
        table: The choices of the space by name.
        good: Predicate on the values of an architecture.

    Returns:
        A set of architectures, each as a tuple of sorted items.
    """
    names = list(table)
    rows = itertools.product(*(c.values if isinstance(c, Choice) else c for c in table.values()))
    found = {tuple(sorted(kept(table, dict(zip(names, row, strict=True))).items())) for row in rows}
    return {items for items in found if good(dict(items))}


class Listed(SearchSpace):
    """Space of given choices under a constraint."""

    def __init__(self, table, constraint):
        super().__init__()
        self.given, self.constraint = table, constraint

    def choices(self):
        return self.given

    def build(self, architecture):
        raise AssertionError("a table, not a model")

    def problem(self, architecture):
        return None if allowed(architecture.values, self.constraint) else "its sum is wrong"

    def truth(self):
        """Return all architectures by brute force, each as a tuple of sorted items."""
        return brute(self.given, lambda values: allowed(values, self.constraint))


class Free(Listed):
    """Space of given choices without a constraint, so that its size is computed instead of enumerated."""

    problem = SearchSpace.problem

    def truth(self):
        return brute(self.given, lambda values: True)


class Joined(ComposedSpace):
    """Composed space of given parts and its own choices; parts depend on conditions, and a constraint covers all."""

    def __init__(self, parts, own, under, constraint):
        self.given, self.own, self.under, self.constraint = parts, own, under, constraint
        super().__init__()

    def parts(self):
        return self.given

    def own_choices(self):
        return self.own

    def conditions(self):
        return self.under

    def build(self, architecture):
        raise AssertionError("a table, not a model")

    def problem(self, architecture):
        if not allowed(architecture.values, self.constraint):
            return "its sum is wrong"
        return super().problem(architecture)

    def truth(self):
        """Return every union of an own assignment with one architecture of each part whose condition holds."""
        found = set()
        for own in brute(self.own, lambda values: True):
            rows = [[own]]
            for name, space in self.given.items():
                wanted = self.under.get(name, {})
                if all(dict(own).get(n) in (w if isinstance(w, tuple) else (w,)) for n, w in wanted.items()):
                    rows.append([tuple((f"{name}.{n}", v) for n, v in items) for items in space.truth()])
            found |= {tuple(sorted(itertools.chain(*row))) for row in itertools.product(*rows)}
        return {items for items in found if allowed(dict(items), self.constraint)}


@st.composite
def tables(draw, most=4):
    """Draw a table of choices, each of which may depend on up to two earlier ones; the order of the table is random.

    Args:
        draw: Given by Hypothesis.
        most: Largest number of choices.

    Returns:
        The choices by name.
    """
    table = {}
    for i in range(draw(st.integers(1, most))):
        values = draw(st.lists(st.integers(0, 4), min_size=1, max_size=3, unique=True))
        parents = draw(st.lists(st.sampled_from(sorted(table)), max_size=2, unique=True)) if table else []
        when = {}
        for parent in parents:
            wanted = draw(st.lists(st.sampled_from(table[parent].values), min_size=1, max_size=2, unique=True))
            when[parent] = wanted[0] if len(wanted) == 1 and draw(st.booleans()) else tuple(wanted)
        table["c" * (i + 1)] = Choice(tuple(values), when)
    order = draw(st.permutations(list(table)))
    return {name: table[name] for name in order}


constraints = st.sampled_from([(1, 0), (2, 0), (3, 1), (4, 3)])


@st.composite
def plain(draw, most=4):
    """Draw a space that is not composed and has at least one architecture.

    Args:
        draw: Given by Hypothesis.
        most: Largest number of choices.

    Returns:
        The space.
    """
    table = draw(tables(most))
    space = Free(table, (1, 0)) if draw(st.booleans()) else Listed(table, draw(constraints))
    assume(space.truth())
    return space


@st.composite
def composed(draw):
    """Draw a composed space with one or two parts and at least one architecture.

    Args:
        draw: Given by Hypothesis.

    Returns:
        The space.
    """
    parts = {name: draw(plain(2)) for name in draw(st.sampled_from([("a",), ("a", "bb")]))}
    own = draw(tables(2)) if draw(st.booleans()) else {}
    under = {}
    if own and draw(st.booleans()):
        name = draw(st.sampled_from(sorted(own)))
        under = {"a": {name: draw(st.sampled_from(own[name].values))}}
    space = Joined(parts, own, under, draw(constraints))
    assume(space.truth())
    return space


spaces = st.one_of(plain(), composed())

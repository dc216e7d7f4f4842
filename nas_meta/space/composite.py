"""Search spaces made of others: named spaces joined into one, each with its own options in the config.

In a plugin::

    class TowerOptions(PluginOptions):
        image: SubSpace = Field("vit", description="...")
        text: SubSpace = Field("bert-subnet", description="...")

    class Tower(ComposedSpace):
        Options = TowerOptions

        def build(self, architecture):
            return TwoTowers(self.build_part(architecture, "image"), self.build_part(architecture, "text"))
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import GetCoreSchemaHandler, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError, core_schema

from nas_meta.core import plugins
from nas_meta.core.guard import plugin_call
from nas_meta.core.options import PluginOptions, fields_at
from nas_meta.errors import ConfigError, PluginError, nearest
from nas_meta.space.architecture import Architecture, Choice, Value
from nas_meta.space.enumeration import assignments
from nas_meta.space.search_space import COUNTABLE, SearchSpace

if TYPE_CHECKING:
    from torch import nn

    from nas_meta.tasks.pool import Tasks

ADDED = ("params", "flops")  # what a model has as much of as its parts together


@dataclass(frozen=True)
class SubSpace:
    """The type of an option that names a search space: ``vit``, ``path/to/file.py:Name``, or a mapping.

    The mapping holds ``name:`` and beside it the options of that space.
    """

    name: str
    options: PluginOptions

    def make(self, part: str) -> SearchSpace:
        """The space; ``part`` says in an error which one it is."""
        plugin = plugins.load("spaces", self.name)
        try:
            with plugin_call(plugin, "__init__"):
                return plugin(self.options)
        except ConfigError as error:
            raise ConfigError(f"space.{part}: {error}") from error

    @property
    def document(self) -> dict[str, Any]:
        """The mapping of a config, defaults filled in."""
        return {"name": self.name, **self.options.model_dump(mode="json")}

    @classmethod
    def of(cls, given: Any) -> SubSpace:
        """Validates what a config gives.

        Raises:
            ValueError: it is neither a name nor a mapping with one, or no such space can be loaded.
            ValidationError: one of its options is wrong.
        """
        if isinstance(given, cls):
            return given
        named = {"name": given} if isinstance(given, str) else given
        if not isinstance(named, Mapping) or not isinstance(named.get("name"), str):
            raise ValueError(f"{given!r} names no search space; expected a name, or keys with 'name:' among them")
        rest = {key: value for key, value in named.items() if key != "name"}
        try:
            model = plugins.options_of("spaces", named["name"])
        except PluginError as error:
            raise ValueError(str(error)) from error
        try:
            return cls(named["name"], model.model_validate(rest))
        except ValidationError as error:
            first = error.errors()[0]
            if first["type"] != "extra_forbidden":
                raise
            # Which keys are known is not known outside.
            known = fields_at(model, first["loc"][:-1]) | {"name"}
            wrong = PydanticCustomError("unknown_key", nearest(str(first["loc"][-1]), known))
            lines = [InitErrorDetails(type=wrong, loc=first["loc"], input=first["input"])]
            raise ValidationError.from_exception_data(cls.__name__, lines) from error

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls.of, serialization=core_schema.plain_serializer_function_ser_schema(lambda part: part.document)
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> dict[str, Any]:
        named = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
        return {"anyOf": [{"type": "string"}, named]}


class ComposedSpace(SearchSpace):
    """Search spaces by name, joined into one; subclasses define :meth:`build`.

    A part's choice ``layer0.op`` is here ``NAME.layer0.op``. What the parts ask of their architectures is asked here,
    and architectures are drawn, counted and walked through part by part.

    Attributes:
        spaces: the parts by name.

    Raises:
        ConfigError: parts read texts by different tokenizers.
    """

    def __init__(self, options: PluginOptions | None = None):
        super().__init__(options)
        self.spaces: dict[str, SearchSpace] = dict(self.parts())
        for part in self.spaces:
            if "." in part:
                raise PluginError(f"{type(self).__name__} has the part '{part}'; expected a name without a dot")
        texts = {n: s.tokenizer for n, s in self.spaces.items() if getattr(s, "modality", "text") != "image"}
        if len(set(texts.values())) > 1:
            words = ", ".join(f"{part} by {tokenizer}" for part, tokenizer in texts.items())
            raise ConfigError(f"space: its parts read texts by different tokenizers ({words}); expected one for all")
        self.tokenizer = next(iter(texts.values()), self.tokenizer)
        self.draws = any(space.draws for space in self.spaces.values())

    def parts(self) -> Mapping[str, SearchSpace]:
        """The spaces by name; by default those that options of the type :class:`SubSpace` name."""
        given = {name: getattr(self.options, name) for name in type(self.options).model_fields}
        return {name: part.make(name) for name, part in given.items() if isinstance(part, SubSpace)}

    def own_choices(self) -> Mapping[str, Choice | Sequence[Value]]:
        """Choices beside those of the parts; their conditions name each other."""
        return {}

    def conditions(self) -> Mapping[str, Mapping[str, Value | tuple[Value, ...]]]:
        """Parts that exist only where own choices have given values, as in :attr:`Choice.when`."""
        return {}

    def choices(self) -> Mapping[str, Choice | Sequence[Value]]:
        own = dict(self.own_choices())
        for name in own:
            if name.partition(".")[0] in self.spaces:
                raise PluginError(f"{type(self).__name__} has the choice '{name}', which is a name of a part's")
        return {**own, **{n: choice for part in self.spaces for n, choice in self._prefixed(part).items()}}

    def part(self, architecture: Architecture, name: str) -> Architecture:
        """A part's own architecture; one without choices where the part does not exist.

        Raises:
            ConfigError: there is no part of that name.
        """
        if name not in self.spaces:
            raise ConfigError(f"'{name}' is not a part of {type(self).__name__}; {nearest(name, self.spaces)}")
        prefix = f"{name}."
        return Architecture({n[len(prefix) :]: v for n, v in architecture.values.items() if n.startswith(prefix)})

    def present(self, architecture: Architecture) -> list[str]:
        """The parts that an architecture has: all, but for those under :meth:`conditions`."""
        return self._present(architecture.values)

    def build_part(self, architecture: Architecture, name: str) -> nn.Module:
        """The model of a part."""
        return self.spaces[name].build(self.part(architecture, name))

    def problem(self, architecture: Architecture) -> str | None:
        for name in self.present(architecture):
            problem = self.spaces[name].problem_of(self.part(architecture, name))
            if problem is not None:
                return f"{name}: {problem}"
        return None

    def representative(self, architecture: Architecture) -> Architecture:
        values = dict(architecture.values)
        for name in self.present(architecture):
            own = self.spaces[name].representative(self.part(architecture, name))
            values.update(_joined(name, own.values))
        return Architecture(values)

    def counts(self, architecture: Architecture, tokens: int) -> Mapping[str, float]:
        """Sums over the parts of what all of them count; a subclass adds what it puts around them."""
        counted = [self.spaces[n].counts(self.part(architecture, n), tokens) for n in self.present(architecture)]
        return {m: sum(c[m] for c in counted) for m in ADDED if counted and all(m in c for c in counted)}

    def prepare(self, tasks: Tasks, seed: int) -> None:
        for space in self.spaces.values():
            with plugin_call(space, "prepare"):
                space.prepare(tasks, seed)

    def sample(self, rng: np.random.Generator, tries: int = 1000) -> Architecture:
        """As in every space; a part's constraints reject draws of that part alone."""
        own = {name: choice for name, choice in self.table.items() if name in self._own}
        for _ in range(tries):
            values = {n: c.values[int(rng.integers(len(c.values)))] for n, c in own.items()}
            for name in self._present(values):
                values.update(_joined(name, self.spaces[name].sample(rng, tries).values))
            architecture = self.canonical(values)
            if self.problem_of(architecture) is None:
                return architecture
        raise ConfigError(
            f"search space {type(self).__name__}: none of {tries} random architectures meets its constraints; "
            "loosen them"
        )

    def size(self) -> int:
        """The product of the parts' sizes, summed over the own choices; exact where they are.

        Where a subclass constrains its parts together, that is an upper bound, unless it is small enough to count.
        """
        cls, base = type(self), ComposedSpace
        free = cls.problem is base.problem and cls.representative is base.representative
        if not free and self.unconstrained <= COUNTABLE:
            return sum(1 for _ in self.walk())
        sizes = {name: space.size() for name, space in self.spaces.items()}
        return sum(prod(sizes[name] for name in self._present(values)) for values in assignments(self._own))

    def walk(self) -> Iterator[Architecture]:
        for values in assignments(self._own):
            present = self._present(values)
            for row in itertools.product(*(list(self.spaces[name].walk()) for name in present)):
                joined = dict(values)
                for name, architecture in zip(present, row, strict=True):
                    joined.update(_joined(name, architecture.values))
                architecture = Architecture({name: joined[name] for name in self.table if name in joined})
                if self.representative(architecture) == architecture and self.problem_of(architecture) is None:
                    yield architecture

    @property
    def _own(self) -> dict[str, Choice]:
        return {name: choice for name, choice in self.table.items() if name.partition(".")[0] not in self.spaces}

    def _present(self, values: Mapping[str, Value]) -> list[str]:
        conditions = self.conditions()
        return [name for name in self.spaces if Choice((), conditions.get(name, {})).applies(values)]

    def _prefixed(self, part: str) -> dict[str, Choice]:
        given = self.conditions().get(part, {})
        return {
            f"{part}.{name}": Choice(choice.values, {**given, **dict(_joined(part, choice.when))})
            for name, choice in self.spaces[part].table.items()
        }


def _joined(part: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{part}.{name}": value for name, value in values.items()}

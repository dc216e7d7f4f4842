"""Composed search spaces: several named spaces joined into one, each with its own options in the config.

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
from nas_meta.core.options import PluginOptions, code_names, fields_at
from nas_meta.core.placing import placed
from nas_meta.errors import ConfigError, PluginError, nearest
from nas_meta.space.architecture import Architecture, Choice, Value
from nas_meta.space.enumeration import assignments
from nas_meta.space.search_space import ENUMERATION_LIMIT, SearchSpace

if TYPE_CHECKING:
    from torch import nn

    from nas_meta.tasks.pool import Tasks

ADDITIVE = ("params", "flops")  # metrics whose value is the sum over the parts


@dataclass(frozen=True)
class SubSpace:
    """Type of an option that names a search space.

    In a config, it is a name such as ``vit`` or ``path/to/file.py:Name``, or a mapping with the key ``name`` and the
    options of that space.

    Args:
        name: Name of the search space plugin, or its file and class.
        options: Validated options of that space.
    """

    name: str
    options: PluginOptions

    def make(self, part: str) -> SearchSpace:
        """Create the search space.

        Args:
            part: Name of the option, for error messages.

        Raises:
            ConfigError: If the space rejects its options; the message starts with ``space.PART``.
            PluginError: If the plugin cannot be loaded, or raises another exception.
        """
        plugin = plugins.load("spaces", self.name)
        try:
            with plugin_call(plugin, "__init__"):
                return plugin(self.options)
        except ConfigError as error:
            raise ConfigError(f"space.{part}: {error}") from error

    @staticmethod
    def code_names(given: Any) -> Iterator[str]:
        """Iterate over the code that a value of a config names, without importing it.

        Args:
            given: A name, or a mapping with the key ``name``; other values are skipped.

        Yields:
            The file of the space, or what the options of an installed space name.
        """
        name = given.get("name") if isinstance(given, Mapping) else given
        if isinstance(name, str) and ".py:" in name:
            yield name
        elif isinstance(name, str) and isinstance(given, Mapping):
            try:
                model = plugins.options_of("spaces", name)
            except PluginError:
                return
            yield from code_names(model, given)

    @staticmethod
    def placed(given: Any, folder: str, path: tuple[str | int, ...]) -> Any:
        """Return a value of a config with absolute paths.

        Args:
            given: A name, or a mapping with the key ``name``; other values are returned unchanged.
            folder: Folder that relative paths start from.
            path: Keys that lead to the value, for errors.
        """
        name = given.get("name") if isinstance(given, Mapping) else None
        try:
            model = plugins.options_of("spaces", name) if isinstance(name, str) else None
        except PluginError:
            model = None  # validation reports it
        return given if model is None else placed(model, given, folder, path)

    @property
    def document(self) -> dict[str, Any]:
        """The option as a mapping of plain values, with all defaults."""
        return {"name": self.name, **self.options.model_dump(mode="json")}

    @classmethod
    def of(cls, given: Any) -> SubSpace:
        """Validate the value of a config.

        Args:
            given: A name, a mapping with the key ``name``, or an instance, which is returned unchanged.

        Raises:
            ValueError: If the value names no search space, or if that space cannot be loaded.
            ValidationError: If an option of that space is wrong.
        """
        if isinstance(given, cls):
            return given
        named = {"name": given} if isinstance(given, str) else given
        if not isinstance(named, Mapping) or not isinstance(named.get("name"), str):
            raise ValueError(f"{given!r} does not name a search space; expected a name, or a mapping with 'name:'")
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
            # The caller does not know the options of this space, so the nearest known key is found here.
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
    """Base class of search spaces that join other spaces, called parts; subclasses define :meth:`build`.

    The choice ``layer0.op`` of the part ``NAME`` becomes ``NAME.layer0.op``. The constraints of all parts apply.
    Architectures are sampled, counted and enumerated part by part.

    Args:
        options: Options of the plugin; those of the type :class:`SubSpace` name the parts.

    Attributes:
        spaces: The parts by name.

    Raises:
        ConfigError: If parts use different tokenizers.
        PluginError: If the name of a part contains a dot.
    """

    def __init__(self, options: PluginOptions | None = None):
        super().__init__(options)
        self.spaces: dict[str, SearchSpace] = dict(self.parts())
        for part in self.spaces:
            if "." in part:
                raise PluginError(f"{type(self).__name__} has the part '{part}'; expected a name without a dot")
        tokenizers = {n: s.tokenizer for n, s in self.spaces.items() if getattr(s, "modality", "text") != "image"}
        if len(set(tokenizers.values())) > 1:
            words = ", ".join(f"{part}: {tokenizer}" for part, tokenizer in tokenizers.items())
            raise ConfigError(f"space: its parts use different tokenizers ({words}); expected one tokenizer for all")
        self.tokenizer = next(iter(tokenizers.values()), self.tokenizer)
        self.draws = any(space.draws for space in self.spaces.values())

    def parts(self) -> Mapping[str, SearchSpace]:
        """Return the parts by name; by default those of the options of type :class:`SubSpace`."""
        given = {name: getattr(self.options, name) for name in type(self.options).model_fields}
        return {name: part.make(name) for name, part in given.items() if isinstance(part, SubSpace)}

    def own_choices(self) -> Mapping[str, Choice | Sequence[Value]]:
        """Return choices in addition to those of the parts; by default none.

        The part of a name before the first dot must not be the name of a part. Their conditions name each other only.
        """
        return {}

    def conditions(self) -> Mapping[str, Mapping[str, Value | tuple[Value, ...]]]:
        """Return the conditions of optional parts, by the name of the part; by default all parts are always present.

        Like ``Choice.when``, a condition gives the values of :meth:`own_choices` for which the part is present.
        """
        return {}

    def choices(self) -> Mapping[str, Choice | Sequence[Value]]:
        own = dict(self.own_choices())
        for name in own:
            if name.partition(".")[0] in self.spaces:
                raise PluginError(
                    f"{type(self).__name__} has the choice '{name}', but '{name.partition('.')[0]}' is a part; "
                    "expected a choice with another name"
                )
        return {**own, **{n: choice for part in self.spaces for n, choice in self._prefixed(part).items()}}

    def part(self, architecture: Architecture, name: str) -> Architecture:
        """Return the architecture of a part.

        Args:
            architecture: Architecture of this space.
            name: Name of the part.

        Returns:
            The architecture as the part's space knows it; without choices if the part is not present.

        Raises:
            ConfigError: If the space has no part of that name.
        """
        if name not in self.spaces:
            raise ConfigError(f"'{name}' is not a part of {type(self).__name__}; {nearest(name, self.spaces)}")
        prefix = f"{name}."
        return Architecture({n[len(prefix) :]: v for n, v in architecture.values.items() if n.startswith(prefix)})

    def present(self, architecture: Architecture) -> list[str]:
        """Return the names of the parts that are present in an architecture; see :meth:`conditions`."""
        return self._present(architecture.values)

    def build_part(self, architecture: Architecture, name: str) -> nn.Module:
        """Build the model of a part.

        Args:
            architecture: Architecture of this space.
            name: Name of a part that is present.
        """
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
            part = self.spaces[name].representative(self.part(architecture, name))
            values.update(_with_prefix(name, part.values))
        return Architecture(values)

    def counts(self, architecture: Architecture, tokens: int) -> Mapping[str, float]:
        """Return sums over the present parts of the metrics that all of them count.

        A subclass that adds parameters around the parts adds their counts.

        Args:
            architecture: Architecture of this space.
            tokens: Tokens of the text for which FLOPs are counted.

        Returns:
            ``params`` and ``flops``, each only if all present parts count it.
        """
        counted = [self.spaces[n].counts(self.part(architecture, n), tokens) for n in self.present(architecture)]
        return {m: sum(c[m] for c in counted) for m in ADDITIVE if counted and all(m in c for c in counted)}

    def prepare(self, tasks: Tasks, seed: int) -> None:
        for space in self.spaces.values():
            with plugin_call(space, "prepare"):
                space.prepare(tasks, seed)

    def sample(self, rng: np.random.Generator, tries: int = 1000) -> Architecture:
        """Sample an architecture part by part, so that constraints of a part reject samples of that part only.

        Args:
            rng: Random number generator.
            tries: Maximum number of samples, for every part and for the whole.

        Raises:
            ConfigError: If no sample satisfies the constraints.
        """
        own = self._own_table
        for _ in range(tries):
            values = {n: c.values[int(rng.integers(len(c.values)))] for n, c in own.items()}
            for name in self._present(values):
                values.update(_with_prefix(name, self.spaces[name].sample(rng, tries).values))
            architecture = self.canonical(values)
            if self.problem_of(architecture) is None:
                return architecture
        raise ConfigError(
            f"search space {type(self).__name__}: none of {tries} random architectures satisfies the constraints; "
            "relax them"
        )

    def size(self) -> int:
        """Return the number of architectures: the product of the parts' sizes, summed over the space's own choices.

        Exact if the sizes of the parts are. If a subclass constrains several parts together, spaces of up to
        :data:`ENUMERATION_LIMIT` architectures before constraints are enumerated; for larger ones, the number is an
        upper bound.
        """
        cls, base = type(self), ComposedSpace
        free = cls.problem is base.problem and cls.representative is base.representative
        if not free and self.unconstrained <= ENUMERATION_LIMIT:
            return sum(1 for _ in self.walk())
        sizes = {name: space.size() for name, space in self.spaces.items()}
        return sum(prod(sizes[name] for name in self._present(values)) for values in assignments(self._own_table))

    def walk(self) -> Iterator[Architecture]:
        for values in assignments(self._own_table):
            present = self._present(values)
            for row in itertools.product(*(list(self.spaces[name].walk()) for name in present)):
                joined = dict(values)
                for name, architecture in zip(present, row, strict=True):
                    joined.update(_with_prefix(name, architecture.values))
                architecture = Architecture({name: joined[name] for name in self.table if name in joined})
                if self.representative(architecture) == architecture and self.problem_of(architecture) is None:
                    yield architecture

    @property
    def _own_table(self) -> dict[str, Choice]:
        """The choices of the table that belong to no part."""
        return {name: choice for name, choice in self.table.items() if name.partition(".")[0] not in self.spaces}

    def _present(self, values: Mapping[str, Value]) -> list[str]:
        """The parts that are present, by the values of the space's own choices."""
        conditions = self.conditions()
        return [name for name in self.spaces if Choice((), conditions.get(name, {})).applies(values)]

    def _prefixed(self, part: str) -> dict[str, Choice]:
        """The choices of a part with the prefix in names and conditions, under the condition of the part."""
        condition = self.conditions().get(part, {})
        return {
            f"{part}.{name}": Choice(choice.values, {**condition, **_with_prefix(part, choice.when)})
            for name, choice in self.spaces[part].table.items()
        }


def _with_prefix(part: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The same values under the names that they have in the composed space."""
    return {f"{part}.{name}": value for name, value in values.items()}

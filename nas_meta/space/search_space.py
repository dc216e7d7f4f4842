"""Search spaces and architectures: what a plugin author imports.

A search space is plain data (its choices) and one function (``build``). Everything else has a default.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nas_meta.core.files import is_encodable
from nas_meta.core.guard import plugin_call, type_name
from nas_meta.core.options import PluginOptions
from nas_meta.errors import ConfigError, PluginError, nearest
from nas_meta.space.architecture import Architecture, Choice, Value
from nas_meta.space.enumeration import assignments, count

if TYPE_CHECKING:
    from torch import nn

    from nas_meta.space.supernet import Supernet
    from nas_meta.tasks.pool import Tasks

COUNTABLE = 20_000  # architectures before constraints up to which those within them are counted one by one


class SearchSpace(ABC):
    """A search space plugin.

    Subclasses define :meth:`choices` and :meth:`build`; options, constraints, pretrained weights and export
    have defaults. An instance travels to every worker by pickle, once.
    """

    Options: type[PluginOptions] = PluginOptions
    tokenizer: str = "starter:minilm"
    """Where the tokenizer comes from: a folder, a hub name, or ``starter:minilm``."""
    modality: str = "text"
    """What models take: ``text``, ``image`` or ``image-text``."""
    image_shape: tuple[int, int, int] | None = None
    """Channels, height and width of the images that models take, if they take any."""
    draws: bool = False
    """Whether :meth:`sample` draws otherwise than every choice uniformly; then ``random`` and the first ones of
    ``evolution`` are drawn so, too."""

    def __init__(self, options: PluginOptions | None = None):
        self.options = options if options is not None else self.Options()

    @abstractmethod
    def choices(self) -> Mapping[str, Choice | Sequence[Value]]:
        """Every decision by name; a plain list stands for ``Choice(list)``."""

    @abstractmethod
    def build(self, architecture: Architecture) -> nn.Module:
        """The model of an architecture.

        Returns a module that takes ``input_ids`` and ``attention_mask`` of shape ``[batch, tokens]`` as
        keywords and returns a Hugging Face output with ``last_hidden_state`` ``[batch, tokens, hidden]``, such
        a tensor itself, or embeddings ``[batch, hidden]``. Texts are packed, several in a row, where it is a model
        of transformers that also takes ``position_ids`` and a mask ``[rows, 1, tokens, tokens]``. Where
        :attr:`modality` is ``image`` it takes ``pixel_values`` ``[batch, channels, height, width]``, numbers from -1
        to 1, in their place; where it is ``image-text`` it takes all three and returns embeddings.
        """

    def problem(self, architecture: Architecture) -> str | None:
        """Why the architecture is not in the space (a clause), or None where it is."""
        return None

    def representative(self, architecture: Architecture) -> Architecture:
        """The one architecture that stands for all that are the same model; by default the architecture itself.

        Strategies propose nothing else. What is returned has the same choices, and represents itself.
        """
        return architecture

    def counts(self, architecture: Architecture, tokens: int) -> Mapping[str, float]:
        """What is known of an architecture before it is built: ``params``, ``flops`` of one text of so many tokens.

        Of an image, or an image with such a text, where models take these.
        """
        return {}

    def pooling(self, architecture: Architecture) -> str | None:
        """How token states become an embedding where the architecture chooses it; None leaves it to ``tasks.pooling``.

        ``mean``, ``cls``, ``last``, or ``attention`` where the model has ``pooling_scores`` (:class:`Encoder`).
        """
        return None

    def prepare(self, tasks: Tasks, seed: int) -> None:  # noqa: B027
        """Once per run, in the driver: load pretrained weights, measure importance on meta-train examples."""

    def reference(self) -> nn.Module | None:
        """The unsearched model that candidates are compared with, or None where there is none."""
        return None

    def supernet(self) -> Supernet | None:
        """Every architecture in one model with shared weights, for one-shot strategies; None where there is none."""
        return None

    def save(self, model: nn.Module, architecture: Architecture, folder: Path) -> None:
        """Writes a trained model of the space as a Hugging Face folder: weights, and a ``config.json`` about them.

        Raises:
            ConfigError: the model has no ``save_pretrained`` and the space does not override this method.
        """
        save_pretrained = getattr(model, "save_pretrained", None)
        if save_pretrained is None:
            raise ConfigError(
                f"search space {type(self).__name__} builds a {type(model).__name__}, which cannot be exported; "
                "expected a transformers model, or a save() method in the space"
            )
        save_pretrained(folder)

    def load(self, folder: Path) -> nn.Module:
        """A model that :meth:`save` wrote, or any that transformers knows.

        Raises:
            OSError: it cannot be read.
            ValueError: it is no model that transformers knows.
        """
        from transformers import AutoModel

        return AutoModel.from_pretrained(folder, trust_remote_code=False)

    @cached_property
    def table(self) -> dict[str, Choice]:
        """The choices, normalised and checked, in an order in which conditions come before what they rule."""
        where = f"search space {type(self).__name__}"
        with plugin_call(self, "choices"):
            given = self.choices()
        if not isinstance(given, Mapping):
            raise ConfigError(
                f"{where}: choices() returned {type_name(given)}; expected a mapping from names to values"
            )
        raw: dict[str, Choice] = {}
        for name, listed in given.items():
            if not isinstance(name, str) or not is_encodable(name):
                raise ConfigError(f"{where}: choices() has the name {name!r}; expected text")
            values, when = (listed.values, listed.when) if isinstance(listed, Choice) else (listed, {})
            if isinstance(values, (str, Mapping)) or not isinstance(values, Sequence) or not isinstance(when, Mapping):
                raise ConfigError(f"{where}: choice '{name}' is {listed!r}; expected a list of values, or a Choice")
            raw[name] = Choice(tuple(values), when)
        for name, choice in raw.items():
            if len(choice.values) == 0:
                raise ConfigError(f"{where}: choice '{name}' has no values; expected at least one")
            for value in choice.values:
                good = isinstance(value, (bool, int, float, str, type(None))) and value == value
                if not good or (isinstance(value, str) and not is_encodable(value)):
                    raise ConfigError(
                        f"{where}: choice '{name}' has the value {value!r}; expected a number, a string, "
                        "true, false or null"
                    )
            if len(set(choice.values)) != len(choice.values):
                raise ConfigError(f"{where}: choice '{name}' lists a value twice; expected distinct values")
            for parent in choice.when:
                if parent not in raw:
                    raise ConfigError(
                        f"{where}: choice '{name}' depends on '{parent}', which does not exist; {nearest(parent, raw)}"
                    )
        ordered: dict[str, Choice] = {}
        while len(ordered) < len(raw):
            ready = [n for n, c in raw.items() if n not in ordered and all(p in ordered for p in c.when)]
            if not ready:
                raise ConfigError(f"{where}: choices depend on each other in a circle")
            ordered.update((n, raw[n]) for n in ready)
        return ordered

    def architecture(self, values: Mapping[str, Value]) -> Architecture:
        """The architecture of the given values: validated, without the choices that have no effect.

        Raises:
            ConfigError: a name or a value that is not in the space, a choice left out, or a constraint broken.
        """
        architecture = self.canonical(values)
        for name in values:
            if name not in self.table:
                raise ConfigError(f"'{name}' is not a choice of {type(self).__name__}; {nearest(name, self.table)}")
        problem = self.problem_of(architecture)
        if problem:
            raise ConfigError(f"architecture {architecture} is not in {type(self).__name__}: {problem}")
        return architecture

    def problem_of(self, architecture: Architecture) -> str | None:
        """What :meth:`problem` says, if that is a clause or None.

        Raises:
            PluginError: it is something else.
        """
        with plugin_call(self, "problem"):
            problem = self.problem(architecture)
        if not isinstance(problem, (str, type(None))):
            raise PluginError(
                f"{type(self).__name__}.problem() returned {type_name(problem)}; expected a clause or None"
            )
        return problem

    def canonical(self, values: Mapping[str, Value]) -> Architecture:
        """Like :meth:`architecture`, but without asking for constraints: what :meth:`representative` gives."""
        kept: dict[str, Value] = {}
        for name, choice in self.table.items():
            if not choice.applies(kept):
                continue
            if name not in values:
                raise ConfigError(f"the architecture leaves out '{name}' of {type(self).__name__}")
            matches = [
                v for v in choice.values if v == values[name] and isinstance(v, bool) == isinstance(values[name], bool)
            ]
            if not matches:
                raise ConfigError(
                    f"'{name}' cannot be {values[name]!r}; expected one of {', '.join(map(repr, choice.values))}"
                )
            kept[name] = matches[0]
        return self.representative(Architecture(kept))

    def sample(self, rng: np.random.Generator, tries: int = 1000) -> Architecture:
        """An architecture drawn with every choice uniform, by rejection of those outside the constraints.

        Raises:
            ConfigError: no architecture was found in ``tries`` draws.
        """
        for _ in range(tries):
            architecture = self.canonical(
                {n: c.values[int(rng.integers(len(c.values)))] for n, c in self.table.items()}
            )
            if self.problem_of(architecture) is None:
                return architecture
        raise ConfigError(
            f"search space {type(self).__name__}: none of {tries} random architectures meets its constraints; "
            "loosen them"
        )

    def size(self) -> int:
        """The number of distinct architectures.

        Exact where nothing is constrained, and where at most ``COUNTABLE`` architectures have to be asked; else the
        number before constraints. Override where constraints can be counted.
        """
        cls, base = type(self), SearchSpace
        free = cls.problem is base.problem and cls.representative is base.representative
        return self.unconstrained if free or self.unconstrained > COUNTABLE else sum(1 for _ in self.walk())

    @cached_property
    def unconstrained(self) -> int:
        """The number of architectures before constraints, those that are represented by another among them."""
        return count(self.table)

    def walk(self) -> Iterator[Architecture]:
        """Every architecture once, in the order of the choices and their values."""
        for values in assignments(self.table):
            architecture = Architecture(values)
            if self.representative(architecture) == architecture and self.problem_of(architecture) is None:
                yield architecture

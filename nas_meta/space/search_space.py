"""The base class of search spaces, which plugin authors subclass.

A search space consists of plain data, its choices, and one function, ``build``. Everything else has a default.
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
from nas_meta.space import neighbourhood
from nas_meta.space.architecture import Architecture, Choice, Value
from nas_meta.space.enumeration import assignments, count

if TYPE_CHECKING:
    from torch import nn

    from nas_meta.space.supernet import Supernet
    from nas_meta.tasks.pool import Tasks

ENUMERATION_LIMIT = 20_000  # architectures before constraints up to which a constrained space is counted one by one


class SearchSpace(ABC):
    """Base class of search space plugins.

    Subclasses define :meth:`choices` and :meth:`build`; options, constraints, pretrained weights and export have
    defaults. Instances are pickled and sent to every worker once.

    Args:
        options: Validated options of the plugin; by default those of ``Options()``.

    Attributes:
        options: The options, an instance of ``Options``.
    """

    Options: type[PluginOptions] = PluginOptions
    tokenizer: str = "starter:minilm"
    """Tokenizer of the texts: a folder, a hub name, or ``starter:minilm``."""
    modality: str = "text"
    """Inputs of the models: ``text``, ``image`` or ``image-text``."""
    image_shape: tuple[int, int, int] | None = None
    """Channels, height and width of the images that the models take; None for models of texts."""
    draws: bool = False
    """Whether :meth:`sample` uses another distribution than uniform choices; the strategy ``random`` and the initial
    population of ``evolution`` then use it, too."""

    pretrained: bool = False
    """Whether models inherit pretrained weights; a learning rate that suits these is then the default."""
    from_scratch: bool = False
    """Whether all weights are random at first; a higher learning rate and trained embeddings are then the default."""

    def __init__(self, options: PluginOptions | None = None):
        self.options = options if options is not None else self.Options()

    @abstractmethod
    def choices(self) -> Mapping[str, Choice | Sequence[Value]]:
        """Return the choices of the space by name; a plain list stands for ``Choice(list)``."""

    @abstractmethod
    def build(self, architecture: Architecture) -> nn.Module:
        """Build the model of an architecture.

        Args:
            architecture: Architecture of this space.

        Returns:
            A module that takes the inputs of the :attr:`modality` as keywords. ``text``: ``input_ids`` and
            ``attention_mask``, both ``[batch, tokens]``. ``image``: ``pixel_values``
            ``[batch, channels, height, width]`` from -1 to 1. ``image-text``: all three.

            It returns an output with ``last_hidden_state`` ``[batch, tokens, hidden]``, this tensor itself, or
            embeddings ``[batch, hidden]``; models of ``image-text`` return embeddings. Several short texts share a row
            if the model is a transformers model that also takes ``position_ids`` and a mask
            ``[rows, 1, tokens, tokens]``.
        """

    def problem(self, architecture: Architecture) -> str | None:
        """Return why an architecture violates a constraint of the space; by default None.

        Args:
            architecture: Architecture with valid values.

        Returns:
            A clause for error messages, such as ``it keeps 2 layers; expected at least 3``; None if the architecture
            is in the space.
        """
        return None

    def representative(self, architecture: Architecture) -> Architecture:
        """Return the representative of all architectures with the same model; by default the architecture itself.

        Strategies propose representatives only, so that no model is trained twice.

        Args:
            architecture: Architecture with valid values.

        Returns:
            An architecture with the same choices, which is its own representative.
        """
        return architecture

    def counts(self, architecture: Architecture, tokens: int) -> Mapping[str, float]:
        """Return the metrics of an architecture that are known before it is built; by default none.

        Args:
            architecture: Architecture of this space.
            tokens: Tokens of the text for which FLOPs are counted.

        Returns:
            Metrics by name, such as ``params``, the number of parameters, and ``flops``, the floating-point operations
            of one forward pass of one example.
        """
        return {}

    def pooling(self, architecture: Architecture) -> str | None:
        """Return the pooling of an architecture if the space chooses it; by default None.

        Args:
            architecture: Architecture of this space.

        Returns:
            ``mean``, ``cls``, ``last``, or ``attention`` for models with ``pooling_scores`` (:class:`Encoder`); None
            leaves the pooling to ``tasks.pooling``.
        """
        return None

    def prepare(self, tasks: Tasks, seed: int) -> None:  # noqa: B027
        """Prepare the space once per run, in the driver; by default does nothing.

        Override to load pretrained weights, or to measure the importance of their parts on meta-train examples.

        Args:
            tasks: Tasks of the run.
            seed: Seed of the run.
        """

    def reference(self) -> nn.Module | None:
        """Return the untouched model that candidates are compared with; by default None, without a comparison."""
        return None

    def comparisons(self, architecture: Architecture) -> Mapping[str, Architecture]:
        """Return what the best architecture is compared with after the search; by default nothing.

        Each of them is trained like the best trial and tested on the same episodes. Constraints and limits do not apply
        to them: it is enough that :meth:`build` builds them.

        Args:
            architecture: Architecture of this space.

        Returns:
            Architectures by a name that a sentence can hold, such as ``the whole model trained alike``.
        """
        return {}

    def starts(self) -> Sequence[Mapping[str, Value]]:
        """Return what is known before the search about which architectures are good; by default nothing.

        Strategies may begin with architectures that have these values, and draw all other choices at random.

        Returns:
            Values of some choices by name, one mapping for each architecture to begin with, the most promising first.
        """
        return ()

    def supernet(self) -> Supernet | None:
        """Return a model with the shared weights of all architectures, for one-shot strategies; by default None."""
        return None

    def save(self, model: nn.Module, architecture: Architecture, folder: Path) -> None:
        """Save a trained model as a Hugging Face folder with weights and ``config.json``.

        Args:
            model: Model that :meth:`build` returned, trained.
            architecture: Its architecture.
            folder: Folder to write to.

        Raises:
            ConfigError: If the model has no ``save_pretrained`` and the space does not override this method.
        """
        save_pretrained = getattr(model, "save_pretrained", None)
        if save_pretrained is None:
            raise ConfigError(
                f"search space {type(self).__name__} builds a {type(model).__name__}, which cannot be exported; "
                "expected a transformers model, or a save() method in the space"
            )
        save_pretrained(folder)

    def load(self, folder: Path) -> nn.Module:
        """Load a model that :meth:`save` wrote, or any other transformers model; by default in float32.

        Args:
            folder: Folder of the model.

        Raises:
            OSError: If the folder cannot be read.
            ValueError: If transformers does not know the model.
        """
        from transformers import AutoModel

        return AutoModel.from_pretrained(folder, trust_remote_code=False, dtype="float32")

    @cached_property
    def table(self) -> dict[str, Choice]:
        """The choices, normalised and validated; every choice comes after those that its condition names.

        Raises:
            ConfigError: If a name, a value or a condition is invalid, or if conditions form a cycle.
            PluginError: If :meth:`choices` raises another exception.
        """
        where = f"search space {type(self).__name__}"
        with plugin_call(self, "choices"):
            returned = self.choices()
        if not isinstance(returned, Mapping):
            raise ConfigError(
                f"{where}: choices() returned {type_name(returned)}; expected a mapping from names to values"
            )
        raw: dict[str, Choice] = {}
        for name, listed in returned.items():
            if not isinstance(name, str) or not is_encodable(name):
                raise ConfigError(f"{where}: choices() has the name {name!r}; expected text")
            values, when = (listed.values, listed.when) if isinstance(listed, Choice) else (listed, {})
            if isinstance(values, (str, Mapping)) or not isinstance(values, Sequence) or not isinstance(when, Mapping):
                raise ConfigError(f"{where}: choice '{name}' is {listed!r}; expected a list of values or a Choice")
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
                raise ConfigError(
                    f"{where}: the conditions of choices form a cycle; expected conditions without a cycle"
                )
            ordered.update((n, raw[n]) for n in ready)
        return ordered

    def architecture(self, values: Mapping[str, Value]) -> Architecture:
        """Return the architecture with the given values: validated, and without inactive choices.

        Args:
            values: Values by name; those of inactive choices may be missing and are ignored.

        Returns:
            The representative of the architecture.

        Raises:
            ConfigError: If a name or value is not in the space, if the value of an active choice is missing, or if a
                constraint is violated.
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
        """Return the result of :meth:`problem`, called as a plugin's method.

        Args:
            architecture: Architecture with valid values.

        Raises:
            PluginError: If :meth:`problem` raises an exception or returns anything but text or None.
        """
        with plugin_call(self, "problem"):
            problem = self.problem(architecture)
        if not isinstance(problem, (str, type(None))):
            raise PluginError(f"{type(self).__name__}.problem() returned {type_name(problem)}; expected text or None")
        return problem

    def canonical(self, values: Mapping[str, Value]) -> Architecture:
        """Return the architecture with the given values like :meth:`architecture`, but without checking constraints.

        Args:
            values: Values by name; those of inactive choices and unknown names are ignored.

        Raises:
            ConfigError: If the value of an active choice is missing or not in the space.
        """
        kept: dict[str, Value] = {}
        for name, choice in self.table.items():
            if not choice.applies(kept):
                continue
            if name not in values:
                raise ConfigError(f"the architecture has no value for the choice '{name}' of {type(self).__name__}")
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
        """Sample an architecture: every choice uniformly, by rejection of samples that violate constraints.

        Args:
            rng: Random number generator.
            tries: Maximum number of samples.

        Raises:
            ConfigError: If no sample satisfies the constraints.
        """
        for _ in range(tries):
            architecture = self.canonical(
                {n: c.values[int(rng.integers(len(c.values)))] for n, c in self.table.items()}
            )
            if self.problem_of(architecture) is None:
                return architecture
        raise ConfigError(
            f"search space {type(self).__name__}: none of {tries} random architectures satisfies the constraints; "
            "relax them"
        )

    def mutate(
        self, architecture: Architecture, rng: np.random.Generator, changes: int = 1, tries: int = 100
    ) -> Architecture | None:
        """Return a copy of an architecture with one choice, or several, changed to other values at random.

        Choices that a change brings into effect are drawn uniformly; all others keep their values.

        Args:
            architecture: Architecture of this space.
            rng: Random number generator.
            changes: Number of choices to change.
            tries: Maximum number of children to draw.

        Returns:
            Another architecture of this space; None if no try met the constraints.
        """
        return neighbourhood.mutate(self, architecture, rng, changes, tries)

    def neighbours(self, architecture: Architecture) -> Iterator[Architecture]:
        """Yield every architecture that differs from a given one in exactly one choice.

        Choices that the change brings into effect get their first value; all others keep their values.

        Args:
            architecture: Architecture of this space.

        Yields:
            Distinct architectures of this space, in the order of the choices and their values.
        """
        return neighbourhood.neighbours(self, architecture)

    def size(self) -> int:
        """Return the number of distinct architectures.

        Exact for spaces without constraints, and for spaces of up to :data:`ENUMERATION_LIMIT` architectures before
        constraints, which are enumerated. For larger ones it is the number before constraints, an upper bound.
        Override if the architectures within the constraints can be counted.
        """
        cls, base = type(self), SearchSpace
        free = cls.problem is base.problem and cls.representative is base.representative
        return self.unconstrained if free or self.unconstrained > ENUMERATION_LIMIT else sum(1 for _ in self.walk())

    @cached_property
    def unconstrained(self) -> int:
        """The number of architectures before constraints, including those that another one represents."""
        return count(self.table)

    def walk(self) -> Iterator[Architecture]:
        """Yield every architecture of the space once, in the order of the choices and their values."""
        for values in assignments(self.table):
            architecture = Architecture(values)
            if self.representative(architecture) == architecture and self.problem_of(architecture) is None:
                yield architecture

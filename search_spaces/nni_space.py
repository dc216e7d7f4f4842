"""Search space ``nni-space``: any NNI 3.0 ``ModelSpace``.

The mutables of the model space become choices, and its ``freeze`` builds the model of an architecture.
"""

from __future__ import annotations

import importlib
import inspect
import itertools
import json
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from nas_meta import Architecture, Choice, PluginOptions, SearchSpace
from nas_meta.core.guard import first_line
from nas_meta.core.options import CodeName
from nas_meta.core.paths import ModelName
from nas_meta.core.plugins import load_module
from nas_meta.errors import ConfigError, PluginError, nearest
from nas_meta.space.architecture import Value
from nas_meta.tasks.packaged_models import MINILM
from strategies.nni import bare  # noqa: F401  sets NNI up; must be imported before NNI

with warnings.catch_warnings():
    warnings.simplefilter("ignore", RuntimeWarning)  # NNI warns about layers of newer torch versions
    from nni.mutable import Categorical, CategoricalMultiple, LabeledMutable, Mutable
    from nni.mutable.annotation import MutableAnnotation
    from nni.nas.nn.pytorch import LayerChoice, ModelSpace, MutableModule, Repeat

AUTOFORMER = "nni.nas.hub.pytorch:AutoformerSpace"
SMALL: dict[str, Any] = {
    "search_embed_dim": [32, 64],
    "search_mlp_ratio": [1.0, 2.0, 4.0],
    "search_num_heads": [1, 2],
    "search_depth": [1, 2, 3, 4],
    "img_size": 8,
    "patch_size": 2,
    "in_channels": 1,
    "num_labels": 0,
}
WEIGHTS, MODEL_TYPE = "model.safetensors", "nni-space"
LOADING = """from search_spaces.nni_space import load_frozen

model = load_frozen("{folder}")
"""
MOST_SUBSETS = 10_000  # limit for the values of one choice
Condition = dict[str, tuple[Value, ...]]


class NNISpaceOptions(PluginOptions):
    """Options of the search space ``nni-space``; the defaults give a small AutoFormer for the digits."""

    model_space: CodeName = Field(
        AUTOFORMER, description="model space class, path/to/file.py:Name or package.module:Name"
    )
    arguments: dict[str, Any] = Field(
        default_factory=lambda: dict(SMALL),
        description="keyword arguments of the constructor of model_space; none by default if model_space is set",
    )
    image_shape: tuple[int, int, int] = Field(
        (1, 8, 8), description="channels, height and width of the images; ignored if the models take text"
    )
    tokenizer: ModelName = Field(
        MINILM, description="tokenizer, as a folder, a hub name, or starter:minilm; ignored if the models take images"
    )

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, options: Any) -> Any:
        """Drop the default arguments, which fit only the default model space, if another one is named."""
        if isinstance(options, Mapping) and "model_space" in options:
            return {"arguments": {}, **options}
        return options

    @field_validator("model_space")
    @classmethod
    def _exists(cls, name: str) -> str:
        """Check that the model space can be imported."""
        model_space_of(name)
        return name

    @model_validator(mode="after")
    def _fits(self) -> NNISpaceOptions:
        """Check that the constructor of the model space takes the arguments."""
        plugin = model_space_of(self.model_space)
        # The constructor of NNI's wrapper accepts any argument, so the wrapped one is inspected.
        known = inspect.signature(getattr(plugin, "_init_wrapped", plugin.__init__)).parameters
        if not any(p.kind is p.VAR_KEYWORD for p in known.values()):
            for name in self.arguments:
                if name not in known:
                    hint = nearest(name, set(known) - {"self"})
                    raise ValueError(f"arguments has '{name}', which {plugin.__name__} does not take; {hint}")
        return self


class NNISpace(SearchSpace):
    """Any NNI ModelSpace, such as AutoFormer from NNI's hub: its mutables are the choices.

    Models whose ``forward`` takes ``input_ids`` and ``attention_mask`` take text; all others take images. Mutables
    inside a layer that was not chosen, or inside a block beyond the depth, have no effect; their choices are inactive.

    Args:
        options: The model space and its arguments; the defaults of ``NNISpaceOptions`` if None.

    Raises:
        ValueError: ``options.model_space`` is not the name of a model space.
    """

    Options = NNISpaceOptions

    def __init__(self, options: NNISpaceOptions | None = None):
        super().__init__(options)
        self.model_space = model_space_of(self.options.model_space)
        self.takes = set(inspect.signature(self.model_space.forward).parameters)
        self.tokenizer = self.options.tokenizer
        self.modality = "text" if "input_ids" in self.takes else "image"
        self.image_shape = self.options.image_shape if self.modality == "image" else None

    def choices(self) -> Mapping[str, Choice]:
        when = conditions(self._template, self._values)
        return {label: Choice(tuple(values), when.get(label, {})) for label, values in self._values.items()}

    def problem(self, architecture: Architecture) -> str | None:
        if not self._constrained:
            return None
        error = self._template.check_contains(self._sample(architecture))
        return None if error is None else f"NNI rejects it: {first_line(error, with_type=False)}"

    def size(self) -> int:
        return super().size() if self._constrained else self.unconstrained

    def build(self, architecture: Architecture) -> nn.Module:
        # A new instance for every model: freeze() shares the modules that it does not have to slice.
        model = self._instance().freeze(self._sample(architecture))
        return Positional(model) if self.modality == "image" and "pixel_values" not in self.takes else model

    def save(self, model: nn.Module, architecture: Architecture, folder: Path) -> None:
        """Write the weights and the description from which :func:`load_frozen` rebuilds the model."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        # Copies: layers may share a tensor, which safetensors refuses to save.
        save_file({n: t.detach().cpu().clone().contiguous() for n, t in model.state_dict().items()}, folder / WEIGHTS)
        description = {
            "model_type": MODEL_TYPE,
            "nas_meta_loading": LOADING.format(folder=folder.name),
            "options": self.options.model_dump(mode="json"),
            "architecture": dict(architecture.values),
        }
        (folder / "config.json").write_text(json.dumps(description, indent=1), encoding="utf-8")

    def load(self, folder: Path) -> nn.Module:
        from safetensors.torch import load_file

        description = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if description.get("model_type") != MODEL_TYPE:
            return super().load(folder)
        model = self.build(self.architecture(description["architecture"]))
        model.load_state_dict(load_file(folder / WEIGHTS))
        return model

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_template"}

    @cached_property
    def _template(self) -> ModelSpace:
        """Instance of the model space whose mutables define the choices."""
        with torch.random.fork_rng(devices=[]):  # listing the choices must not advance a trial's random state
            return self._instance()

    @cached_property
    def _values(self) -> dict[str, dict[Value, Any]]:
        """For every choice its values, each with the value that NNI's sample uses for it."""
        name = self.options.model_space
        try:
            mutables = self._template.simplify()
        except (ValueError, NotImplementedError) as error:
            raise ConfigError(f"space.model_space '{name}' cannot be turned into a list of choices: {error}") from error
        chosen = {label: m for label, m in mutables.items() if not isinstance(m, MutableAnnotation)}
        if not chosen:
            raise ConfigError(f"space.model_space '{name}' has no choices; expected at least one NNI mutable in it")
        return {label: values_of(m, name) for label, m in chosen.items()}

    @cached_property
    def _constrained(self) -> bool:
        """Whether the model space has constraints in addition to the values of its mutables."""
        annotated = any(isinstance(m, MutableAnnotation) for m in self._template.simplify().values())
        checks = {type(m).check_contains for m in self._template.modules() if isinstance(m, MutableModule)}
        return annotated or any(not check.__module__.startswith("nni.nas.nn.pytorch") for check in checks)

    def _instance(self) -> ModelSpace:
        """Create an instance of the model space."""
        try:
            return self.model_space(**self.options.arguments)
        except Exception as error:
            raise ConfigError(
                f"space.model_space '{self.options.model_space}' cannot be created with space.arguments: "
                f"{first_line(error)}"
            ) from error

    def _sample(self, architecture: Architecture) -> dict[str, Any]:
        """Return NNI's sample of an architecture, which needs a value for every mutable, even without effect."""
        return {
            label: values[architecture[label]] if label in architecture.values else next(iter(values.values()))
            for label, values in self._values.items()
        }


def load_frozen(folder: str | Path) -> nn.Module:
    """Load a model that :meth:`NNISpace.save` wrote.

    This runs the code of the model space that the folder names: load only folders that you trust.

    Args:
        folder: The exported folder.

    Returns:
        The model in evaluation mode.
    """
    description = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    return NNISpace(NNISpaceOptions.model_validate(description["options"])).load(Path(folder)).eval()


class Positional(nn.Module):
    """Wrapper for an image model whose input has another name than ``pixel_values``.

    Args:
        model: A model that takes images ``[B, channels, height, width]`` as its first argument.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Any:
        return self.model(pixel_values)


def model_space_of(name: str) -> type[ModelSpace]:
    """Import the class of a model space.

    Args:
        name: ``path/to/file.py:Name`` or ``package.module:Name``. The file or module is executed.

    Returns:
        The class.

    Raises:
        ValueError: The name has another form, the module cannot be imported, or it has no such model space.
    """
    path, _, attribute = name.rpartition(":")
    if not path or not attribute:
        raise ValueError(f"{name!r} is not the path of a class; expected path/to/file.py:Name or package.module:Name")
    try:
        module = load_module(path, f"'{name}'") if path.endswith(".py") else importlib.import_module(path)
    except PluginError as error:
        raise ValueError(str(error)) from error
    except Exception as error:  # importing a module may raise anything
        raise ValueError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    model_space = getattr(module, attribute, None)
    if not isinstance(model_space, type) or not issubclass(model_space, ModelSpace):
        known = [n for n, v in vars(module).items() if isinstance(v, type) and issubclass(v, ModelSpace)]
        fault = f"{path} has no '{attribute}'" if model_space is None else f"{name} is not an NNI ModelSpace"
        raise ValueError(f"{fault}; {nearest(attribute, {*known} - {'ModelSpace'})}")
    return model_space


def values_of(mutable: LabeledMutable, name: str) -> dict[Value, Any]:
    """Return the values of the choice that stands for a mutable.

    A mutable that selects several inputs becomes a choice among subsets: inputs 0 and 2 are the value ``0+2``. If it
    may select any number of inputs, the empty subset is left out.

    Args:
        mutable: A simplified mutable of NNI.
        name: Name of the model space, for error messages.

    Returns:
        NNI's value for each value of the choice.

    Raises:
        ConfigError: The mutable is not categorical, or it has more than ``MOST_SUBSETS`` subsets.
    """
    if isinstance(mutable, Categorical):
        return named(list(mutable.values))
    where = f"space.model_space '{name}': NNI's mutable '{mutable.label}'"
    if not isinstance(mutable, CategoricalMultiple):
        raise ConfigError(
            f"{where} is a {type(mutable).__name__}, whose values cannot be listed; expected Categorical mutables"
        )
    values, chosen = list(mutable.values), mutable.n_chosen
    sizes = range(1, len(values) + 1) if chosen is None else [chosen]
    subsets = sum(math.comb(len(values), size) for size in sizes)
    if subsets > MOST_SUBSETS:
        raise ConfigError(f"{where} has {subsets:,} possible subsets; expected at most {MOST_SUBSETS:,}")
    rows = [list(row) for size in sizes for row in itertools.combinations(values, size)]
    if chosen == 1:
        return dict(zip(named(values), rows, strict=True))
    return {"+".join(map(str, row)): row for row in rows}


def named(values: Sequence[Any]) -> dict[Value, Any]:
    """Map plain values, which a choice can hold, to the values of a mutable.

    Numbers, booleans and strings stand for themselves. Other values are named by their text, or by their index if two
    of them have the same text.

    Args:
        values: The values of a mutable.

    Returns:
        The value of the mutable for each plain value.
    """
    if all(isinstance(value, (bool, int, float, str)) for value in values):
        return {value: value for value in values}
    texts = [str(value) for value in values]
    return dict(zip(texts if len(set(texts)) == len(texts) else range(len(texts)), values, strict=True))


def conditions(space: ModelSpace, values: Mapping[str, Mapping[Value, Any]]) -> dict[str, Condition]:
    """Derive when each choice has an effect: the ``when`` of its :class:`Choice`.

    The modules of the model space are walked from the root, and each layer choice or depth on the way narrows the
    condition. For example, in ``LayerChoice([A, B], label="op")`` a mutable ``width`` inside ``A`` gets the condition
    ``{"op": ("A",)}``. A choice that occurs in several places has an effect if any of them is reached, so their
    conditions are united value by value. A condition that cannot be written as values of single choices, such as a
    depth that is the sum of two choices, is left out; two architectures may then be the same model.

    Args:
        space: An instance of the model space.
        values: The values of every choice, as :func:`values_of` returns them, by label.

    Returns:
        For every label the values of other choices under which it has an effect; an empty mapping means always.
    """
    occurrences: dict[str, list[Condition]] = {}
    for label, condition in _places(space, {}, values):
        occurrences.setdefault(label, []).append(condition)
    united: dict[str, Condition] = {}
    for label, rows in occurrences.items():
        shared = set.intersection(*(set(row) for row in rows))
        reached = {name: {value for row in rows for value in row[name]} for name in values if name in shared}
        united[label] = {name: tuple(v for v in values[name] if v in some) for name, some in reached.items()}
    for label, condition in united.items():
        # Drop what every architecture meets. A choice precedes its dependents, so united[n] is final here.
        united[label] = {n: v for n, v in condition.items() if len(v) < len(values[n]) or united.get(n)}
    return united


def _places(
    module: nn.Module, condition: Condition, values: Mapping[str, Mapping[Value, Any]]
) -> Iterator[tuple[str, Condition]]:
    """Yield the label of each mutable in a module, and the condition under which the mutable is reached."""
    if isinstance(module, MutableModule):
        plain = type(module).leaf_mutables is MutableModule.leaf_mutables
        for mutable in module.mutables if plain else [module]:
            yield from ((label, condition) for label in mutable.simplify())
        if not plain:
            return
    if isinstance(module, LayerChoice):
        for name in module.names:
            yield from _places(module[name], _narrowed(condition, module.label, [name], values), values)
    elif isinstance(module, Repeat):
        for i, block in enumerate(module.blocks):
            yield from _places(block, _deeper(condition, module.depth_choice, i, values), values)
    else:
        for child in module.children():
            yield from _places(child, condition, values)


def _deeper(condition: Condition, depth: int | Mutable, i: int, values: Mapping[str, Mapping[Value, Any]]) -> Condition:
    """Narrow a condition to depths above i, if the depth is decided by one choice."""
    labels = list(depth.simplify()) if isinstance(depth, Mutable) else []
    if len(labels) != 1:
        return condition
    (label,) = labels
    enough = [value for value, nni_value in values[label].items() if depth.freeze({label: nni_value}) > i]
    return _narrowed(condition, label, enough, values)


def _narrowed(
    condition: Condition, label: str, allowed: Sequence[Value], values: Mapping[str, Mapping[Value, Any]]
) -> Condition:
    """Narrow a condition to the allowed values of one choice."""
    before = condition.get(label, tuple(values[label]))
    return {**condition, label: tuple(value for value in before if value in allowed)}

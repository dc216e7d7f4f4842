"""Any NNI 3.0 ``ModelSpace`` as a search space: its mutables are the choices, ``freeze`` builds."""

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
from nas_meta.core.plugins import load_module
from nas_meta.errors import ConfigError, PluginError, nearest
from nas_meta.space.architecture import Value
from nas_meta.tasks.packaged_models import MINILM
from strategies.nni import bare  # noqa: F401  where NNI is told what it must be told first

with warnings.catch_warnings():
    warnings.simplefilter("ignore", RuntimeWarning)  # that it does not know what newer versions of torch have
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
MOST_SUBSETS = 10_000  # that one choice may list
Condition = dict[str, tuple[Value, ...]]


class NNISpaceOptions(PluginOptions):
    """Options of ``nni-space``; by default a small AutoFormer for the digits."""

    model_space: str = Field(AUTOFORMER, description="the class: path/to/file.py:Name or package.module:Name")
    arguments: dict[str, Any] = Field(
        default_factory=lambda: dict(SMALL),
        description="those of its constructor, by name; where a model space is named, by default none",
    )
    image_shape: tuple[int, int, int] = Field(
        (1, 8, 8), description="channels, height and width of the images, where the models take images"
    )
    tokenizer: str = Field(MINILM, description="whose token ids the models take, where they take texts")

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and "model_space" in given:
            return {"arguments": {}, **given}
        return given

    @field_validator("model_space")
    @classmethod
    def _exists(cls, name: str) -> str:
        model_space_of(name)
        return name

    @model_validator(mode="after")
    def _fits(self) -> NNISpaceOptions:
        plugin = model_space_of(self.model_space)
        # NNI's wrapper takes anything; what it wraps does not.
        known = inspect.signature(getattr(plugin, "_init_wrapped", plugin.__init__)).parameters
        if not any(p.kind is p.VAR_KEYWORD for p in known.values()):
            for name in self.arguments:
                if name not in known:
                    hint = nearest(name, set(known) - {"self"})
                    raise ValueError(f"arguments has '{name}', which {plugin.__name__} does not take; {hint}")
        return self


class NNISpace(SearchSpace):
    """Any NNI ModelSpace, such as its hub's AutoFormer: the mutables are the choices, ``freeze`` builds.

    Models whose ``forward`` takes ``input_ids`` and ``attention_mask`` are of texts, all others of images. What is in
    a layer that was not chosen, or in a block beyond the depth, has no effect, and no choice.
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
        found = self._template.check_contains(self._sample(architecture))
        return None if found is None else f"NNI says: {str(found).splitlines()[0]}"

    def size(self) -> int:
        return super().size() if self._constrained else self.unconstrained

    def build(self, architecture: Architecture) -> nn.Module:
        # Of its own for every model: what NNI does not have to cut it does not copy.
        model = self._instance().freeze(self._sample(architecture))
        return Positional(model) if self.modality == "image" and "pixel_values" not in self.takes else model

    def save(self, model: nn.Module, architecture: Architecture, folder: Path) -> None:
        """The weights, and what :func:`load_frozen` needs to build what they belong to."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        # Copies: layers may share a tensor, and a file may not.
        save_file({n: t.detach().cpu().clone().contiguous() for n, t in model.state_dict().items()}, folder / WEIGHTS)
        described = {
            "model_type": MODEL_TYPE,
            "nas_meta_loading": LOADING.format(folder=folder.name),
            "options": self.options.model_dump(mode="json"),
            "architecture": dict(architecture.values),
        }
        (folder / "config.json").write_text(json.dumps(described, indent=1), encoding="utf-8")

    def load(self, folder: Path) -> nn.Module:
        from safetensors.torch import load_file

        described = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if described.get("model_type") != MODEL_TYPE:
            return super().load(folder)
        model = self.build(self.architecture(described["architecture"]))
        model.load_state_dict(load_file(folder / WEIGHTS))
        return model

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_template"}

    @cached_property
    def _template(self) -> ModelSpace:
        with torch.random.fork_rng(devices=[]):  # asking for the choices draws nothing from a trial's numbers
            return self._instance()

    @cached_property
    def _values(self) -> dict[str, dict[Value, Any]]:
        """What every value of a choice is in NNI's sample."""
        name = self.options.model_space
        try:
            mutables = self._template.simplify()
        except (ValueError, NotImplementedError) as error:
            raise ConfigError(f"space.model_space '{name}' has no plain list of choices: {error}") from error
        found = {label: m for label, m in mutables.items() if not isinstance(m, MutableAnnotation)}
        if not found:
            raise ConfigError(f"space.model_space '{name}' has nothing to choose; expected NNI's mutables in it")
        return {label: values_of(m, name) for label, m in found.items()}

    @cached_property
    def _constrained(self) -> bool:
        """Whether more than the values of its mutables decides what is in the model space."""
        annotated = any(isinstance(m, MutableAnnotation) for m in self._template.simplify().values())
        checks = {type(m).check_contains for m in self._template.modules() if isinstance(m, MutableModule)}
        return annotated or any(not check.__module__.startswith("nni.nas.nn.pytorch") for check in checks)

    def _instance(self) -> ModelSpace:
        try:
            return self.model_space(**self.options.arguments)
        except Exception as error:
            words = str(error).strip().splitlines() or ["no message"]
            raise ConfigError(
                f"space.model_space '{self.options.model_space}' cannot be made with space.arguments: "
                f"{type(error).__name__}: {words[0]}"
            ) from error

    def _sample(self, architecture: Architecture) -> dict[str, Any]:
        """As NNI wants it: a value for every mutable, also where that has no effect."""
        return {
            label: values[architecture[label]] if label in architecture.values else next(iter(values.values()))
            for label, values in self._values.items()
        }


def load_frozen(folder: str | Path) -> nn.Module:
    """The model of a folder that :meth:`NNISpace.save` wrote; the code of its model space is run."""
    described = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    return NNISpace(NNISpaceOptions.model_validate(described["options"])).load(Path(folder)).eval()


class Positional(nn.Module):
    """A model of images that calls its input something else."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Any:
        return self.model(pixel_values)


def model_space_of(name: str) -> type[ModelSpace]:
    """The class of a model space.

    Raises:
        ValueError: there is none of that name.
    """
    path, _, attribute = name.rpartition(":")
    if not path or not attribute:
        raise ValueError(f"{name!r} names no model space; expected path/to/file.py:Name or package.module:Name")
    try:
        module = load_module(path, f"'{name}'") if path.endswith(".py") else importlib.import_module(path)
    except PluginError as error:
        raise ValueError(str(error)) from error
    except Exception as error:  # a module may raise anything when it is imported
        raise ValueError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    found = getattr(module, attribute, None)
    if not isinstance(found, type) or not issubclass(found, ModelSpace):
        known = [n for n, v in vars(module).items() if isinstance(v, type) and issubclass(v, ModelSpace)]
        what = "has no" if found is None else "has another kind of thing than an NNI ModelSpace as"
        raise ValueError(f"{path} {what} '{attribute}'; {nearest(attribute, {*known} - {'ModelSpace'})}")
    return found


def values_of(mutable: LabeledMutable, name: str) -> dict[Value, Any]:
    """The values that a choice has for a mutable, each with what NNI calls it.

    Of several inputs at a time every subset is one value, ``0+2``; where any number may be chosen, at least one is.

    Raises:
        ConfigError: the values cannot be listed.
    """
    if isinstance(mutable, Categorical):
        return named(list(mutable.values))
    where = f"space.model_space '{name}': NNI's mutable '{mutable.label}'"
    if not isinstance(mutable, CategoricalMultiple):
        raise ConfigError(
            f"{where} is a {type(mutable).__name__}, whose values have no list; expected Categorical ones alone"
        )
    values, chosen = list(mutable.values), mutable.n_chosen
    sizes = range(1, len(values) + 1) if chosen is None else [chosen]
    subsets = sum(math.comb(len(values), size) for size in sizes)
    if subsets > MOST_SUBSETS:
        raise ConfigError(f"{where} has {subsets:,} subsets to choose from; expected at most {MOST_SUBSETS:,}")
    rows = [list(row) for size in sizes for row in itertools.combinations(values, size)]
    if chosen == 1:
        return dict(zip(named(values), rows, strict=True))
    return {"+".join(map(str, row)): row for row in rows}


def named(values: Sequence[Any]) -> dict[Value, Any]:
    """Values by themselves where a choice can have them, else by their text, or by their number."""
    if all(isinstance(value, (bool, int, float, str)) for value in values):
        return {value: value for value in values}
    words = [str(value) for value in values]
    return dict(zip(words if len(set(words)) == len(words) else range(len(words)), values, strict=True))


def conditions(space: ModelSpace, values: Mapping[str, Mapping[Value, Any]]) -> dict[str, Condition]:
    """Under which values of other choices a choice has an effect.

    One that stands in several places has it where one of them is reached. What cannot be said as values of choices one
    by one, such as a depth that is a sum of two, is taken as reached: two architectures may then be one model.
    """
    places: dict[str, list[Condition]] = {}
    for label, given in _places(space, {}, values):
        places.setdefault(label, []).append(given)
    found: dict[str, Condition] = {}
    for label, rows in places.items():
        shared = set.intersection(*(set(row) for row in rows))
        reached = {name: {value for row in rows for value in row[name]} for name in values if name in shared}
        found[label] = {name: tuple(v for v in values[name] if v in some) for name, some in reached.items()}
    for label, condition in found.items():
        # What every architecture meets is no condition; what a condition names comes before what it rules.
        found[label] = {n: v for n, v in condition.items() if len(v) < len(values[n]) or found.get(n)}
    return found


def _places(
    module: nn.Module, given: Condition, values: Mapping[str, Mapping[Value, Any]]
) -> Iterator[tuple[str, Condition]]:
    """Where labels stand in a module that is reached under a condition."""
    if isinstance(module, MutableModule):
        plain = type(module).leaf_mutables is MutableModule.leaf_mutables
        for mutable in module.mutables if plain else [module]:
            yield from ((label, given) for label in mutable.simplify())
        if not plain:
            return
    if isinstance(module, LayerChoice):
        for name in module.names:
            yield from _places(module[name], _narrowed(given, module.label, [name], values), values)
    elif isinstance(module, Repeat):
        for i, block in enumerate(module.blocks):
            yield from _places(block, _deeper(given, module.depth_choice, i, values), values)
    else:
        for child in module.children():
            yield from _places(child, given, values)


def _deeper(given: Condition, depth: int | Mutable, i: int, values: Mapping[str, Mapping[Value, Any]]) -> Condition:
    """Where a depth is more than i."""
    labels = list(depth.simplify()) if isinstance(depth, Mutable) else []
    if len(labels) != 1:
        return given
    (label,) = labels
    enough = [value for value, nnis in values[label].items() if depth.freeze({label: nnis}) > i]
    return _narrowed(given, label, enough, values)


def _narrowed(
    given: Condition, label: str, wanted: Sequence[Value], values: Mapping[str, Mapping[Value, Any]]
) -> Condition:
    before = given.get(label, tuple(values[label]))
    return {**given, label: tuple(value for value in before if value in wanted)}

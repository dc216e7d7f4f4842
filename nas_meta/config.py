"""The YAML file as pydantic models, one per section; plugin options are validated with the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, field_validator

from nas_meta import plugins
from nas_meta.errors import ConfigError, PluginError, nearest
from nas_meta.space import PluginOptions


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_default=True)


class TasksSection(Section):
    """What every task source shares; the source's own options stand beside these."""

    source: str = Field("icd10", description="task source: an installed name or path/to/file.py:Name")
    ways: int = Field(5, ge=2, description="classes in an episode (N)")
    shots: int = Field(1, ge=1, description="support examples a class (K)")
    queries: int = Field(5, ge=1, description="query examples a class (Q)")
    max_tokens: int = Field(32, ge=4, description="texts are cut to this many tokens")
    pooling: Literal["mean", "cls"] = Field("mean", description="how token states become one embedding")


class NamedSection(Section):
    name: str = Field(description="the plugin: an installed name or path/to/file.py:Name")


class SpaceSection(NamedSection):
    name: str = Field("bert-subnet", description="search space: an installed name or path/to/file.py:Name")


class LearnerSection(NamedSection):
    name: str = Field("protonet", description="learner: an installed name or path/to/file.py:Name")


class StrategySection(NamedSection):
    name: str = Field("evolution", description="strategy: an installed name or path/to/file.py:Name")


class EvaluationSection(Section):
    episodes: int = Field(200, ge=2, description="meta-validation episodes, the same for every trial")
    interim_every: int = Field(0, ge=0, description="also validate every so many steps; 0 never")
    interim_episodes: int = Field(40, ge=2, description="episodes of such an interim validation")
    test_episodes: int = Field(600, ge=2, description="meta-test episodes after the search")
    test_best: int = Field(3, ge=0, description="how many of the best are meta-tested")
    keep: int = Field(3, ge=1, description="trained weights are kept of so many best trials")
    flops_tokens: int = Field(32, ge=1, description="FLOPs are those of one text of so many tokens")


METRICS = (
    "accuracy",
    "accuracy_ci95",
    "params",
    "flops",
    "train_seconds",
    "evaluate_seconds",
    "peak_memory",
    "adapted_share",
)


class ObjectiveSection(Section):
    metric: str = Field(description="a metric of a trial, such as accuracy, params or flops")
    direction: Literal["maximize", "minimize"] = Field("maximize", description="which way is better")

    @field_validator("metric")
    @classmethod
    def _is_measured(cls, metric: str) -> str:
        if metric not in METRICS:
            raise ValueError(f"no trial measures '{metric}'; {nearest(metric, METRICS)}")
        return metric


class BudgetSection(Section):
    trials: int = Field(20, ge=1, description="trials to run")
    hours: float | None = Field(None, gt=0, description="no trial is started after so many hours")


class ResourcesSection(Section):
    workers: int = Field(2, ge=1, description="trials at a time")
    cpus_per_trial: float | None = Field(None, gt=0, description="CPUs a trial; by default shared out evenly")
    gpus_per_trial: float = Field(0, ge=0, description="GPUs a trial, may be a fraction")
    address: str | None = Field(None, description="an existing Ray cluster; by default one starts in this process")


DEFAULT_OBJECTIVES = [
    {"metric": "accuracy", "direction": "maximize"},
    {"metric": "flops", "direction": "minimize"},
]

# section of the file -> (its model, kind of plugin whose options stand in it, key that names the plugin)
PLUGIN_SECTIONS = {
    "space": (SpaceSection, "spaces", "name"),
    "tasks": (TasksSection, "tasks", "source"),
    "learner": (LearnerSection, "learners", "name"),
    "strategy": (StrategySection, "strategies", "name"),
}
PLAIN_SECTIONS = {"evaluation": EvaluationSection, "budget": BudgetSection, "resources": ResourcesSection}


class Config(Section):
    """A search. The first objective ranks trials; all of them make the Pareto front."""

    space: SpaceSection = Field(default_factory=SpaceSection)
    tasks: TasksSection = Field(default_factory=TasksSection)
    learner: LearnerSection = Field(default_factory=LearnerSection)
    strategy: StrategySection = Field(default_factory=StrategySection)
    evaluation: EvaluationSection = Field(default_factory=EvaluationSection)
    objectives: list[ObjectiveSection] = Field(
        default_factory=lambda: [ObjectiveSection(**o) for o in DEFAULT_OBJECTIVES], min_length=1
    )
    budget: BudgetSection = Field(default_factory=BudgetSection)
    resources: ResourcesSection = Field(default_factory=ResourcesSection)
    seed: int = Field(0, ge=0, description="of everything random")
    run_dir: Path | None = Field(None, description="where the run lies; by default a new folder under runs/")


@dataclass(frozen=True)
class ResolvedConfig:
    """A validated config with the options of its plugins."""

    config: Config
    options: Mapping[str, PluginOptions]

    def plugin(self, section: str) -> type:
        """The plugin class that a section names."""
        _, kind, key = PLUGIN_SECTIONS[section]
        return plugins.load(kind, getattr(getattr(self.config, section), key))

    @cached_property
    def document(self) -> dict[str, Any]:
        """The whole config, defaults filled in, as plain data."""
        document = self.config.model_dump(mode="json")
        for section, options in self.options.items():
            document[section] |= options.model_dump(mode="json")
        return document

    def as_yaml(self) -> str:
        """:attr:`document` as YAML."""
        return yaml.safe_dump(self.document, sort_keys=False)


class Source:
    """Where a value stands: turns a key path into ``file:line``."""

    def __init__(self, name: str, text: str = "", overridden: Sequence[str] = ()):
        self.name = name
        self.lines: dict[tuple, int] = {}
        self.overridden = set(overridden)
        if text:
            self._walk(yaml.compose(text, Loader=yaml.SafeLoader), ())

    def _walk(self, node: yaml.Node | None, path: tuple) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                here = (*path, key.value)
                self.lines[here] = key.start_mark.line + 1
                self._walk(value, here)
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                self.lines[(*path, index)] = value.start_mark.line + 1
                self._walk(value, (*path, index))

    def at(self, path: tuple) -> str:
        """``file:line`` of the deepest part of the path that the file has."""
        if ".".join(map(str, path)) in self.overridden:
            return "--set"
        for end in range(len(path), 0, -1):
            if path[:end] in self.lines:
                return f"{self.name}:{self.lines[path[:end]]}"
        return self.name


def read_config(path: str | Path, overrides: Sequence[str] = ()) -> ResolvedConfig:
    """Reads and validates a config file; ``overrides`` are ``section.key=value`` with YAML values.

    Raises:
        ConfigError: one sentence naming file, line and key, what was expected and the nearest valid name.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        document = yaml.safe_load(text)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 (byte {error.start}); expected a YAML file") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise ConfigError(f"{where}: not YAML ({getattr(error, 'problem', None) or 'unreadable'})") from error
    if document is None:
        document = {}
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: a {type(document).__name__}; expected sections such as 'space:' and 'tasks:'")
    return resolve(document, Source(str(path), text, [o.partition("=")[0] for o in overrides]), overrides)


def resolve(document: Mapping[str, Any], source: Source | None = None, overrides: Sequence[str] = ()) -> ResolvedConfig:
    """Validates a config given as plain data; see :func:`read_config`."""
    source = source or Source("config")
    document = apply_overrides(document, overrides)
    for section in document:
        if section not in Config.model_fields:
            raise ConfigError(
                f"{source.at((section,))}: '{section}' is not a section; {nearest(str(section), Config.model_fields)}"
            )
    options: dict[str, PluginOptions] = {}
    plain: dict[str, Any] = dict(document)
    for section, (model, kind, key) in PLUGIN_SECTIONS.items():
        given = document.get(section) or {}
        if not isinstance(given, dict):
            raise ConfigError(f"{source.at((section,))}: '{section}' is {given!r}; expected keys such as '{key}:'")
        own = {k: v for k, v in given.items() if k in model.model_fields}
        name = own.get(key, model.model_fields[key].default)
        if not isinstance(name, str):
            raise ConfigError(f"{source.at((section, key))}: {section}.{key} is {name!r}; expected a name")
        try:
            option_model = plugins.options_of(kind, name)
        except PluginError as error:
            raise ConfigError(f"{source.at((section, key))}: {section}.{key}: {error}") from error
        rest = {k: v for k, v in given.items() if k not in own}
        options[section] = _validate(option_model, rest, source, (section,), set(model.model_fields))
        plain[section] = own
    return ResolvedConfig(_validate(Config, plain, source, (), set()), options)


def apply_overrides(document: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The document with every ``section.key=value`` set; values are YAML."""
    import copy

    result = copy.deepcopy(dict(document))
    for override in overrides:
        path, equals, value = override.partition("=")
        if not equals or not path:
            raise ConfigError(f"--set {override}: expected section.key=value")
        *parents, last = path.split(".")
        target = result
        for parent in parents:
            if target.get(parent) is None:
                target[parent] = {}
            target = target[parent]
            if not isinstance(target, dict):
                raise ConfigError(f"--set {override}: '{parent}' has no keys")
        try:
            target[last] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {override}: the value is not YAML") from error
        if isinstance(target[last], str):
            # YAML 1.1 reads 1e-4 as a string
            try:
                target[last] = float(target[last])
            except ValueError:
                continue
    return result


def schema() -> dict[str, Any]:
    """The JSON Schema of a config, with the options of every installed plugin."""
    fields: dict[str, Any] = {}
    for section, (model, kind, key) in PLUGIN_SECTIONS.items():
        variants = []
        for row in plugins.installed(kind):
            if row.broken is None:
                option_model = plugins.options_of(kind, row.name)
                variant = create_model(
                    f"{section}-{row.name}",
                    __base__=(option_model, model),
                    **{key: (Literal[row.name], row.name)},
                )
                variants.append(variant)
        union = variants[0]
        for variant in variants[1:]:
            union = union | variant
        anything = create_model(f"{section}-file", __config__=ConfigDict(extra="allow"), **{key: (str, ...)})
        fields[section] = (union | anything, Field(default_factory=dict))
    return create_model("Config", __base__=Config, **fields).model_json_schema()


def _validate(model: type[BaseModel], data: Mapping[str, Any], source: Source, prefix: tuple, also: set[str]) -> Any:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        path = (*prefix, *first["loc"])
        raise ConfigError(f"{source.at(path)}: {_sentence(model, first, path, also)}") from error


def _sentence(model: type[BaseModel], error: Mapping[str, Any], path: tuple, also: set[str]) -> str:
    name = ".".join(map(str, path))
    if error["type"] == "extra_forbidden":
        known = _fields_at(model, error["loc"][:-1]) | also
        return f"'{name}' is not a known key; {nearest(str(path[-1]), known)}"
    if error["type"] == "missing":
        return f"'{name}' is missing"
    expected = error["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    if error["type"] == "value_error":
        return f"{name}: {expected}"
    return f"{name} is {error['input']!r}; expected {expected}"


def _fields_at(model: type[BaseModel], path: tuple) -> set[str]:
    for part in path:
        if isinstance(part, str) and part in model.model_fields:
            annotation = model.model_fields[part].annotation
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                model = annotation
            else:
                model = ObjectiveSection if part == "objectives" else model
    return set(model.model_fields)

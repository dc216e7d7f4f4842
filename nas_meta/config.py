"""The YAML file as pydantic models, one per section; plugin options are validated with the rest."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, create_model, field_validator, model_validator

from nas_meta import plugins
from nas_meta.config_source import Source, apply_overrides, validate
from nas_meta.errors import ConfigError, PluginError, nearest
from nas_meta.objectives import Limit, Objective
from nas_meta.recipe import CHOICE, TASK_CHOICES, Recipe, choices_in, known_to, with_values
from nas_meta.space import Architecture, Choice, PluginOptions, Value
from nas_meta.stopping import RULES, StoppingOptions, read_section


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_default=True)


class TasksSection(Section):
    """What every task source shares; the source's own options stand beside these."""

    source: str = Field("icd10", description="task source: an installed name or path/to/file.py:Name")
    ways: int = Field(5, ge=2, description="classes in an episode (N)")
    shots: int = Field(1, ge=1, description="support examples a class (K)")
    queries: int = Field(5, ge=1, description="query examples a class (Q)")
    train_ways: int | None = Field(None, ge=2, description="classes in an episode of meta-training; by default ways")
    train_shots: int | None = Field(None, ge=1, description="the same for shots")
    train_queries: int | None = Field(None, ge=1, description="the same for queries")
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
    "latency",
    "adapted_share",
    "trained_params",
)


DIRECTIONS = {"accuracy": "maximize"}  # of every other metric less is better


class ObjectiveSection(Section):
    metric: str = Field(description="a metric of a trial, such as accuracy, params or flops")
    direction: Literal["maximize", "minimize", "none"] = Field(
        description="which way is better; none where the metric is only limited"
    )
    min: float | None = Field(None, description="a candidate below is refused")
    max: float | None = Field(None, description="a candidate above is refused, before training where that is known")
    reference: float | None = Field(None, description="the value from which the hypervolume is measured")

    @model_validator(mode="before")
    @classmethod
    def _direction(cls, given: Any) -> Any:
        if isinstance(given, dict) and "direction" not in given:
            limited = not {"min", "max"}.isdisjoint(given) and "reference" not in given
            given = given | {"direction": "none" if limited else DIRECTIONS.get(given.get("metric"), "minimize")}
        return given

    @field_validator("metric")
    @classmethod
    def _is_measured(cls, metric: str) -> str:
        if metric not in METRICS:
            raise ValueError(f"no trial measures '{metric}'; {nearest(metric, METRICS)}")
        return metric


class LatencySection(Section):
    batch: int = Field(1, ge=1, description="texts at a time")
    tokens: int = Field(32, ge=1, description="of each text")
    threads: int = Field(1, ge=1, description="CPU threads; the device is that of the trials")
    seconds: float = Field(1.0, gt=0, description="how long each of the Pareto front is run after the search")
    models: int = Field(24, ge=4, description="random ones that a table is fitted to, where latency is an objective")


class BudgetSection(Section):
    trials: int = Field(20, ge=1, description="trials to run")
    hours: float | None = Field(None, gt=0, description="no trial is started after so many hours")
    timeout_minutes: float | None = Field(None, gt=0, description="a trial that takes longer is ended")


class ResourcesSection(Section):
    workers: int = Field(2, ge=1, description="trials at a time")
    cpus_per_trial: float | None = Field(None, gt=0, description="CPUs a trial; by default shared out evenly")
    gpus_per_trial: float = Field(0, ge=0, description="GPUs a trial, may be a fraction")
    retries: int = Field(2, ge=0, description="a trial whose worker dies is run again so many times")
    grace_seconds: float = Field(30, ge=0, description="for what runs to finish after Ctrl-C; a second one ends it")
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


class Config(Section):
    """A search. The first objective ranks trials; all of them make the Pareto front."""

    space: SpaceSection = Field(default_factory=SpaceSection)
    tasks: TasksSection = Field(default_factory=TasksSection)
    learner: LearnerSection = Field(default_factory=LearnerSection)
    strategy: StrategySection = Field(default_factory=StrategySection)
    evaluation: EvaluationSection = Field(default_factory=EvaluationSection)
    stopping: SerializeAsAny[StoppingOptions] = Field(default_factory=RULES["none"].Options)
    objectives: list[ObjectiveSection] = Field(
        default_factory=lambda: [ObjectiveSection(**o) for o in DEFAULT_OBJECTIVES], min_length=1
    )
    latency: LatencySection = Field(default_factory=LatencySection)
    budget: BudgetSection = Field(default_factory=BudgetSection)
    resources: ResourcesSection = Field(default_factory=ResourcesSection)
    seed: int = Field(0, ge=0, description="of everything random")
    run_dir: Path | None = Field(None, description="where the run lies; by default a new folder under runs/")

    @field_validator("objectives", mode="before")
    @classmethod
    def _by_metric(cls, given: Any) -> Any:
        """``{accuracy: maximize, params: {max: 16e6}}`` as a list of objectives."""
        if not isinstance(given, dict):
            return given
        return [
            {"metric": metric, **({"direction": rest} if isinstance(rest, str) else rest or {})}
            for metric, rest in given.items()
        ]

    @field_validator("objectives")
    @classmethod
    def _something_is_better(cls, objectives: list[ObjectiveSection]) -> list[ObjectiveSection]:
        if all(o.direction == "none" for o in objectives):
            raise ValueError("only limits are given; expected a metric with a direction, such as accuracy: maximize")
        return objectives

    @property
    def directed(self) -> list[Objective]:
        """What is optimised; the first ranks trials."""
        return [Objective(o.metric, o.direction, o.reference) for o in self.objectives if o.direction != "none"]

    @property
    def times(self) -> bool:
        """Whether candidates must be told apart by latency during the search."""
        return any(o.metric == "latency" for o in self.objectives)

    @property
    def limits(self) -> list[Limit]:
        """What no candidate may exceed."""
        return [Limit(o.metric, o.min, o.max) for o in self.objectives if o.min is not None or o.max is not None]


@dataclass(frozen=True)
class ResolvedConfig:
    """A validated config with the options of its plugins."""

    config: Config
    options: Mapping[str, PluginOptions]
    given: Mapping[str, Any] = field(default_factory=dict)
    recipe: Recipe = field(default_factory=Recipe)

    def at(self, architecture: Architecture) -> ResolvedConfig:
        """The config of one candidate: every choice at the value that its architecture has."""
        choices = self.recipe.choices
        # A choice that the architecture does not have is an option of a learner that was not chosen.
        values = {tuple(n.split(".")): architecture.values.get(n, c.values[0]) for n, c in choices.items()}
        document = with_values(self.given, values)
        if "learner.name" in choices:
            options = plugins.options_of("learners", document["learner"]["name"])
            document["learner"] = known_to(options, document["learner"]) | known_to(LearnerSection, document["learner"])
        return resolve(document)

    def plugin(self, section: str) -> type:
        """The plugin class that a section names."""
        _, kind, key = PLUGIN_SECTIONS[section]
        return plugins.load(kind, getattr(getattr(self.config, section), key))

    @cached_property
    def document(self) -> dict[str, Any]:
        """The whole config, defaults filled in, as plain data; choices stay choices."""
        document = self.config.model_dump(mode="json")
        for section, options in self.options.items():
            key = PLUGIN_SECTIONS[section][2]
            if f"{section}.{key}" in self.recipe.choices:
                # Every learner has its own defaults.
                document[section] = dict(self.given[section])
            else:
                document[section] |= options.model_dump(mode="json")
        return with_values(
            document, {tuple(n.split(".")): {CHOICE: list(c.values)} for n, c in self.recipe.choices.items()}
        )

    def as_yaml(self) -> str:
        """:attr:`document` as YAML."""
        return yaml.safe_dump(self.document, sort_keys=False)


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
    sections = {name: _resolve_section(name, document.get(name) or {}, source) for name in PLUGIN_SECTIONS}
    plain = {**document, **{name: section.own for name, section in sections.items()}}
    plain["stopping"] = read_section(document.get("stopping"), source)
    config = validate(Config, plain, source, (), set())
    options = {name: section.options for name, section in sections.items()}
    choices = {path: choice for section in sections.values() for path, choice in section.choices.items()}
    learner = sections["learner"]
    classes = {name: plugins.load("learners", name) for name in learner.names}
    return ResolvedConfig(config, options, document, Recipe(choices, learner.first, classes))


@dataclass(frozen=True)
class _Section:
    """A section that names a plugin: its own keys, the plugin's options, and the choices in it.

    Where there are choices, ``own``, ``options`` and ``first`` (the section as it was given) hold the first value of
    each; ``names`` are the plugins that may be chosen.
    """

    own: dict[str, Any]
    options: PluginOptions
    first: dict[str, Any]
    names: Sequence[str]
    choices: dict[str, Choice]


def _resolve_section(section: str, given: Any, source: Source) -> _Section:
    model, _, key = PLUGIN_SECTIONS[section]
    if not isinstance(given, dict):
        raise ConfigError(f"{source.at((section,))}: '{section}' is {given!r}; expected keys such as '{key}:'")
    found = _choices_of(section, given, source)
    first = {key: model.model_fields[key].default, **with_values(given, {p: v[0] for p, v in found.items()})}
    names = found.get((key,), [first[key]])
    models = {name: _options_model(section, name, source) for name in names}
    own = known_to(model, first)
    rest = {k: v for k, v in first.items() if k not in own}
    # Where the plugin is a choice, an option is for those that know it.
    unknown = [k for k in rest if len(names) > 1 and not any(k in m.model_fields for m in models.values())]
    parts = {name: known_to(m, rest) if len(names) > 1 and not unknown else rest for name, m in models.items()}
    also = set(model.model_fields).union(*(m.model_fields for m in models.values()))
    options = {name: validate(m, parts[name], source, (section,), also) for name, m in models.items()}
    choices = {}
    for path, values in found.items():
        users = tuple(n for n in names if path[0] in models[n].model_fields)
        checked = [_checked(section, path, value, model, models, users, parts, source) for value in values]
        when = {f"{section}.{key}": users} if users and len(users) < len(names) else {}
        choices[".".join((section, *path))] = Choice(tuple(dict.fromkeys(checked)), when)
    return _Section(own, options[names[0]], first, names, choices)


def _choices_of(section: str, given: Mapping[str, Any], source: Source) -> dict[tuple[str, ...], Any]:
    if section not in ("learner", "tasks"):
        return {}
    found = dict(choices_in(given))
    for path, values in found.items():
        name = ".".join((section, *path))
        if not isinstance(values, list) or not values:
            raise ConfigError(f"{source.at((section, *path))}: {name}.choice is {values!r}; expected a list of values")
        if section == "tasks" and path[0] not in TASK_CHOICES:
            raise ConfigError(
                f"{source.at((section, *path))}: {name} cannot be a choice, for all candidates are judged on the same "
                f"episodes; choices in tasks are {', '.join(TASK_CHOICES)}"
            )
    return found


def _options_model(section: str, name: Any, source: Source) -> type[PluginOptions]:
    _, kind, key = PLUGIN_SECTIONS[section]
    where = f"{source.at((section, key))}: {section}.{key}"
    if not isinstance(name, str):
        raise ConfigError(f"{where} is {name!r}; expected a name")
    try:
        return plugins.options_of(kind, name)
    except PluginError as error:
        raise ConfigError(f"{where}: {error}") from error


def _checked(
    section: str, path: tuple[str, ...], value: Any, model: type[Section], models: Mapping[str, type[PluginOptions]],
    users: Sequence[str], parts: Mapping[str, Mapping[str, Any]], source: Source,
) -> Value:  # fmt: skip
    """A value of a choice as the options that it is for understand it (``1e-5`` of YAML is a number there)."""
    checked: Any = validate(model, {path[0]: value}, source, (section,), set()) if not users else None
    for name in users:
        checked = validate(models[name], with_values(parts[name], {path: value}), source, (section,), set())
    document = checked.model_dump(mode="json")
    for part in path:
        document = document[part]
    if isinstance(document, (list, dict)):
        name = ".".join((section, *path))
        raise ConfigError(f"{source.at((section, *path))}: {name} cannot be a choice: its values are not single ones")
    return document


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
    sections = functools.reduce(operator.or_, (rule.Options for rule in RULES.values()))
    fields["stopping"] = (Literal[tuple(RULES)] | sections, Field("none"))
    document = create_model("Config", __base__=Config, **fields).model_json_schema()
    _allow_choices(document)
    return document


def _allow_choices(document: dict[str, Any]) -> None:
    """Lets ``{choice: [...]}`` stand for every value of the learner section and some of the tasks section."""
    for name, definition in document["$defs"].items():
        section, _, plugin = name.partition("-")
        searchable = section == "learner" or name == "TrainingOptions"
        for key, value in definition.get("properties", {}).items():
            named = key == PLUGIN_SECTIONS.get(section, ("", "", ""))[2] and plugin != "file"
            if (searchable and not named) or (section == "tasks" and key in TASK_CHOICES):
                choice = {"type": "array", "items": dict(value), "minItems": 1}
                listed = {"type": "object", "properties": {CHOICE: choice}, "required": [CHOICE]}
                definition["properties"][key] = {"anyOf": [value, {**listed, "additionalProperties": False}]}

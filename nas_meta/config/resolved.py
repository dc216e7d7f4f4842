"""The YAML file, validated: its sections, and in them the options of the plugins that they name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from nas_meta.config.model_pooling import with_own_pooling
from nas_meta.config.provenance import Source, apply_overrides, check_plain, validate
from nas_meta.config.sections import (
    PLUGIN_SECTIONS,
    Config,
    LearnerSection,
    Section,
)
from nas_meta.config.yaml_loader import read_yaml
from nas_meta.core import plugins
from nas_meta.core.files import regular_file
from nas_meta.core.options import PluginOptions
from nas_meta.errors import ConfigError, PluginError, nearest
from nas_meta.evaluation.hyperparameters import (
    CHOICE,
    TASK_CHOICES,
    SearchedHyperparameters,
    choices_in,
    known_options,
    with_values,
)
from nas_meta.space.architecture import Architecture, Choice, Value

MOST_BYTES = 256 * 1024  # of a config file


@dataclass(frozen=True)
class ResolvedConfig:
    """A validated config with the options of its plugins."""

    sections: Config
    options: Mapping[str, PluginOptions]
    given: Mapping[str, Any] = field(default_factory=dict)
    searched: SearchedHyperparameters = field(default_factory=SearchedHyperparameters)
    source: Source = field(default_factory=lambda: Source("config"))
    tokenizer: str | None = None
    """In the place of the space's own: the folder of one that was learned for the run."""

    def at(self, architecture: Architecture, pooling: str | None = None) -> ResolvedConfig:
        """The config of one candidate: every choice at the value that its architecture has.

        Args:
            pooling: that of the architecture, where it chooses it (:meth:`SearchSpace.pooling`).
        """
        choices = self.searched.choices
        # A choice that the architecture does not have is an option of a learner that was not chosen.
        values = {tuple(n.split(".")): architecture.values.get(n, c.values[0]) for n, c in choices.items()}
        document = with_values(self.given, values)
        if pooling is not None:
            document["tasks"] = {**document.get("tasks", {}), "pooling": pooling}
        if "learner.name" in choices:
            options = plugins.options_of("learners", document["learner"]["name"])
            document["learner"] = known_options(options, document["learner"]) | known_options(
                LearnerSection, document["learner"]
            )
        return resolve(document)

    def plugin(self, section: str) -> type:
        """The plugin class that a section names."""
        _, kind, key = PLUGIN_SECTIONS[section]
        return plugins.load(kind, getattr(getattr(self.sections, section), key))

    def training(self, option: str) -> tuple[Value, ...]:
        """The values that an option of ``learner.training`` has, or may be given by the search."""
        choice = self.searched.choices.get(f"learner.training.{option}")
        return tuple(choice.values) if choice else (getattr(self.options["learner"].training, option),)

    @cached_property
    def document(self) -> dict[str, Any]:
        """The whole config, defaults filled in, as plain data; choices stay choices."""
        document = self.sections.model_dump(mode="json")
        for section, options in self.options.items():
            key = PLUGIN_SECTIONS[section][2]
            if f"{section}.{key}" in self.searched.choices:
                # Every learner has its own defaults.
                document[section] = dict(self.given[section])
            else:
                document[section] |= options.model_dump(mode="json")
        return with_values(
            document, {tuple(n.split(".")): {CHOICE: list(c.values)} for n, c in self.searched.choices.items()}
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
        text = regular_file(path, MOST_BYTES).read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        there = [file.name for file in Path(path).parent.glob("*.y*ml")]
        also = f"; {nearest(Path(path).name, there)}" if there else ""
        raise ConfigError(f"{path} cannot be read: {error.strerror}{also}") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 (byte {error.start}); expected a YAML file") from error
    document, lines = read_yaml(text, str(path))
    if document is None:
        document = {}
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: a {type(document).__name__}; expected sections such as 'space:' and 'tasks:'")
    return resolve(document, Source(str(path), lines, [o.partition("=")[0] for o in overrides]), overrides)


def resolve(document: Mapping[str, Any], source: Source | None = None, overrides: Sequence[str] = ()) -> ResolvedConfig:
    """Validates a config given as plain data; see :func:`read_config`."""
    source = source or Source("config")
    check_plain(document, source)
    document = with_own_pooling(apply_overrides(document, overrides))
    for section in document:
        if section not in Config.model_fields:
            raise ConfigError(
                f"{source.at((section,))}: '{section}' is not a section; {nearest(str(section), Config.model_fields)}"
            )
    if isinstance(document.get("stopping"), str):  # the name of a rule alone
        document = {**document, "stopping": {"name": document["stopping"]}}
    sections = {name: _resolve_section(name, document.get(name) or {}, source) for name in PLUGIN_SECTIONS}
    plain = {**document, **{name: section.own for name, section in sections.items()}}
    config = validate(Config, plain, source, (), set())
    options = {name: section.options for name, section in sections.items()}
    choices = {path: choice for section in sections.values() for path, choice in section.choices.items()}
    learner = sections["learner"]
    classes = {name: plugins.load("learners", name) for name in learner.names}
    return ResolvedConfig(config, options, document, SearchedHyperparameters(choices, learner.first, classes), source)


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
    own = known_options(model, first)
    rest = {k: v for k, v in first.items() if k not in own}
    # Where the plugin is a choice, an option is for those that know it.
    unknown = [k for k in rest if len(names) > 1 and not any(k in m.model_fields for m in models.values())]
    parts = {name: known_options(m, rest) if len(names) > 1 and not unknown else rest for name, m in models.items()}
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

"""Reads and validates a config: its sections, the options of the plugins that they name, and what is searched.

:func:`read_config` takes a YAML file and :func:`resolve` plain data; both return a :class:`ResolvedConfig`, from which
everything else is built. A mistake anywhere in the config is one sentence with file, line and key.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from nas_meta.config.model_pooling import with_own_pooling
from nas_meta.config.placed_paths import with_placed_paths
from nas_meta.config.provenance import Source, apply_overrides, check_plain, validate
from nas_meta.config.recipe import AUTO, with_recipe
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
from nas_meta.core.paths import with_absolute_plugins
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

MOST_BYTES = 256 * 1024  # maximum size of a config file
EXPORTED = "nas_meta.yaml"  # of an exported model, with absolute paths; old ones start from where they were exported
DATA = (".csv", ".tsv", ".tab", ".jsonl", ".ndjson")  # suffixes of labelled data, which no config has


@dataclass(frozen=True)
class ResolvedConfig:
    """A validated config with the options of its plugins.

    Attributes:
        sections: The sections, with defaults filled in.
        options: The options of the plugin of each section in :data:`PLUGIN_SECTIONS`, by section; choices are at their
            first value.
        given: The config as the user wrote it, with overrides applied.
        searched: The choices in the ``learner`` and ``tasks`` sections, which the search decides.
        source: Where the config comes from, for error messages.
        tokenizer: Folder of the tokenizer that the run trained; None uses the tokenizer of the space.
        implied: Keys that the config leaves out and :func:`nas_meta.config.recipe.with_recipe` has filled in.
    """

    sections: Config
    options: Mapping[str, PluginOptions]
    given: Mapping[str, Any] = field(default_factory=dict)
    searched: SearchedHyperparameters = field(default_factory=SearchedHyperparameters)
    source: Source = field(default_factory=lambda: Source("config"))
    tokenizer: str | None = None
    implied: frozenset[tuple[str, ...]] = frozenset()

    def at(self, architecture: Architecture, pooling: str | None = None) -> ResolvedConfig:
        """Return the config of one candidate: every choice replaced by the value that the architecture has.

        Args:
            architecture: An architecture of the joint space of this config.
            pooling: Pooling that the architecture chooses (:meth:`SearchSpace.pooling`); None keeps ``tasks.pooling``.

        Returns:
            A config without choices.
        """
        choices = self.searched.choices
        # An architecture lacks the options of learners that it did not choose; any valid value does for these.
        values = {tuple(n.split(".")): architecture.values.get(n, c.values[0]) for n, c in choices.items()}
        document = with_values(self.given, values)
        if pooling is not None:
            document["tasks"] = {**document.get("tasks", {}), "pooling": pooling}
        if "learner.name" in choices:
            options = plugins.options_of("learners", document["learner"]["name"])
            document["learner"] = known_options(options, document["learner"]) | known_options(
                LearnerSection, document["learner"]
            )
        return resolve(document, recorded=True)

    def plugin(self, section: str) -> type:
        """Load the plugin class that a section names.

        Args:
            section: One of :data:`PLUGIN_SECTIONS`, such as ``space``.

        Returns:
            The class.

        Raises:
            PluginError: The plugin cannot be loaded.
        """
        _, kind, key = PLUGIN_SECTIONS[section]
        return plugins.load(kind, getattr(getattr(self.sections, section), key))

    def training(self, option: str) -> tuple[Value, ...]:
        """Return all values that an option of ``learner.training`` can take in this search.

        Args:
            option: Name of the option, such as ``distill``.

        Returns:
            The values of its choice; a single value if the option is not searched.
        """
        choice = self.searched.choices.get(f"learner.training.{option}")
        return tuple(choice.values) if choice else (getattr(self.options["learner"].training, option),)

    @cached_property
    def document(self) -> dict[str, Any]:
        """The whole config as plain data, with defaults filled in; choices stay choices."""
        document = self.sections.model_dump(mode="json")
        for section, options in self.options.items():
            key = PLUGIN_SECTIONS[section][2]
            if f"{section}.{key}" in self.searched.choices:
                # Learners have different defaults, so none can be filled in.
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
    """Read and validate a config file.

    Args:
        path: YAML file.
        overrides: Overrides of the command line, ``section.key=value`` with YAML values.

    Returns:
        The validated config.

    Raises:
        ConfigError: The file cannot be read or is not a valid config; the message is one sentence that names file,
            line and key, what was expected, and the nearest valid name.
    """
    document, source = read_document(path, overrides)
    return resolve(document, source, overrides)


def read_document(
    path: str | Path,
    overrides: Sequence[str] = (),
    change: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None,
) -> tuple[dict[str, Any], Source]:
    """Read a config file without validating its sections; relative paths start from its folder.

    Args:
        path: YAML file.
        overrides: Overrides that will be applied to it; they may name other plugins.
        change: Changes the sections before relative paths are looked up.

    Returns:
        The sections as plain data, and the lines that they stand on.

    Raises:
        ConfigError: The file cannot be read, is not YAML, or holds something else than sections; or a path does not
            exist beside the file, but in the current folder.
    """
    try:
        _refuse_data(path)
        text = regular_file(path, MOST_BYTES).read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        siblings = [file.name for file in Path(path).parent.glob("*.y*ml")]
        hint = f"; {nearest(Path(path).name, siblings)}" if siblings else ""
        raise ConfigError(f"{path} cannot be read: {error.strerror}{hint}") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 (byte {error.start}); expected a YAML file") from error
    document, lines = read_yaml(text, str(path))
    if document is None:
        document = {}
    if not isinstance(document, dict):
        raise ConfigError(
            f"{path}: the config is a {type(document).__name__}; expected sections such as 'space:' and 'tasks:'"
        )
    source = Source(str(path), lines, [o.partition("=")[0] for o in overrides])
    document = change(document) if change else document
    if not _is_exported(Path(path)):
        named = apply_overrides(document, overrides)
        document = with_placed_paths(document, named, os.path.dirname(os.path.abspath(path)), source)
    return document, source


def _refuse_data(path: str | Path) -> None:
    """Refuse a file of labelled data in place of a config."""
    if Path(path).suffix.lower() in DATA and Path(path).is_file():
        raise ConfigError(f"{path} is a file of data, not a config; write a config for it: nas-meta init {path}")


def _is_exported(path: Path) -> bool:
    """Return whether a config is that of an exported model, whose folder holds the config of the model, too."""
    return path.name == EXPORTED and path.with_name("config.json").is_file()


def resolve(
    document: Mapping[str, Any], source: Source | None = None, overrides: Sequence[str] = (), recorded: bool = False
) -> ResolvedConfig:
    """Validate a config that is given as plain data.

    Args:
        document: Sections by name, as in the YAML file.
        source: Where the document comes from, for error messages; by default it is called "config".
        overrides: Overrides as in :func:`read_config`.
        recorded: Whether this is the config of a run, or a part of one: it keeps the defaults that it began with.

    Returns:
        The validated config.

    Raises:
        ConfigError: The config is not valid.
    """
    source = source or Source("config")
    check_plain(document, source)
    document = with_own_pooling(apply_overrides(document, overrides))
    for section in document:
        if section not in Config.model_fields:
            raise ConfigError(
                f"{source.at((section,))}: '{section}' is not a section; {nearest(str(section), Config.model_fields)}"
            )
    if isinstance(document.get("stopping"), str):  # short form: only the name of a rule
        document = {**document, "stopping": {"name": document["stopping"]}}
    document = {**document, **{n: with_absolute_plugins(document[n]) for n in PLUGIN_SECTIONS if n in document}}
    sections = {"space": _resolve_section("space", document.get("space") or {}, source)}
    implied: frozenset[tuple[str, ...]] = frozenset()
    if not recorded:
        document, implied = with_recipe(document, sections["space"].plugin_names[0])
    sections |= {n: _resolve_section(n, document.get(n) or {}, source) for n in PLUGIN_SECTIONS if n not in sections}
    plain = {**document, **{name: section.section_keys for name, section in sections.items()}}
    config = validate(Config, plain, source, (), set())
    options = {name: section.options for name, section in sections.items()}
    choices = {path: choice for section in sections.values() for path, choice in section.choices.items()}
    learner = sections["learner"]
    classes = {name: plugins.load("learners", name) for name in learner.plugin_names}
    searched = SearchedHyperparameters(choices, learner.first_values, classes)
    return ResolvedConfig(config, options, document, searched, source, implied=implied)


@dataclass(frozen=True)
class _Section:
    """A resolved section that names a plugin.

    Attributes:
        section_keys: The keys of the section's own model, choices at their first value.
        options: The options of the (first) plugin, choices at their first value.
        first_values: The whole section as the user wrote it, choices at their first value.
        plugin_names: The plugins that may be chosen; a single one unless the plugin is a choice.
        choices: The choices of the section, by dotted path.
    """

    section_keys: dict[str, Any]
    options: PluginOptions
    first_values: dict[str, Any]
    plugin_names: Sequence[str]
    choices: dict[str, Choice]


def _resolve_section(section: str, given: Any, source: Source) -> _Section:
    """Split a section into its own keys, the options of its plugin and its choices, and validate all of them.

    A section mixes keys of its own model (``name``) with options of the plugin (``lr``), and each value of the
    ``learner`` and ``tasks`` sections may be a choice:

    1. Replace every choice by its first value, which leaves an ordinary section.
    2. Separate the keys of the section's model from the options of the plugin. If the plugin itself is a choice, every
       candidate plugin gets the options that it knows; an option that none of them knows is an error.
    3. Validate every value of every choice in the place of the first one. The choice of an option that only some of the
       candidate plugins know is active only if one of these is chosen.

    Invariant: each value that the search may choose is valid on its own, and in the type of its option.

    Example: ``learner: {name: {choice: [protonet, maml]}, lr: {choice: [1e-4, 1e-3]}, inner_steps: {choice: [1, 2]}}``
    is resolved to::

        section_keys  {name: protonet}
        options       ProtoNetOptions(lr=0.0001)      the text 1e-4 of YAML has become a number
        first_values  {name: protonet, lr: 1e-4, inner_steps: 1}
        plugin_names  [protonet, maml]
        choices       learner.name: (protonet, maml)
                      learner.lr: (0.0001, 0.001)
                      learner.inner_steps: (1, 2), when learner.name is maml
    """
    model, _, key = PLUGIN_SECTIONS[section]
    if not isinstance(given, dict):
        raise ConfigError(f"{source.at((section,))}: '{section}' is {given!r}; expected keys such as '{key}:'")
    candidates = _choices_of(section, given, source)
    first_values = {
        key: model.model_fields[key].default,
        **with_values(given, {path: values[0] for path, values in candidates.items()}),
    }
    names = candidates.get((key,), [first_values[key]])
    models = {name: _options_model(section, name, source) for name in names}
    section_keys = known_options(model, first_values)
    options = {k: v for k, v in first_values.items() if k not in section_keys}
    # With several plugins, each gets the options that it knows. Options that no plugin knows go to every plugin, whose
    # validation then reports the unknown key.
    unknown = [k for k in options if len(names) > 1 and not any(k in m.model_fields for m in models.values())]
    by_plugin = {n: known_options(m, options) if len(names) > 1 and not unknown else options for n, m in models.items()}
    for option in options:
        if not any(option in m.model_fields for m in models.values()):
            _refuse_option_of_others(section, option, names, source)
    all_keys = set(model.model_fields).union(*(m.model_fields for m in models.values()))
    validated = {name: validate(m, by_plugin[name], source, (section,), all_keys) for name, m in models.items()}
    choices = {}
    for path, values in candidates.items():
        users = tuple(n for n in names if path[0] in models[n].model_fields)
        checked = [_checked(section, path, value, model, models, users, by_plugin, source) for value in values]
        when = {f"{section}.{key}": users} if users and len(users) < len(names) else {}
        choices[".".join((section, *path))] = Choice(tuple(dict.fromkeys(checked)), when)
    return _Section(section_keys, validated[names[0]], first_values, names, choices)


def _choices_of(section: str, given: Mapping[str, Any], source: Source) -> dict[tuple[str, ...], Any]:
    """Return the values of every choice in a section, by path; other sections than learner and tasks have none."""
    if section not in ("learner", "tasks"):
        return {}
    choices = dict(choices_in(given))
    for path, values in choices.items():
        name = ".".join((section, *path))
        if not isinstance(values, list) or not values:
            raise ConfigError(f"{source.at((section, *path))}: {name}.choice is {values!r}; expected a list of values")
        if section == "tasks" and path[0] not in TASK_CHOICES:
            raise ConfigError(
                f"{source.at((section, *path))}: {name} cannot be a choice because all candidates are validated on the "
                f"same episodes; only {', '.join(TASK_CHOICES)} can be choices in tasks"
            )
        if section == "tasks" and AUTO in values:
            raise ConfigError(f"{source.at((section, *path))}: {name}.choice has {AUTO}; expected numbers")
    return choices


def _options_model(section: str, name: Any, source: Source) -> type[PluginOptions]:
    """Return the options model of a plugin, or report the line that names the plugin."""
    _, kind, key = PLUGIN_SECTIONS[section]
    where = f"{source.at((section, key))}: {section}.{key}"
    if not isinstance(name, str):
        raise ConfigError(f"{where} is {name!r}; expected a plugin name")
    try:
        return plugins.options_of(kind, name)
    except PluginError as error:
        raise ConfigError(f"{where}: {error}") from error


def _refuse_option_of_others(section: str, option: str, names: Sequence[str], source: Source) -> None:
    """Say which plugins have an option that the chosen ones do not have; nothing if none has it."""
    _, kind, _ = PLUGIN_SECTIONS[section]
    working = [row.name for row in plugins.installed(kind) if row.broken is None]
    owners = [name for name in working if option in plugins.options_of(kind, name).model_fields]
    if owners:
        raise ConfigError(
            f"{source.at((section, option))}: '{section}.{option}' is not a known key of {' and '.join(names)}, but "
            f"one of {', '.join(owners)}; leave it out"
        )


def _checked(
    section: str, path: tuple[str, ...], value: Any, model: type[Section], models: Mapping[str, type[PluginOptions]],
    users: Sequence[str], by_plugin: Mapping[str, Mapping[str, Any]], source: Source,
) -> Value:  # fmt: skip
    """Validate one value of a choice, in the plugins that know it or else in the section's model.

    Returns the value in the type of its option: YAML 1.1 reads ``1e-5`` as text, and the option makes it a number.
    """
    checked: Any = validate(model, {path[0]: value}, source, (section,), set()) if not users else None
    for name in users:
        checked = validate(models[name], with_values(by_plugin[name], {path: value}), source, (section,), set())
    document = checked.model_dump(mode="json")
    for part in path:
        document = document[part]
    if isinstance(document, (list, dict)):
        name = ".".join((section, *path))
        raise ConfigError(
            f"{source.at((section, *path))}: {name} cannot be a choice; expected an option with single values"
        )
    return document

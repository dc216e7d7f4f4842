"""The registry of plugins: search spaces, strategies, learners, stopping rules and task sources.

A plugin is named by its entry point (``bert-subnet``) or by a file and a class in it (``path/to/file.py:Name``).
Built-in plugins are loaded in the same way. Only plugins that are named get imported.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import os
import sys
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from nas_meta.core.files import regular_file
from nas_meta.core.guard import first_line
from nas_meta.core.options import PluginOptions
from nas_meta.errors import PluginError, nearest

MOST_BYTES = 2**20  # of a file that is searched for classes


@dataclass(frozen=True)
class Kind:
    """A kind of plugin.

    Attributes:
        group: Its entry-point group.
        word: What error sentences call such a plugin.
        base: The class that it must extend, as ``module:name``.
        methods: The methods that it must define.
    """

    group: str
    word: str
    base: str
    methods: tuple[str, ...]


KINDS = {
    "spaces": Kind("nas_meta.search_spaces", "search space", "nas_meta.space:SearchSpace", ("choices", "build")),
    "strategies": Kind("nas_meta.strategies", "strategy", "nas_meta.strategy:Strategy", ("ask", "tell")),
    "learners": Kind("nas_meta.learners", "learner", "nas_meta.learners.base:Learner", ("meta_loss", "classify")),
    "stopping": Kind(
        "nas_meta.stopping", "stopping rule", "nas_meta.strategy.stopping.rule:StoppingRule", ("should_continue",)
    ),
    "tasks": Kind("nas_meta.tasks", "task source", "nas_meta.tasks.source:TaskSource", ("read",)),
}


@dataclass(frozen=True)
class Installed:
    """A plugin that an installed distribution offers.

    Attributes:
        name: Its name in configs.
        distribution: The distribution that offers it.
        version: The version of the distribution.
        target: Its class, as ``module:name``.
        broken: Why it cannot be loaded; None where it can.
        summary: The first line of its docstring.
    """

    name: str
    distribution: str
    version: str
    target: str
    broken: str | None = None
    summary: str = ""


def load(kind: str, name: str) -> type:
    """Load a plugin class.

    Args:
        kind: A key of :data:`KINDS`.
        name: An installed name, or ``path/to/file.py:Name``.

    Returns:
        The class.

    Raises:
        PluginError: There is no such plugin, it cannot be imported, or its class lacks a method.
    """
    if ".py:" in name:
        return _checked(kind, name, *_from_file(kind, name))
    if name.endswith(".py"):
        raise PluginError(_names_no_class(kind, name))
    points = _points(kind)
    if name not in points:
        raise PluginError(f"'{name}' is not an installed {KINDS[kind].word}; {nearest(name, points)}")
    return _from_entry_points(kind, points[name])


def installed(kind: str) -> list[Installed]:
    """List the installed plugins of a kind, broken ones included.

    Args:
        kind: A key of :data:`KINDS`.

    Returns:
        The plugins, sorted by name.
    """
    rows = []
    for name, offers in sorted(_points(kind).items()):
        row = Installed(name, *_origin(offers[0]), offers[0].value)
        try:
            summary = (_from_entry_points(kind, offers).__doc__ or "").strip().split("\n")[0]
            rows.append(replace(row, summary=summary))
        except PluginError as error:
            rows.append(replace(row, broken=str(error)))
    return rows


def options_of(kind: str, name: str) -> type[PluginOptions]:
    """Return the options model of a plugin.

    Args:
        kind: A key of :data:`KINDS`.
        name: An installed name, or ``path/to/file.py:Name``.

    Returns:
        The ``Options`` of its class.

    Raises:
        PluginError: As :func:`load`.
    """
    return load(kind, name).Options


def distribution_of(kind: str, name: str) -> str | None:
    """Return the distribution that offers an installed plugin; nothing is imported.

    Args:
        kind: A key of :data:`KINDS`.
        name: The name of the plugin.

    Returns:
        The name of the distribution; None for a plugin in a file, or if the distribution is unknown.
    """
    offers = _points(kind).get(name, [])
    return offers[0].dist.name if offers and offers[0].dist else None


@cache
def _points(kind: str) -> dict[str, list[EntryPoint]]:
    points: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=KINDS[kind].group):
        offers = points.setdefault(point.name, [])
        # An editable install beside a build lists the same distribution twice.
        if all(_origin(other)[0] != _origin(point)[0] for other in offers):
            offers.append(point)
    return points


def _origin(point: EntryPoint) -> tuple[str, str]:
    return (point.dist.name, point.dist.version) if point.dist else ("unknown", "?")


def _from_entry_points(kind: str, offers: list[EntryPoint]) -> type:
    if len(offers) > 1:
        names = " and ".join(sorted(_origin(point)[0] for point in offers))
        raise PluginError(f"the {KINDS[kind].word} '{offers[0].name}' is offered by {names}; uninstall one")
    point = offers[0]
    origin = f"{KINDS[kind].word} '{point.name}' of the package {' '.join(_origin(point))}"
    try:
        plugin = point.load()
    except Exception as error:
        raise PluginError(f"{origin} cannot be imported: {first_line(error)}") from error
    return _checked(kind, point.name, plugin, origin)


def _from_file(kind: str, name: str) -> tuple[Any, str]:
    word = f"{KINDS[kind].word} '{name}'"
    path_text, _, attribute = name.rpartition(":")
    module = load_module(path_text, word)
    if not hasattr(module, attribute):
        classes = [n for n, v in vars(module).items() if isinstance(v, type) and v.__module__ == module.__name__]
        raise PluginError(f"{path_text} has no '{attribute}'; {nearest(attribute, classes)}")
    return getattr(module, attribute), word


def _names_no_class(kind: str, path_text: str) -> str:
    """Return the sentence about a file that is named without a class; the file is parsed, not executed."""
    word = f"{KINDS[kind].word} '{path_text}'"
    try:
        tree = ast.parse(regular_file(os.path.expanduser(path_text), MOST_BYTES).read_bytes())
    except OSError as error:
        return f"{word}: there is no file {path_text} ({error.strerror}); expected path/to/file.py:Name"
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return f"{word} cannot be read: {first_line(error)}"
    names = [f"'{path_text}:{node.name}'" for node in tree.body if isinstance(node, ast.ClassDef)]
    if not names:
        return f"{word} has no class; expected a class that extends {KINDS[kind].base.rpartition(':')[2]}"
    hint = f"did you mean {names[0]}?" if len(names) == 1 else f"expected one of: {', '.join(names)}"
    return f"{word} names a file without a class; {hint}"


def load_module(path_text: str, word: str) -> Any:
    """Import a Python file as a module, once per process.

    Args:
        path_text: Path of the file; ``~`` is expanded.
        word: What an error sentence says the file is for.

    Returns:
        The module. Its classes travel to workers by value, because workers may not have the file.

    Raises:
        PluginError: There is no such file, or it cannot be imported.
    """
    try:
        path = regular_file(os.path.expanduser(path_text)).resolve()
    except OSError as error:
        raise PluginError(
            f"{word}: there is no file {path_text} ({error.strerror}); expected path/to/file.py:Name"
        ) from error
    module_name = f"nas_meta_plugin_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    module = sys.modules.get(module_name)
    if module is None:
        import cloudpickle

        spec = importlib.util.spec_from_file_location(module_name, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException as error:
            del sys.modules[module_name]
            if not isinstance(error, Exception):
                raise
            raise PluginError(f"{word} cannot be imported: {first_line(error)}") from error
        # Workers do not have the file: its classes travel with the pickle.
        cloudpickle.register_pickle_by_value(module)
    return module


def _checked(kind: str, name: str, plugin: Any, origin: str) -> type:
    base_module, _, base_name = KINDS[kind].base.partition(":")
    base = getattr(importlib.import_module(base_module), base_name)
    if not isinstance(plugin, type) or not issubclass(plugin, base):
        raise PluginError(f"{origin} is {_kind_of(plugin)}; expected a subclass of {base_module}.{base_name}")
    missing = [m for m in KINDS[kind].methods if getattr(plugin, m, None) is getattr(base, m)]
    if missing:
        raise PluginError(f"{origin} lacks the method {missing[0]}()")
    options = getattr(plugin, "Options", None)
    if not (isinstance(options, type) and issubclass(options, PluginOptions)):
        raise PluginError(f"{origin} has Options that are {_kind_of(options)}; expected a subclass of PluginOptions")
    return plugin


def _kind_of(value: Any) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"

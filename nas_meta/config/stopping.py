"""The stopping section of a config: the name of a rule, alone or with its options."""

from __future__ import annotations

from typing import Any

from nas_meta.config.provenance import Source, validate
from nas_meta.errors import ConfigError, nearest
from nas_meta.strategy.stopping.registry import RULES
from nas_meta.strategy.stopping.rule import StoppingOptions


def read_section(given: Any, source: Source) -> StoppingOptions:
    """The options of the rule that the section names.

    Raises:
        ConfigError: there is no such rule, or it has no such option.
    """
    where = source.at(("stopping",))
    section = {"name": given} if isinstance(given, str) else {} if given is None else given
    if not isinstance(section, dict):
        raise ConfigError(f"{where}: 'stopping' is {given!r}; expected the name of a rule, or keys such as 'name:'")
    name = section.get("name", "none")
    if not isinstance(name, str) or name not in RULES:
        raise ConfigError(f"{where}: there is no stopping rule '{name}'; {nearest(str(name), RULES)}")
    return validate(RULES[name].Options, section, source, ("stopping",), set())

"""The ``stopping`` section of a config: the name of a rule, alone or with its options."""

from __future__ import annotations

from typing import Any

from nas_meta.config_source import Source, validate
from nas_meta.errors import ConfigError, nearest
from nas_meta.strategy.stopping.asha import Asha
from nas_meta.strategy.stopping.median import Median
from nas_meta.strategy.stopping.racing import Racing
from nas_meta.strategy.stopping.rule import Never, Rule, StoppingOptions

RULES: dict[str, type[Rule]] = {"none": Never, "asha": Asha, "median": Median, "racing": Racing}


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

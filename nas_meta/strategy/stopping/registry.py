"""The ``stopping`` section of a config: the name of a rule, alone or with its options."""

from __future__ import annotations

from nas_meta.strategy.stopping.asha import Asha
from nas_meta.strategy.stopping.median import Median
from nas_meta.strategy.stopping.racing import Racing
from nas_meta.strategy.stopping.rule import Never, Rule

RULES: dict[str, type[Rule]] = {"none": Never, "asha": Asha, "median": Median, "racing": Racing}

"""When a trial is not worth training to its end: one rule a file, each a function of what trials report at rungs.

Independent of the strategy, with one objective or several.
"""

from __future__ import annotations

from nas_meta.stopping.rule import Report, Rule, StoppingOptions
from nas_meta.stopping.section import RULES, read_section

__all__ = ["RULES", "Report", "Rule", "StoppingOptions", "read_section"]

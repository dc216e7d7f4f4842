"""nas-meta: neural architecture search for transformers that learn from few examples.

The public API; everything is imported when it is first used, so that the command line starts at once.
"""

from typing import TYPE_CHECKING

from nas_meta.core.lazy import lazy_exports

if TYPE_CHECKING:  # the same names once more, for type checkers and editors, which do not follow __getattr__
    from nas_meta.choice_layer import ChoiceInput as ChoiceInput
    from nas_meta.choice_layer import ChoiceLayer as ChoiceLayer
    from nas_meta.choice_layer import ChoiceSupernet as ChoiceSupernet
    from nas_meta.composed import ComposedSpace as ComposedSpace
    from nas_meta.composed import SubSpace as SubSpace
    from nas_meta.controller import resume as resume
    from nas_meta.controller import search as search
    from nas_meta.core.objectives import Objective as Objective
    from nas_meta.core.options import PluginOptions as PluginOptions
    from nas_meta.errors import NasMetaError as NasMetaError
    from nas_meta.learners.base import Learner as Learner
    from nas_meta.learners.base import LearnerOptions as LearnerOptions
    from nas_meta.run import Run as Run
    from nas_meta.run import load_run as load_run
    from nas_meta.space import Architecture as Architecture
    from nas_meta.space import Choice as Choice
    from nas_meta.space import SearchSpace as SearchSpace
    from nas_meta.strategy import WAIT as WAIT
    from nas_meta.strategy import Outcome as Outcome
    from nas_meta.strategy import SearchContext as SearchContext
    from nas_meta.strategy import Strategy as Strategy
    from nas_meta.supernet import Supernet as Supernet
    from nas_meta.tasks.source import TaskSource as TaskSource

_EXPORTS = {
    "Architecture": "nas_meta.space",
    "Choice": "nas_meta.space",
    "ComposedSpace": "nas_meta.composed",
    "PluginOptions": "nas_meta.space",
    "SearchSpace": "nas_meta.space",
    "SubSpace": "nas_meta.composed",
    "Strategy": "nas_meta.strategy",
    "Supernet": "nas_meta.supernet",
    "ChoiceInput": "nas_meta.choice_layer",
    "ChoiceLayer": "nas_meta.choice_layer",
    "ChoiceSupernet": "nas_meta.choice_layer",
    "SearchContext": "nas_meta.strategy",
    "Outcome": "nas_meta.strategy",
    "Objective": "nas_meta.core.objectives",
    "WAIT": "nas_meta.strategy",
    "Learner": "nas_meta.learners.base",
    "LearnerOptions": "nas_meta.learners.base",
    "TaskSource": "nas_meta.tasks.source",
    "NasMetaError": "nas_meta.errors",
    "Run": "nas_meta.run",
    "load_run": "nas_meta.run",
    "search": "nas_meta.controller",
    "resume": "nas_meta.controller",
}
__all__ = sorted(_EXPORTS)
__version__ = "0.1.0"


__getattr__ = lazy_exports(__name__, _EXPORTS)

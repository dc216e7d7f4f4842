"""nas-meta: neural architecture search for transformers that learn from few examples.

The public API; everything is imported when it is first used, so that the command line starts at once.
"""

from typing import TYPE_CHECKING

from nas_meta.core.lazy import lazy_exports

if TYPE_CHECKING:  # the same names once more, for type checkers and editors, which do not follow __getattr__
    from nas_meta.controller.launch import resume as resume
    from nas_meta.controller.launch import search as search
    from nas_meta.core.objectives import Objective as Objective
    from nas_meta.core.options import CodeName as CodeName
    from nas_meta.core.options import PluginOptions as PluginOptions
    from nas_meta.errors import NasMetaError as NasMetaError
    from nas_meta.learners.base import Learner as Learner
    from nas_meta.learners.base import LearnerOptions as LearnerOptions
    from nas_meta.outputs.classifier.classifier import FewShotClassifier as FewShotClassifier
    from nas_meta.outputs.classifier.loading import load_classifier as load_classifier
    from nas_meta.outputs.run import Run as Run
    from nas_meta.outputs.run import load_run as load_run
    from nas_meta.space.architecture import Architecture as Architecture
    from nas_meta.space.architecture import Choice as Choice
    from nas_meta.space.choice_supernet import ChoiceInput as ChoiceInput
    from nas_meta.space.choice_supernet import ChoiceLayer as ChoiceLayer
    from nas_meta.space.choice_supernet import ChoiceSupernet as ChoiceSupernet
    from nas_meta.space.composite import ComposedSpace as ComposedSpace
    from nas_meta.space.composite import SubSpace as SubSpace
    from nas_meta.space.search_space import SearchSpace as SearchSpace
    from nas_meta.space.supernet import Supernet as Supernet
    from nas_meta.strategy.protocol import WAIT as WAIT
    from nas_meta.strategy.protocol import Outcome as Outcome
    from nas_meta.strategy.protocol import SearchContext as SearchContext
    from nas_meta.strategy.protocol import Strategy as Strategy
    from nas_meta.strategy.stopping.rule import RungOptions as RungOptions
    from nas_meta.strategy.stopping.rule import RungReport as RungReport
    from nas_meta.strategy.stopping.rule import StoppingRule as StoppingRule
    from nas_meta.tasks.source import TaskSource as TaskSource

_EXPORTS = {
    "Architecture": "nas_meta.space.architecture",
    "Choice": "nas_meta.space.architecture",
    "ChoiceInput": "nas_meta.space.choice_supernet",
    "ChoiceLayer": "nas_meta.space.choice_supernet",
    "ChoiceSupernet": "nas_meta.space.choice_supernet",
    "CodeName": "nas_meta.core.options",
    "ComposedSpace": "nas_meta.space.composite",
    "FewShotClassifier": "nas_meta.outputs.classifier.classifier",
    "Learner": "nas_meta.learners.base",
    "LearnerOptions": "nas_meta.learners.base",
    "NasMetaError": "nas_meta.errors",
    "Objective": "nas_meta.core.objectives",
    "Outcome": "nas_meta.strategy.protocol",
    "PluginOptions": "nas_meta.core.options",
    "Run": "nas_meta.outputs.run",
    "RungOptions": "nas_meta.strategy.stopping.rule",
    "RungReport": "nas_meta.strategy.stopping.rule",
    "SearchContext": "nas_meta.strategy.protocol",
    "SearchSpace": "nas_meta.space.search_space",
    "StoppingRule": "nas_meta.strategy.stopping.rule",
    "Strategy": "nas_meta.strategy.protocol",
    "SubSpace": "nas_meta.space.composite",
    "Supernet": "nas_meta.space.supernet",
    "TaskSource": "nas_meta.tasks.source",
    "WAIT": "nas_meta.strategy.protocol",
    "load_classifier": "nas_meta.outputs.classifier.loading",
    "load_run": "nas_meta.outputs.run",
    "resume": "nas_meta.controller.launch",
    "search": "nas_meta.controller.launch",
}
__all__ = sorted(_EXPORTS)
__version__ = "0.1.0"


__getattr__ = lazy_exports(__name__, _EXPORTS)


def __dir__() -> list[str]:
    """Return the names of the API, also those that are not imported yet."""
    return sorted({*globals(), *_EXPORTS})

"""nas-meta: neural architecture search for transformers that learn from few examples.

The public API; everything is imported when it is first used, so that the command line starts at once.
"""

from importlib import import_module

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
    "Objective": "nas_meta.objectives",
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


def __getattr__(name: str):
    if name not in _EXPORTS:
        raise AttributeError(f"module 'nas_meta' has no attribute '{name}'")
    return getattr(import_module(_EXPORTS[name]), name)

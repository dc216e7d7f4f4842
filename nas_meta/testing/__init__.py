"""Conformance tests for plugins, the checks of ``nas-meta space check``, ``strategy check`` and ``learner check``.

In the tests of a plugin::

    from nas_meta.testing import LearnerTests, SpaceTests, StrategyTests

    class TestMySpace(SpaceTests):
        def make_space(self):
            return MySpace()

    class TestMyStrategy(StrategyTests):
        def make_strategy(self, context):
            return MyStrategy(context)

    class TestMyLearner(LearnerTests):
        def make_learner(self):
            return MyLearner()
"""

from typing import TYPE_CHECKING

from nas_meta.core.lazy import lazy_exports

if TYPE_CHECKING:
    from nas_meta.testing.checks import CheckError as CheckError
    from nas_meta.testing.checks import Result as Result
    from nas_meta.testing.learners import LearnerTests as LearnerTests
    from nas_meta.testing.learners import check_learner as check_learner
    from nas_meta.testing.spaces import SpaceTests as SpaceTests
    from nas_meta.testing.spaces import check_space as check_space
    from nas_meta.testing.strategies import StrategyTests as StrategyTests
    from nas_meta.testing.strategies import check_strategy as check_strategy

_EXPORTS = {
    "CheckError": "nas_meta.testing.checks",
    "LearnerTests": "nas_meta.testing.learners",
    "Result": "nas_meta.testing.checks",
    "SpaceTests": "nas_meta.testing.spaces",
    "StrategyTests": "nas_meta.testing.strategies",
    "check_learner": "nas_meta.testing.learners",
    "check_space": "nas_meta.testing.spaces",
    "check_strategy": "nas_meta.testing.strategies",
}
__getattr__ = lazy_exports(__name__, _EXPORTS)

"""The conformance tests of the search space that a test module has as its fixture ``space``."""

import pytest

from nas_meta.testing import SpaceTests


class FixtureSpaceTests(SpaceTests):
    """Conformance tests of the fixture ``space``."""

    @pytest.fixture(autouse=True)
    def _space(self, space):
        self.space = space

    def make_space(self):
        return self.space

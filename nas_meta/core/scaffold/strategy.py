"""The strategy plugin that ``nas-meta strategy new`` writes, and the config of a search with it."""

PLUGIN = '''"""A search strategy for nas-meta. Check it: nas-meta strategy check {file}:{name}"""

import numpy as np
from pydantic import Field

from nas_meta import PluginOptions, Strategy


class {name}Options(PluginOptions):
    """Users set these options next to ``name:`` in a config."""

    startup: int = Field(5, ge=1, description="number of random architectures before the best one is changed")


class {name}(Strategy):
    """Hill climbing: changes a choice of the best architecture so far."""

    Options = {name}Options

    def __init__(self, context, options=None):
        super().__init__(context, options)
        # The only source of randomness: a resumed search repeats all calls and must get the same proposals.
        self.rng = np.random.default_rng(context.seed)
        self.best = None  # the outcome with the highest score
        self.proposed = set()  # ids of architectures: none is proposed twice

    def ask(self):
        """Propose the next architecture; None if none is left."""
        space = self.context.space
        for attempt in range(100):
            if self.best is None or len(self.proposed) < self.options.startup:
                architecture = space.sample(self.rng)
            else:
                # If everything nearby has been proposed, look further away.
                architecture = space.mutate(self.best.architecture, self.rng, changes=1 + attempt // 25)
            if architecture is not None and architecture.id not in self.proposed:
                break
        else:
            architecture = next((a for a in space.walk() if a.id not in self.proposed), None)
        if architecture is not None:
            self.proposed.add(architecture.id)
        return architecture

    def tell(self, outcome):
        """Learn from a trial that has ended: a higher score is better, and a failed trial has none."""
        if outcome.score is not None and (self.best is None or outcome.score > self.best.score):
            self.best = outcome
'''

CONFIG = """# A search of minutes with the strategy in {file}: nas-meta search {config}
strategy:
  name: {file}:{name}
  startup: 3
learner:
  steps: 10
evaluation:
  episodes: 50
  test_episodes: 50
budget:
  trials: 6
"""

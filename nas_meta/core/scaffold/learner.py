"""The learner plugin that ``nas-meta learner new`` writes, and the config of a search with it."""

PLUGIN = '''"""A few-shot learner for nas-meta. Check it: nas-meta learner check {file}:{name}"""

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from nas_meta import Learner, LearnerOptions


class {name}Options(LearnerOptions):
    """Users set these options next to ``name:`` in a config, beside those that every learner has."""

    temperature: float = Field(10.0, gt=0, description="initial factor of the cosine similarity; it is learned")


class {name}(Learner):
    """Compares each query with the mean of every class, by cosine similarity."""

    Options = {name}Options

    def learned(self, encoder, ways):
        """Add what the learner trains besides the model; it is saved with it."""
        module = nn.Module()
        module.temperature = nn.Parameter(torch.tensor(self.options.temperature))
        return module

    def meta_loss(self, encoder, pool, episode):
        """Compute the loss of a training episode, from which the model learns."""
        logits = self.logits(encoder, pool, episode)
        # Tensors belong on the device of the model, which may be a GPU.
        return F.cross_entropy(logits, torch.from_numpy(episode.labels).to(logits.device))

    def classify(self, encoder, pool, episode):
        """Compute the logits of the query examples of an evaluation episode, without changing the model."""
        with torch.no_grad():
            return self.logits(encoder, pool, episode)

    def logits(self, encoder, pool, episode):
        """Compute logits, one row per query example and one column per class."""
        ways, shots = episode.support.shape
        z = F.normalize(encoder.embed(pool, episode.indices), dim=-1)  # support examples class by class, then queries
        support, queries = z[: ways * shots], z[ways * shots :]
        means = F.normalize(support.view(ways, shots, -1).mean(1), dim=-1)
        return encoder.learned.temperature * queries @ means.T
'''

CONFIG = """# A search of minutes with the learner in {file}: nas-meta search {config}
learner:
  name: {file}:{name}
  temperature: 20.0
  steps: 20
evaluation:
  episodes: 50
  test_episodes: 50
budget:
  trials: 4
"""

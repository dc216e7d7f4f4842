"""Does training with queries of other classes help to distinguish them? Three losses against none.

    python -m benchmarks.open_set_training BANKING77_FOLDER

The folder holds ``train.jsonl`` and ``test.jsonl`` of ProtAugment's fold 01. A sub-network of MiniLM (layers 0, 1, 3
and 5) is meta-trained for 60 steps of 15-way 1-shot episodes, each with two queries of ten other classes, and judged on
150 open-set episodes of the meta-test classes. All losses see the same episodes. Each row and seed takes about a minute
of one core.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.out_of_scope import read
from nas_meta.core import plugins
from nas_meta.evaluation.open_set import EmbeddedSplit, scores_of
from nas_meta.learners.open_set import auroc
from nas_meta.learners.protonet import ProtoNet
from nas_meta.models.encoder import Encoder
from nas_meta.models.profiling import interval95
from nas_meta.outputs.classifier.examples import Preparation
from nas_meta.tasks.episodes import EpisodeShape
from nas_meta.tasks.open_set import OpenSetEpisode, open_set_episode
from nas_meta.tasks.packaged_models import MINILM
from nas_meta.tasks.pool import Pool
from nas_meta.tasks.tokenization import load_tokenizer

STEPS, SEEDS, EPISODES, KEPT = 60, (0, 1), 150, (0, 1, 3, 5)
TRAIN, OTHERS = EpisodeShape(15, 1, 2), 10
INSIDE, OUTSIDE = -7.5, -10.0  # margins of the energy: about the means of both before training


def entropic(inside: Tensor, outside: Tensor) -> Tensor:
    """Return the entropic open-set loss of logits ``[M, N]`` (Dhamija et al. 2018, equation 1, second case)."""
    return -outside.log_softmax(-1).mean()


def energy(inside: Tensor, outside: Tensor) -> Tensor:
    """Return the energy margins of logits ``[M, N]`` (Liu et al. 2020, equation 8)."""
    a, b = inside.logsumexp(-1), outside.logsumexp(-1)
    return F.relu(INSIDE - a).square().mean() + F.relu(b - OUTSIDE).square().mean()


def pairs(inside: Tensor, outside: Tensor) -> Tensor:
    """Return the logistic loss over all pairs of energies, a smooth bound of 1 - AUROC."""
    return F.softplus(outside.logsumexp(-1)[None] - inside.logsumexp(-1)[:, None]).mean()


LOSSES: dict[str, tuple[Callable[[Tensor, Tensor], Tensor] | None, float]] = {
    "none": (None, 0.0), "entropic": (entropic, 0.5), "energy margins": (energy, 0.1), "pairs": (pairs, 1.0),
}  # fmt: skip


class OpenSetProtoNet(ProtoNet):
    """A prototypical network that is trained with queries of other classes, too."""

    extra: Callable[[Tensor, Tensor], Tensor] | None = None
    weight = 0.0

    def meta_loss(self, encoder: Encoder, pool: Pool, episode: OpenSetEpisode) -> Tensor:
        if self.extra is None:
            return super().meta_loss(encoder, pool, episode)
        ways, shots = episode.support.shape
        z = encoder.embed(pool, np.concatenate([episode.indices, episode.outside.ravel()]))
        support, queries = z[: ways * shots].view(ways, shots, -1), z[ways * shots :]
        inside, outside = self.logits(encoder, support, queries).split([episode.query.size, episode.outside.size])
        return F.cross_entropy(inside, torch.from_numpy(episode.labels)) + self.weight * self.extra(inside, outside)


def judged(name: str, seed: int, train: Pool, test: Pool) -> np.ndarray:
    """Train with a loss, and return ``[2, episodes]``: the AUROC and the accuracy in each meta-test episode."""
    learner = OpenSetProtoNet(ProtoNet.Options(steps=STEPS))
    learner.extra, learner.weight = LOSSES[name]
    plugin = plugins.load("spaces", "bert-subnet")
    space = plugin(plugin.Options())
    whole = {key: max(choice.values) for key, choice in space.table.items()}
    architecture = space.canonical({**whole, **{f"layer{i}.keep": i in KEPT for i in range(6)}})
    torch.manual_seed(seed)
    encoder = Encoder(space.build(architecture))
    encoder.learned = learner.learned(encoder, TRAIN.ways)
    torch.manual_seed(seed)
    for _ in learner.meta_train(encoder, train, lambda i: open_set_episode(train, TRAIN, OTHERS, seed, i)):
        continue
    with torch.no_grad():
        split = EmbeddedSplit(test, encoder.eval().embed(test, np.arange(len(test)), 64))
    rows = []
    for i in range(EPISODES):
        task = open_set_episode(test, EpisodeShape(5, 1, 5), 5, 7, i)
        _, inside, outside = scores_of(split, task)
        s, q = (split.z[part.ravel()] for part in (task.support, task.query))
        guess = learner.task_logits(encoder, s, torch.from_numpy(task.support_labels), 5, q).argmax(1).numpy()
        rows.append([auroc(inside, outside), (guess == task.labels).mean()])
    return np.array(rows).T


def main() -> None:
    """Print the mean of each loss, and its paired difference from training without one, in points."""
    folder, preparation = Path(sys.argv[1]), Preparation("text", load_tokenizer(MINILM), 64)

    def pool(part: str) -> Pool:
        rows = read(folder / f"{part}.jsonl")
        names, labels = np.unique([name for _, name in rows], return_inverse=True)
        return preparation.pool([text for text, _ in rows], labels, names.tolist())

    train, test = pool("train"), pool("test")
    plain: np.ndarray | None = None
    print("| loss | AUROC | difference, points | accuracy, % | difference |\n" + "| --- " * 5 + "|")
    for name in LOSSES:
        found = 100 * np.concatenate([judged(name, seed, train, test) for seed in SEEDS], axis=1)
        plain = found if plain is None else plain
        cells = [f"{row.mean():.1f}" for row in found]
        differences = [f"{row.mean():+.2f} ± {interval95(row):.2f}" for row in found - plain]
        print(f"| {name} | {cells[0]} | {differences[0]} | {cells[1]} | {differences[1]} |", flush=True)


if __name__ == "__main__":
    main()

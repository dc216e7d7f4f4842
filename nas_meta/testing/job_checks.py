"""The check of strategies that train a supernet before their first proposal."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import cloudpickle
import numpy as np
from torch import Tensor, nn

from nas_meta.core.guard import first_line, plugin_call
from nas_meta.errors import ConfigError
from nas_meta.evaluation.progress import JobResult
from nas_meta.evaluation.trial import Evaluation
from nas_meta.learners.protonet import ProtoNet
from nas_meta.space.architecture import Architecture, Choice, Value
from nas_meta.space.choice_supernet import ChoiceInput, ChoiceLayer, ChoiceSupernet
from nas_meta.space.search_space import SearchSpace
from nas_meta.space.supernet import Supernet
from nas_meta.strategy.protocol import Job, SearchContext, Strategy
from nas_meta.testing.checks import NotApplicable, expect
from nas_meta.testing.episodes import VOCABULARY, evaluation_of
from nas_meta.testing.landscapes import ONE
from nas_meta.testing.strategy_checks import Subject

TRIALS, WIDTH = 4, 16
OPERATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "identity": nn.Identity,
    "linear": lambda: nn.Linear(WIDTH, WIDTH),
    "norm": lambda: nn.LayerNorm(WIDTH),
}


class Layers(nn.Module):
    """Two layers over word embeddings; each reads one of the two states before it.

    Args:
        layers: The module of each layer.
        reads: Number of the state that each layer reads, or a module that chooses it.
    """

    def __init__(self, layers: Sequence[nn.Module], reads: Sequence[ChoiceInput | int]):
        super().__init__()
        self.table = nn.Embedding(len(VOCABULARY), WIDTH)
        self.layers = nn.ModuleList(layers)
        self.choices = nn.ModuleList(read for read in reads if isinstance(read, nn.Module))
        self.last = nn.Linear(WIDTH, WIDTH)  # without it, two identities would have nothing to train
        self.reads = [read for read in reads if isinstance(read, int)]

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        states = [self.table(input_ids)] * 2
        for i, layer in enumerate(self.layers):
            read = self.choices[i](states[-2:]) if len(self.choices) else states[-2:][self.reads[i]]
            states.append(read + layer(read))
        return self.last(states[-1])


class TinySupernet(SearchSpace):
    """Thirty-six architectures in one supernet: what each of two layers does, and which state it reads."""

    def choices(self) -> Mapping[str, Choice | Sequence[Value]]:
        return {f"layer{i}": list(OPERATIONS) for i in range(2)} | {f"reads{i}": [0, 1] for i in range(2)}

    def build(self, architecture: Architecture) -> nn.Module:
        layers = [OPERATIONS[architecture[f"layer{i}"]]() for i in range(2)]
        return Layers(layers, [architecture[f"reads{i}"] for i in range(2)])

    def supernet(self) -> Supernet:
        layers = [ChoiceLayer(f"layer{i}", {name: make() for name, make in OPERATIONS.items()}) for i in range(2)]
        return ChoiceSupernet(Layers(layers, [ChoiceInput(f"reads{i}", [0, 1]) for i in range(2)]), self.build)


def check_job(subject: Subject) -> None:
    """Check that a job trains a supernet, resumes from a checkpoint, and leads to proposals.

    Args:
        subject: The strategy.

    Raises:
        CheckError: The job or the proposals are not what the search expects.
        NotApplicable: The strategy has no job, or refuses the supernet of the check.
    """
    if getattr(subject.make, "job", Strategy.job) is Strategy.job:
        raise NotApplicable("it has no job")
    space = TinySupernet()
    context = SearchContext(space, ONE, TRIALS, 1, subject.seed)
    evaluation = replace(evaluation_of(ProtoNet()), space=space)
    try:
        strategy = subject.make(context)
        job = strategy.job()
        assert job is not None, f"{type(strategy).__name__}.job() returned None"
        findings, weights, checkpoint = _run(job, evaluation, None)
    except ConfigError as error:
        raise NotApplicable(f"it refuses the tiny supernet of the check: {error}") from error
    if checkpoint is not None:
        resumed = _run(cloudpickle.loads(cloudpickle.dumps(job)), evaluation, checkpoint)[0]
        expect(
            _same(findings, resumed),
            "the job has other findings when it resumes from its first checkpoint",
            "put everything that a step changes into Progress.checkpoint, and seed the job with the seed of the search",
        )
    with plugin_call(strategy, "receive"):
        strategy.receive(findings, weights)
    proposals = [strategy.ask() for _ in range(TRIALS)]
    strategy.close()
    architectures = [proposal for proposal in proposals if isinstance(proposal, Architecture)]
    expect(
        architectures and len({a.id for a in architectures}) == len(architectures),
        f"after its job it proposed {len(architectures)} architectures, {len({a.id for a in architectures})} of them "
        "different",
        "let receive() prepare distinct proposals from the findings of the job",
    )
    for architecture in architectures:
        space.architecture(architecture.values)


def _run(job: Job, evaluation: Evaluation, start: np.ndarray | None) -> tuple[Any, Any, np.ndarray | None]:
    """Run a job to its end; return its findings, as the journal stores them, its weights and its first checkpoint."""
    steps, first = job(evaluation, start), None
    while True:
        try:
            progress = next(steps)
        except StopIteration as end:
            result = end.value
            break
        if first is None and progress.checkpoint is not None:
            first = np.array(progress.checkpoint)
    expect(
        isinstance(result, JobResult), "the job does not return a JobResult", "end it with return JobResult(findings)"
    )
    try:
        findings = json.loads(json.dumps(result.findings))
    except (TypeError, ValueError) as error:
        expect(False, f"the findings are not JSON: {first_line(error)}", "return numbers, texts, lists and mappings")
    return findings, result.weights, first


def _same(one: Any, other: Any) -> bool:
    """Whether findings are equal, up to rounding."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(np.isclose(one, other, atol=1e-3)) if isinstance(one, float) else one == other

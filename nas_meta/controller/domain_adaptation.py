"""Domain adaptation: further pre-training of a space's pretrained model on the user's text, before the search.

Gururangan et al. 2020, "Don't Stop Pretraining". The adapted model is saved in the run directory and replaces the model
that ``space.model`` names: every space with that option cuts its candidates from it.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from nas_meta.config.components import make_compute
from nas_meta.config.pretraining import ADAPTED, load_model
from nas_meta.core.files import sync
from nas_meta.errors import ConfigError
from nas_meta.evaluation.pretraining.loop import make_loss, pretrain
from nas_meta.evaluation.pretraining.options import PretrainingSection
from nas_meta.evaluation.pretraining.pretrained_head import restore_head
from nas_meta.evaluation.progress import JobResult, Progress
from nas_meta.models.compute import Compute
from nas_meta.models.profiling import release_memory
from nas_meta.models.state import deserialize_state, serialize_state
from nas_meta.tasks.corpus.corpus import Corpus
from nas_meta.tasks.corpus.token_store import TokenStore, tokenise_corpus
from nas_meta.tasks.packaged_models import model_path
from nas_meta.tasks.tokenization import load_tokenizer

if TYPE_CHECKING:
    from nas_meta.config.resolved import ResolvedConfig
    from nas_meta.config.sections import Config

KEY = "space.model"


@dataclass(frozen=True)
class AdaptationWorker:
    """The payload of an engine's workers while a model is adapted.

    Attributes:
        compute: Device and precision.
        threads: CPU threads of a worker; 0 leaves the default.
    """

    compute: Compute
    threads: int = 0

    def setup(self) -> None:
        """Prepare a worker's device; called once per worker.

        Raises:
            ConfigError: The worker does not support the device or the precision.
        """
        self.compute.start(self.threads)

    def run(
        self, job: AdaptationJob, checkpoint: np.ndarray | None = None, rank: Any = None
    ) -> Generator[Progress, None, JobResult]:
        """Run a job and free its memory.

        Args:
            job: The job.
            checkpoint: The state to continue from; None starts at the first step.
            rank: Not used: the job runs on one worker.

        Yields:
            The progress of every step.

        Returns:
            The adapted model and the findings.
        """
        try:
            return (yield from job(self.compute, checkpoint))
        finally:
            release_memory(torch.device(self.compute.device))


@dataclass(frozen=True)
class AdaptationJob:
    """Further pre-training of one model; its findings are ``steps``, ``tokens``, ``seconds`` and the last ``loss``.

    Attributes:
        weights: The pretrained model's weights (safetensors).
        head: The state of the pre-training loss, such as its prediction head (safetensors).
        config: The pretrained model's config (transformers).
        name: Name or folder of the pretrained model.
        corpus: The tokenised texts.
        section: The options of pre-training.
        pooling: How token states become an embedding.
        seed: The seed of the search.
    """

    weights: np.ndarray
    head: np.ndarray
    config: Any
    name: str
    corpus: TokenStore
    section: PretrainingSection
    pooling: str
    seed: int

    @property
    def steps(self) -> int:
        """The number of steps; 0 if the budget is a time."""
        return self.section.total or 0

    def model(self, weights: np.ndarray) -> Any:
        """Build the model.

        Args:
            weights: Its weights (safetensors).

        Returns:
            The model, on the CPU.
        """
        from transformers import AutoModel, AutoModelForCausalLM

        kind = AutoModelForCausalLM if self.section.objective == "clm" else AutoModel
        model = kind.from_config(self.config)
        model.load_state_dict(deserialize_state(bytes(weights)))
        return model

    def __call__(self, compute: Compute, checkpoint: np.ndarray | None) -> Generator[Progress, None, JobResult]:
        model = self.model(self.weights).to(compute.device)
        objective = make_loss(model, self.corpus, self.section, self.pooling)
        objective.load_state_dict(deserialize_state(bytes(self.head)))
        saved = None  # the last checkpoint, counted from the start of training
        for status in pretrain(model, objective, self.corpus, self.section, self.seed, compute, checkpoint):
            current = status.step // self.section.checkpoint_every
            due = saved is not None and current > saved and not status.over
            saved = current if saved is None or due else saved
            yield Progress(status.step, status.values(self.section), status.state() if due else None)
        findings = {"steps": status.step, "tokens": status.tokens, "seconds": status.seconds, "loss": status.loss}
        return JobResult(findings, serialize_state(model))


def named_model(resolved: ResolvedConfig) -> str:
    """Return the name of the pretrained model that the config's space is cut from.

    Args:
        resolved: The config of the search.

    Returns:
        The value of ``space.model``.

    Raises:
        ConfigError: The space has no option ``model``.
    """
    name = getattr(resolved.options["space"], "model", None)
    if not isinstance(name, str):
        raise ConfigError(
            f"pretraining.of: model trains the model that space.model names, but the search space "
            f"'{resolved.sections.space.name}' has no option 'model'; expected pretraining.of: candidates"
        )
    return name


def make_worker(config: Config, cpus: float) -> AdaptationWorker:
    """Return the payload of the workers that adapt a model.

    Args:
        config: The config of the search.
        cpus: CPUs per trial; a worker uses that number of threads, rounded down, and at least one.

    Returns:
        The payload.
    """
    return AdaptationWorker(make_compute(config), max(1, math.floor(cpus)))


def make_job(resolved: ResolvedConfig, corpus: Corpus, tokenizer: str) -> AdaptationJob:
    """Return the job that adapts the pretrained model of a config.

    Args:
        resolved: The config of the search.
        corpus: The texts to train on.
        tokenizer: Name or folder of the space's tokenizer.

    Returns:
        The job.

    Raises:
        ConfigError: The model cannot be loaded, or it does not support the objective of ``pretraining``.
    """
    section, config = resolved.sections.pretraining, resolved.sections
    name = named_model(resolved)
    model = load_model(name, KEY, causal=section.objective == "clm")
    tokens = tokenise_corpus(corpus, load_tokenizer(tokenizer))
    torch.manual_seed(config.seed)
    objective = make_loss(model, tokens, section, config.tasks.pooling)  # fails here rather than on a worker
    restore_head(objective, model_path(name))
    return AdaptationJob(
        serialize_state(model),
        serialize_state(objective),
        model.config,
        name,
        tokens,
        section,
        config.tasks.pooling,
        config.seed,
    )


def write_adapted(job: AdaptationJob, weights: np.ndarray, directory: Path) -> None:
    """Save the adapted model and its tokenizer in the run directory; the folder appears complete or not at all.

    Args:
        job: The job that adapted the model.
        weights: The adapted weights (safetensors).
        directory: The run directory.
    """
    part = (directory / ADAPTED).with_suffix(".part")
    job.model(weights).save_pretrained(part)
    load_tokenizer(job.name).save_pretrained(part)
    for file in part.rglob("*"):
        sync(file)
    sync(part)
    part.rename(directory / ADAPTED)
    sync(directory)

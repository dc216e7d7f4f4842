"""Domain adaptation: the pretrained model of a space, trained further on the user's text before the search.

Gururangan et al. 2020, "Don't Stop Pretraining". The adapted model is a folder of the run, and takes the place of what
``space.model`` names: every space with that option cuts its candidates from it.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from nas_meta.config.pretraining import ADAPTED, load_model
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
    """What an engine's workers hold while a model is adapted."""

    compute: Compute
    threads: int = 0

    def setup(self) -> None:
        """Once per worker.

        Raises:
            ConfigError: it cannot compute as it is asked to.
        """
        self.compute.start(self.threads)

    def run(
        self, job: AdaptationJob, checkpoint: np.ndarray | None = None, rank: Any = None
    ) -> Generator[Progress, None, JobResult]:
        """The job, from its start or from a checkpoint."""
        try:
            return (yield from job(self.compute, checkpoint))
        finally:
            release_memory(torch.device(self.compute.device))


@dataclass(frozen=True)
class AdaptationJob:
    """The job; its findings are ``steps``, ``tokens``, ``seconds`` and the last ``loss``."""

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
        """How many steps it takes; 0 where its budget is one of time."""
        return self.section.total or 0

    def model(self, weights: np.ndarray) -> Any:
        """The model with these weights (safetensors)."""
        from transformers import AutoModel, AutoModelForCausalLM

        kind = AutoModelForCausalLM if self.section.objective == "clm" else AutoModel
        model = kind.from_config(self.config)
        model.load_state_dict(deserialize_state(bytes(weights)))
        return model

    def __call__(self, compute: Compute, checkpoint: np.ndarray | None) -> Generator[Progress, None, JobResult]:
        model = self.model(self.weights).to(compute.device)
        objective = make_loss(model, self.corpus, self.section, self.pooling)
        objective.load_state_dict(deserialize_state(bytes(self.head)))
        kept = None
        for look in pretrain(model, objective, self.corpus, self.section, self.seed, compute, checkpoint):
            age = look.step // self.section.checkpoint_every
            due = kept is not None and age > kept and not look.over
            kept = age if kept is None or due else kept
            yield Progress(look.step, look.values(self.section), look.state() if due else None)
        findings = {"steps": look.step, "tokens": look.tokens, "seconds": look.seconds, "loss": look.loss}
        return JobResult(findings, serialize_state(model))


def named_model(resolved: ResolvedConfig) -> str:
    """The model that the config's space is cut from.

    Raises:
        ConfigError: the space has no such option.
    """
    name = getattr(resolved.options["space"], "model", None)
    if not isinstance(name, str):
        raise ConfigError(
            f"pretraining.of: model trains what space.model names, but the search space "
            f"'{resolved.sections.space.name}' has no option 'model'; expected of: candidates"
        )
    return name


def make_worker(config: Config, cpus: float) -> AdaptationWorker:
    """What workers hold, where a trial has so many CPUs."""
    return AdaptationWorker(
        Compute(**config.compute.model_dump() | {"device": config.device}), max(1, math.floor(cpus))
    )


def make_job(resolved: ResolvedConfig, corpus: Corpus, tokenizer: str) -> AdaptationJob:
    """The job of a config, whose space has that tokenizer.

    Raises:
        ConfigError: the model cannot be loaded, or cannot learn by the objective.
    """
    section, config = resolved.sections.pretraining, resolved.sections
    name = named_model(resolved)
    model = load_model(name, KEY, causal=section.objective == "clm")
    tokens = tokenise_corpus(corpus, load_tokenizer(tokenizer))
    torch.manual_seed(config.seed)
    objective = make_loss(model, tokens, section, config.tasks.pooling)  # refused now, before a worker has it
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
    """The adapted model and its tokenizer as a folder of the run, never seen half."""
    part = (directory / ADAPTED).with_suffix(".part")
    job.model(weights).save_pretrained(part)
    load_tokenizer(job.name).save_pretrained(part)
    part.rename(directory / ADAPTED)

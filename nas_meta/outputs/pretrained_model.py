"""Pre-train one model outside a search: an architecture from scratch, or a pretrained model further.

The folder that results is an ordinary Hugging Face folder. While training is unfinished, it holds a checkpoint and a
description of the training instead; the same call then resumes from the checkpoint and reaches the same weights.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas_meta.config.components import make_compute
from nas_meta.config.pretraining import TOKENIZER, learn_tokenizer, load_model, read_corpus
from nas_meta.config.problem import make_space
from nas_meta.config.provenance import Source
from nas_meta.config.resolved import ResolvedConfig, read_config, resolve
from nas_meta.core.files import make_public, read_array, write_atomically
from nas_meta.core.signals import Interrupted, interruptible
from nas_meta.errors import ConfigError, RunError
from nas_meta.evaluation.pretraining.options import PretrainingSection
from nas_meta.outputs.export.own_code import drop_foreign_code
from nas_meta.space.architecture import Architecture
from nas_meta.space.search_space import SearchSpace
from nas_meta.tasks.corpus.corpus import Corpus
from nas_meta.tasks.corpus.token_store import tokenise_corpus
from nas_meta.tasks.packaged_models import model_path
from nas_meta.tasks.tokenization import load_tokenizer

if TYPE_CHECKING:
    from torch import nn

    from nas_meta.evaluation.pretraining.loop import TrainingStatus
    from nas_meta.evaluation.pretraining.objectives.base import PretrainingLoss

CHECKPOINT = "pretraining.checkpoint"
ABOUT = "pretraining.json"


@dataclass(frozen=True)
class PretrainingResult:
    """Result of a pre-training.

    Attributes:
        folder: Folder of the model.
        objective: Objective, such as ``mlm``.
        steps: Number of training steps.
        tokens: Number of training tokens, without padding.
        seconds: Training time in seconds, including the time before an interruption.
        loss: Mean training loss since the last log step.
        perplexity: Exponential of the loss; None if the objective is not language modelling.
        params: Number of parameters of the model.
        resumed: Whether training resumed from a checkpoint.
    """

    folder: str
    objective: str
    steps: int
    tokens: int
    seconds: float
    loss: float
    perplexity: float | None
    params: int
    resumed: bool


@dataclass(frozen=True)
class _ModelSetup:
    """The model to train, its tokenizer, and the function that saves it."""

    model: nn.Module
    tokenizer: str
    save: Callable[[nn.Module, Path], None]
    identity: Mapping[str, Any]
    """Plain data by which a resumed call recognises the same model."""
    head: str | None = None
    """Folder that may hold the head of an earlier pre-training."""
    pooling: str | None = None
    """Pooling of the architecture, if the space chooses it."""


def resolve_pretraining(
    source: str, corpus: Sequence[str] | None, steps: int | None, overrides: Sequence[str]
) -> tuple[ResolvedConfig, str | None]:
    """Resolve the config of a pre-training outside a search.

    Args:
        source: A YAML config (``.yaml``, ``.yml``), or else the name of a pretrained model.
        corpus: Paths that replace ``pretraining.corpus``; None or none given keeps it.
        steps: Budget that replaces ``pretraining.steps``; None keeps it.
        overrides: Overrides of the config, ``SECTION.KEY=VALUE``.

    Returns:
        The resolved config, and the pretrained model or, if ``source`` is a config, None.

    Raises:
        ConfigError: The config does not exist, or the config or an override is wrong.
    """
    path = Path(source)
    settings = list(overrides)
    if corpus:
        settings.append(f"pretraining.corpus={json.dumps(list(corpus) if len(corpus) > 1 else corpus[0])}")
    if steps is not None:
        settings.append(f"pretraining.steps={steps}")
    is_config = path.suffix.lower() in (".yaml", ".yml")
    # A config may pre-train candidates that inherit weights; one model outside a search has no donor.
    settings.append(f"pretraining.of={'candidates' if is_config else 'model'}")
    settings.append("pretraining.inherit=false")
    if is_config:
        return read_config(path, settings), None
    return resolve({}, Source("--set", overridden=[o.partition("=")[0] for o in settings]), settings), source


def pretrain_alone(
    resolved: ResolvedConfig,
    folder: str | Path,
    model: str | None = None,
    architecture: Mapping[str, Any] | None = None,
    watch: Callable[[TrainingStatus, Mapping[str, float]], None] = lambda status, values: None,
    announce: Callable[[str], None] = lambda phase: None,
) -> PretrainingResult:
    """Pre-train a model by the section ``pretraining`` of a config and write it as a Hugging Face folder.

    If the call is killed or interrupted, the same call resumes from its last checkpoint and reaches the same weights.

    Args:
        resolved: The config, as :func:`resolve_pretraining` returns it.
        folder: A new or empty folder, or the folder of the same pre-training if that is unfinished.
        model: A pretrained model (a folder, a hub name, ``starter:minilm``); None builds one from the config's space.
        architecture: Values by choice of the space; None trains the reference model of the space.
        watch: Called with every training status and its measured values by name.
        announce: Called with a few words at the start of every phase, such as "reading the corpus".

    Returns:
        The result.

    Raises:
        ConfigError: The model, the corpus or the architecture cannot be used, or the space has no reference model.
        RunError: The folder holds something else.
        Interrupted: On SIGINT, after a checkpoint was written.
    """
    from nas_meta.models.profiling import parameters

    folder, section = Path(folder), resolved.sections.pretraining
    _create_folder(folder)
    announce("reading the corpus")
    corpus = read_corpus(resolved, judged=model is None)
    announce("preparing the tokenizer and the model")
    learn_tokenizer(section, corpus, folder)
    setup = _make_setup(resolved, section, folder, model, architecture)
    resumed = (folder / CHECKPOINT).is_file()
    last, objective = _train(resolved, section, corpus, setup, folder, watch, announce)
    announce("writing the model")
    _write(folder, setup, objective, last)
    return PretrainingResult(
        folder=str(folder), objective=section.objective, steps=last.step, tokens=last.tokens, seconds=last.seconds,
        loss=last.loss, perplexity=last.values(section).get("pretrain/perplexity"),
        params=parameters(setup.model), resumed=resumed,
    )  # fmt: skip


def _create_folder(folder: Path) -> None:
    """Create a folder; raise RunError if it holds anything but an unfinished pre-training."""
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file; expected a new folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / ABOUT).is_file():
        raise RunError(f"{folder} is not empty; expected a new or empty folder")
    if (folder / "config.json").is_file():
        raise RunError(f"{folder} already holds a pre-trained model; expected another folder")
    folder.mkdir(parents=True, exist_ok=True)


def _make_setup(
    resolved: ResolvedConfig, section: PretrainingSection, folder: Path, model: str | None,
    architecture: Mapping[str, Any] | None,
) -> _ModelSetup:  # fmt: skip
    """Load the pretrained model, or build the architecture or the reference model of the space."""
    import torch

    if model is not None:
        if section.tokenizer is not None:
            raise ConfigError("a pretrained model has its own tokenizer; expected no pretraining.tokenizer")
        loaded = load_model(model, "the model", causal=section.objective == "clm")
        return _ModelSetup(loaded, model, lambda m, f: m.save_pretrained(f), {"model": model}, model_path(model))
    space = make_space(resolved)
    tokenizer = folder / TOKENIZER
    if tokenizer.is_dir():
        space.tokenizer = str(tokenizer)
    torch.manual_seed(resolved.sections.seed)
    if architecture is None:
        reference = space.reference()
        if reference is None:
            raise ConfigError(_needs_architecture(resolved, space))
        identity = {"space": resolved.sections.space.name}
        return _ModelSetup(reference, space.tokenizer, lambda m, f: m.save_pretrained(f), identity)
    checked = space.architecture(architecture)
    identity = {"space": resolved.sections.space.name, "architecture": dict(checked.values)}
    built, pooling = space.build(checked), space.pooling(checked)
    return _ModelSetup(built, space.tokenizer, lambda m, f: space.save(m, checked, f), identity, pooling=pooling)


def _needs_architecture(resolved: ResolvedConfig, space: SearchSpace) -> str:
    """Return the sentence that asks for ``--architecture``, with a random architecture as the example."""
    example: Architecture = space.sample(np.random.default_rng(0))
    return (
        f"the space {resolved.sections.space.name} has no reference model; expected an architecture, such as "
        f"--architecture '{example.canonical}'"
    )


def _train(
    resolved: ResolvedConfig, section: PretrainingSection, corpus: Corpus, setup: _ModelSetup, folder: Path,
    watch: Callable[[TrainingStatus, Mapping[str, float]], None], announce: Callable[[str], None],
) -> tuple[TrainingStatus, PretrainingLoss]:  # fmt: skip
    """Train a model in place, from its last checkpoint if there is one; return the last status and the objective."""
    import torch

    from nas_meta.evaluation.pretraining.loop import make_loss, pretrain
    from nas_meta.evaluation.pretraining.pretrained_head import restore_head

    config = resolved.sections
    compute = make_compute(config)
    compute.check()
    announce("tokenising the corpus")
    tokens = tokenise_corpus(corpus, load_tokenizer(setup.tokenizer))
    torch.manual_seed(config.seed)
    pooling = setup.pooling or config.tasks.pooling
    objective = make_loss(setup.model.to(compute.device), tokens, section, pooling)
    settings = {"corpus": tokens.key, "seed": config.seed, "pretraining": result_settings(section)}
    _check_resumable(folder, {**setup.identity, **settings})
    if setup.head is not None:
        restore_head(objective, setup.head)
    checkpoint = folder / CHECKPOINT
    start = read_array(checkpoint) if checkpoint.is_file() else None
    announce("training" if start is None else "resuming the training at the last checkpoint")
    statuses = pretrain(setup.model, objective, tokens, section, config.seed, compute, start)
    with interruptible() as stop:
        stop.listened = True
        for status in _with_checkpoints(statuses, checkpoint, section.checkpoint_every, folder, section, watch):
            if stop.is_set() and not status.over:
                write_atomically(checkpoint, status.state())
                raise Interrupted(f"interrupted at step {status.step}; run the same command again to resume")
    return status, objective


def _with_checkpoints(
    statuses: Iterator[TrainingStatus], checkpoint: Path, every: int, folder: Path, section: PretrainingSection,
    watch: Callable[[TrainingStatus, Mapping[str, float]], None],
) -> Iterator[TrainingStatus]:  # fmt: skip
    """Pass on the statuses of a training; log each, and write a checkpoint about every ``every`` steps."""
    from nas_meta.outputs.monitors.event_file import EventWriter

    board, last = EventWriter(folder / "tensorboard"), None
    try:
        for status in statuses:
            last = status.step // every if last is None else last
            values = status.values(section)
            for name, value in values.items():
                board.add_scalar(name, value, status.step)
            if status.step // every > last and not status.over:
                write_atomically(checkpoint, status.state())
                last = status.step // every
            watch(status, values)
            yield status
    finally:
        board.close()


def result_settings(section: PretrainingSection) -> dict[str, Any]:
    """Return the settings of a pre-training that influence its result, as plain data.

    Args:
        section: Section ``pretraining`` of the config.
    """
    return section.model_dump(mode="json", exclude={"of", "inherit", "keep", "checkpoint_every"})


def _check_resumable(folder: Path, identity: Mapping[str, Any]) -> None:
    """Record the identity of this pre-training; raise ConfigError if the folder holds another unfinished one."""
    file = folder / ABOUT
    if file.is_file():
        try:
            recorded = dict(json.loads(file.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise RunError(f"{file} cannot be read; expected the JSON object that a pre-training writes") from error
        differing = [key for key in {**recorded, **identity} if recorded.get(key) != identity.get(key)]
        if differing:
            raise ConfigError(
                f"{folder} holds an unfinished pre-training with another {', '.join(sorted(differing))}; expected the "
                "same settings to resume it, or another folder with --to"
            )
    write_atomically(file, json.dumps(identity, indent=1).encode())


def _write(folder: Path, setup: _ModelSetup, objective: PretrainingLoss, last: TrainingStatus) -> None:
    """Write the Hugging Face folder; the model, with ``config.json``, comes last because it marks a complete folder."""
    from safetensors.torch import save_file
    from transformers.utils import logging

    from nas_meta.evaluation.pretraining.pretrained_head import HEAD

    logging.disable_progress_bar()
    load_tokenizer(setup.tokenizer).save_pretrained(folder)
    if state := objective.state_dict():
        save_file({name: tensor.cpu().contiguous() for name, tensor in state.items()}, folder / HEAD)
    about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    result = {"steps": last.step, "tokens": last.tokens, "seconds": last.seconds, "loss": last.loss}
    write_atomically(folder / ABOUT, json.dumps({**about, "result": result}, indent=1).encode())
    setup.save(setup.model.eval().cpu(), folder)
    drop_foreign_code(folder)
    (folder / CHECKPOINT).unlink(missing_ok=True)
    shutil.rmtree(folder / TOKENIZER, ignore_errors=True)
    make_public(folder)

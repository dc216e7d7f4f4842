"""Pre-training of one model alone: an architecture of a space from nothing, or a pretrained model further."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas_meta.config.pretraining import TOKENIZER, learn_tokenizer, load_model, read_corpus
from nas_meta.config.problem import make_space
from nas_meta.config.provenance import Source
from nas_meta.config.resolved import ResolvedConfig, read_config, resolve
from nas_meta.core.signals import Interrupted, interruptible
from nas_meta.errors import ConfigError, RunError
from nas_meta.evaluation.pretraining.options import PretrainingSection
from nas_meta.journal.run import write_atomically
from nas_meta.models.compute import Compute
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
class Pretrained:
    """What came out.

    Attributes:
        loss: the mean of the last steps.
        perplexity: its exponential; None where the objective is no language model's.
        tokens: how many were seen.
        resumed: whether it went on with one that had been interrupted.
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
class _Subject:
    """What is trained: the model, the name of its tokenizer, and how it is written."""

    model: nn.Module
    tokenizer: str
    save: Callable[[nn.Module, Path], None]
    about: Mapping[str, Any]
    """What tells it from another."""
    head: str | None = None
    """Where the head of an earlier pre-training may lie."""
    pooling: str | None = None
    """That of the architecture, where it chooses it."""


def resolved_for(
    subject: str, corpus: Sequence[str] | None, steps: int | None, overrides: Sequence[str]
) -> tuple[ResolvedConfig, str | None]:
    """The config of a stand-alone pre-training, and the pretrained model where one is named instead of a config.

    Raises:
        ConfigError: the config or an override is wrong, or there is no such config.
    """
    named = Path(subject)
    said = list(overrides)
    if corpus:
        said.append(f"pretraining.corpus={json.dumps(list(corpus) if len(corpus) > 1 else corpus[0])}")
    if steps is not None:
        said.append(f"pretraining.steps={steps}")
    is_config = named.suffix.lower() in (".yaml", ".yml")
    # Of one model there are no candidates.
    said.append(f"pretraining.of={'candidates' if is_config else 'model'}")
    said.append("pretraining.inherit=false")
    if is_config:
        return read_config(named, said), None
    return resolve({}, Source("--set", overridden=[o.partition("=")[0] for o in said]), said), subject


def pretrain_alone(
    resolved: ResolvedConfig,
    folder: str | Path,
    model: str | None = None,
    architecture: Mapping[str, Any] | None = None,
    watch: Callable[[TrainingStatus, Mapping[str, float]], None] = lambda look, values: None,
) -> Pretrained:
    """Pre-trains a model by the section ``pretraining`` of a config and writes it as a Hugging Face folder.

    Killed or interrupted, the same call goes on from its last checkpoint, to the same weights.

    Args:
        folder: a new or empty one, or that of the same pre-training which did not end.
        model: a pretrained model (a folder, a hub name, ``starter:minilm``); None takes the config's space.
        architecture: of the space; None takes its reference model.
        watch: called with each look at the training.

    Raises:
        ConfigError: the model, the corpus or the architecture cannot be used.
        RunError: the folder holds something else.
        Interrupted: by SIGINT; a checkpoint is kept.
    """
    from nas_meta.models.profiling import parameters

    folder, section = Path(folder), resolved.sections.pretraining
    _claim(folder)
    corpus = read_corpus(resolved, judged=model is None)
    learn_tokenizer(section, corpus, folder)
    subject = _subject_of(resolved, section, folder, model, architecture)
    resumed = (folder / CHECKPOINT).is_file()
    last, objective = _train(resolved, section, corpus, subject, folder, watch)
    _write(folder, subject, objective, last)
    return Pretrained(
        folder=str(folder), objective=section.objective, steps=last.step, tokens=last.tokens, seconds=last.seconds,
        loss=last.loss, perplexity=last.values(section).get("pretrain/perplexity"),
        params=parameters(subject.model), resumed=resumed,
    )  # fmt: skip


def _claim(folder: Path) -> None:
    """Raises RunError where a folder holds something that is no pre-training which can go on."""
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file; expected a new folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / ABOUT).is_file():
        raise RunError(f"{folder} is not an empty folder; name another one with --to")
    if (folder / "config.json").is_file():
        raise RunError(f"{folder} holds a pre-trained model already; name another folder with --to")
    folder.mkdir(parents=True, exist_ok=True)


def _subject_of(
    resolved: ResolvedConfig, section: PretrainingSection, folder: Path, model: str | None,
    architecture: Mapping[str, Any] | None,
) -> _Subject:  # fmt: skip
    import torch

    if model is not None:
        if section.tokenizer is not None:
            raise ConfigError("a pretrained model has its own tokenizer; expected no pretraining.tokenizer")
        loaded = load_model(model, "the model", causal=section.objective == "clm")
        return _Subject(loaded, model, lambda m, f: m.save_pretrained(f), {"model": model}, model_path(model))
    space = make_space(resolved)
    learned = folder / TOKENIZER
    if learned.is_dir():
        space.tokenizer = str(learned)
    torch.manual_seed(resolved.sections.seed)
    if architecture is None:
        built = space.reference()
        if built is None:
            raise ConfigError(_needs_architecture(resolved, space))
        about = {"space": resolved.sections.space.name}
        return _Subject(built, space.tokenizer, lambda m, f: m.save_pretrained(f), about)
    chosen = space.architecture(architecture)
    about = {"space": resolved.sections.space.name, "architecture": dict(chosen.values)}
    model, own = space.build(chosen), space.pooling(chosen)
    return _Subject(model, space.tokenizer, lambda m, f: space.save(m, chosen, f), about, pooling=own)


def _needs_architecture(resolved: ResolvedConfig, space: SearchSpace) -> str:
    example: Architecture = space.sample(np.random.default_rng(0))
    return (
        f"search space {resolved.sections.space.name} has no reference model; expected an architecture, such as "
        f"--architecture '{example.canonical}'"
    )


def _train(
    resolved: ResolvedConfig, section: PretrainingSection, corpus: Corpus, subject: _Subject, folder: Path,
    watch: Callable[[TrainingStatus, Mapping[str, float]], None],
) -> tuple[TrainingStatus, PretrainingLoss]:  # fmt: skip
    import torch

    from nas_meta.evaluation.pretraining.loop import make_loss, pretrain
    from nas_meta.evaluation.pretraining.pretrained_head import restore_head

    config = resolved.sections
    compute = Compute(**config.compute.model_dump() | {"device": config.device})
    compute.check()
    tokens = tokenise_corpus(corpus, load_tokenizer(subject.tokenizer))
    torch.manual_seed(config.seed)
    pooling = subject.pooling or config.tasks.pooling
    objective = make_loss(subject.model.to(compute.device), tokens, section, pooling)
    _same(folder, {**subject.about, "corpus": tokens.key, "seed": config.seed, "pretraining": write_summary(section)})
    if subject.head is not None:
        restore_head(objective, subject.head)
    checkpoint = folder / CHECKPOINT
    start = np.fromfile(checkpoint, dtype=np.uint8) if checkpoint.is_file() else None
    looks = pretrain(subject.model, objective, tokens, section, config.seed, compute, start)
    with interruptible() as stop:
        stop.listened = True
        for look in _kept(looks, checkpoint, section.checkpoint_every, folder, section, watch):
            if stop.is_set() and not look.over:
                write_atomically(checkpoint, look.state())
                raise Interrupted(f"interrupted at step {look.step}; the same command goes on from there")
    return look, objective


def _kept(
    looks: Iterator[TrainingStatus], checkpoint: Path, every: int, folder: Path, section: PretrainingSection,
    watch: Callable[[TrainingStatus, Mapping[str, float]], None],
) -> Iterator[TrainingStatus]:  # fmt: skip
    """The looks of a training, each shown, and now and then a checkpoint written."""
    from nas_meta.outputs.monitors.event_file import EventWriter

    board, kept = EventWriter(str(folder / "tensorboard")), None
    try:
        for look in looks:
            kept = look.step // every if kept is None else kept
            values = look.values(section)
            for name, value in values.items():
                board.add_scalar(name, value, look.step)
            if look.step // every > kept and not look.over:
                write_atomically(checkpoint, look.state())
                kept = look.step // every
            watch(look, values)
            yield look
    finally:
        board.close()


def write_summary(section: PretrainingSection) -> dict[str, Any]:
    """A section as plain data, without what changes nothing of the result."""
    return section.model_dump(mode="json", exclude={"of", "inherit", "keep", "checkpoint_every"})


def _same(folder: Path, about: Mapping[str, Any]) -> None:
    """Raises ConfigError where a folder holds an unfinished pre-training of another kind; else notes down this one."""
    file = folder / ABOUT
    if file.is_file():
        try:
            before = dict(json.loads(file.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise RunError(f"{file} cannot be read: it is not what a pre-training writes") from error
        differing = [key for key in {**before, **about} if before.get(key) != about.get(key)]
        if differing:
            raise ConfigError(
                f"{folder} holds an unfinished pre-training with another {', '.join(sorted(differing))}; expected the "
                "same to go on with it, or another folder with --to"
            )
    write_atomically(file, json.dumps(about, indent=1).encode())


def _write(folder: Path, subject: _Subject, objective: PretrainingLoss, last: TrainingStatus) -> None:
    """The folder that transformers loads; its ``config.json`` comes with the model, when all else is there."""
    from safetensors.torch import save_file
    from transformers.utils import logging

    from nas_meta.evaluation.pretraining.pretrained_head import HEAD

    logging.disable_progress_bar()
    load_tokenizer(subject.tokenizer).save_pretrained(folder)
    if state := objective.state_dict():
        save_file({name: tensor.cpu().contiguous() for name, tensor in state.items()}, folder / HEAD)
    about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    result = {"steps": last.step, "tokens": last.tokens, "seconds": last.seconds, "loss": last.loss}
    write_atomically(folder / ABOUT, json.dumps({**about, "result": result}, indent=1).encode())
    subject.save(subject.model.eval().cpu(), folder)
    (folder / CHECKPOINT).unlink(missing_ok=True)
    shutil.rmtree(folder / TOKENIZER, ignore_errors=True)

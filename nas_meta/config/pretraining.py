"""From a config to the parts of its pre-training: the corpus, the tokenizer learned from it, the stage of a trial."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nas_meta.config.problem import load_space, make_source
from nas_meta.config.resolved import ResolvedConfig
from nas_meta.core.guard import first_line, plugin_call
from nas_meta.errors import ConfigError
from nas_meta.evaluation.pretraining.options import PretrainingSection
from nas_meta.space.wrappers import space_name
from nas_meta.tasks.corpus.corpus import DEFAULT, Corpus, open_corpus
from nas_meta.tasks.corpus.default_corpus import default_corpus, held_out_texts
from nas_meta.tasks.corpus.token_store import tokenise_corpus
from nas_meta.tasks.corpus.tokenizer_training import trained_tokenizer
from nas_meta.tasks.examples import MODALITIES, TEXT
from nas_meta.tasks.packaged_models import model_path, refuse_adapter
from nas_meta.tasks.tokenization import load_tokenizer

if TYPE_CHECKING:
    from torch import nn

    from nas_meta.evaluation.pretraining.stage import Pretraining
    from nas_meta.space.search_space import SearchSpace
    from nas_meta.strategy.protocol import Strategy
    from nas_meta.tasks.pool import Tasks

ADAPTED = "adapted"  # in a run directory, the folder of the model
TOKENIZER = "tokenizer"


def read_corpus(resolved: ResolvedConfig, judged: bool = True) -> Corpus:
    """The corpus of a config, without the texts that its candidates are judged on.

    Args:
        judged: whether the config's tasks are what the model is for; else only the default corpus leaves out theirs.

    Raises:
        DataError: it cannot be read.
        ConfigError: a package of the default corpus is not installed, or the config's tasks are not of texts.
    """
    section, plugin = resolved.sections.pretraining, resolved.plugin("tasks")
    if section.corpus != DEFAULT and not judged:
        return open_corpus(paths_of(section), section.field)
    if plugin.modality != TEXT:
        raise ConfigError(
            f"pretraining is on texts, but the task source '{resolved.sections.tasks.source}' gives "
            f"{MODALITIES.get(plugin.modality, plugin.modality)}; expected a source of texts, or no pretraining"
        )
    source = make_source(resolved)
    split = source.load()
    if section.corpus == DEFAULT:
        return default_corpus(source, split)
    return open_corpus(paths_of(section), section.field).without(held_out_texts(split))


def paths_of(section: PretrainingSection) -> list[str]:
    """The paths that a section names."""
    return [section.corpus] if isinstance(section.corpus, str) else list(section.corpus)


def prepare_pretraining(resolved: ResolvedConfig, directory: Path) -> Corpus | None:
    """The corpus of a search that pre-trains something, and its tokenizer in the run directory; else None.

    Raises:
        DataError, ConfigError: as :func:`read_corpus`; or the pretrained model that is to be adapted has a tokenizer.
    """
    section = resolved.sections.pretraining
    if section is None:
        return None
    if section.tokenizer is not None and section.of == "model":
        raise ConfigError("a pretrained model has its own tokenizer; expected no pretraining.tokenizer with of: model")
    corpus = read_corpus(resolved)
    learn_tokenizer(section, corpus, directory)
    return corpus


def learn_tokenizer(section: PretrainingSection, corpus: Corpus, directory: Path) -> None:
    """Learns a tokenizer from the corpus, if one is asked for, and keeps it in the run directory."""
    target = directory / TOKENIZER
    if section.tokenizer is not None and not target.is_dir():
        part = target.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(trained_tokenizer(corpus, section.tokenizer), part)
        part.rename(target)


def make_stage(resolved: ResolvedConfig, corpus: Corpus, space: SearchSpace) -> Pretraining:
    """The stage that every candidate of a search goes through.

    Raises:
        ConfigError: the pretrained model to inherit from cannot be loaded, or has another tokenizer.
    """
    from nas_meta.evaluation.pretraining.stage import Pretraining
    from nas_meta.evaluation.pretraining.weight_inheritance import name_of_table
    from nas_meta.models.state import serialize_state
    from nas_meta.tasks.corpus.vocabulary import vocabulary_of

    section = resolved.sections.pretraining
    tokens, base, table = tokenise_corpus(corpus, load_tokenizer(space.tokenizer)), None, None
    if isinstance(section.inherit, str):
        if vocabulary_of(load_tokenizer(section.inherit)).key != tokens.vocabulary.key:
            raise ConfigError(
                f"pretraining.inherit: the tokenizer of '{section.inherit}' is not that of {space_name(space)}, "
                f"'{space.tokenizer}': its word embeddings would belong to other words; expected the same tokenizer"
            )
        model = load_model(section.inherit, "pretraining.inherit")
        base, table = serialize_state(model), name_of_table(model)
    return Pretraining(section, tokens, resolved.sections.tasks.pooling, base, table)


def check_candidates(stage: Pretraining, space: SearchSpace, strategy: Strategy, seed: int) -> None:
    """Refuses what no candidate can do, before any is trained.

    Raises:
        ConfigError: the space's models cannot learn by the objective, or the strategy gives them trained weights.
    """
    import numpy as np

    from nas_meta.evaluation.pretraining.loop import make_loss
    from nas_meta.strategy.protocol import Strategy

    if type(strategy).start_of is not Strategy.start_of:
        raise ConfigError(
            "pretraining.of: candidates gives each candidate weights, but so does the strategy; expected of: model, "
            "or a strategy without a supernet"
        )
    with plugin_call(space, "build"):
        model = space.build(space.sample(np.random.default_rng(seed)))
    make_loss(model, stage.corpus, stage.section, stage.pooling)
    if stage.inherited(model, None) == 0:
        raise ConfigError(
            f"pretraining.inherit: nothing of '{stage.section.inherit}' has the name and dimensions of a part of "
            f"{type(model).__name__}; expected a model of the same family, or true"
        )


def load_model(name: str, key: str, causal: bool = False) -> nn.Module:
    """A pretrained model from a folder, a hub name or the starter extra; ``causal``: with its head for words.

    Raises:
        ConfigError: it cannot be loaded; the sentence begins with the key.
    """
    from transformers import AutoModel, AutoModelForCausalLM
    from transformers.utils import logging

    from nas_meta.models.token_checks import check_architecture, check_weights

    logging.disable_progress_bar()
    kind = AutoModelForCausalLM if causal else AutoModel
    refuse_adapter(name, key)
    try:
        # False, not left out: transformers would ask on the terminal whether to run a folder's own code.
        loaded = kind.from_pretrained(model_path(name), trust_remote_code=False, weights_only=True, dtype="float32")
        check_architecture(loaded, f"{key} '{name}'")
        check_weights(loaded, f"{key} '{name}'")
        return loaded.eval()
    except ConfigError:
        raise
    except Exception as error:  # a folder may hold anything, and so may what the libraries below raise
        raise ConfigError(f"{key} '{name}' cannot be loaded: {first_line(error, with_type=False)}") from error


def with_run_artifacts(resolved: ResolvedConfig, directory: Path) -> ResolvedConfig:
    """The config as a run goes on with it: with its own model and tokenizer, as far as they are there."""
    section, directory = resolved.sections.pretraining, directory.resolve()
    if section is None:
        return resolved
    options, tokenizer = resolved.options, None
    if section.of == "model" and (directory / ADAPTED).is_dir():
        space = options["space"].model_copy(update={"model": str(directory / ADAPTED)})
        options = {**options, "space": space}
    if section.tokenizer is not None and (directory / TOKENIZER).is_dir():
        tokenizer = str(directory / TOKENIZER)
    return replace(resolved, options=options, tokenizer=tokenizer)


def space_before_adaptation(resolved: ResolvedConfig, directory: Path, tasks: Tasks) -> SearchSpace | None:
    """The prepared space of a config as it was before the run adapted its model; None where the run has not."""
    if not (directory / ADAPTED).is_dir():
        return None
    return load_space(resolved, tasks)

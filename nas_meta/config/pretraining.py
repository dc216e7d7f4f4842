"""Builds the parts of pre-training from a config: the corpus, its tokenizer, and the pre-training stage of a trial."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nas_meta.config.problem import load_space, make_source
from nas_meta.config.resolved import ResolvedConfig
from nas_meta.core.guard import first_line
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
    from nas_meta.evaluation.trial import Evaluation
    from nas_meta.space.search_space import SearchSpace
    from nas_meta.tasks.pool import Tasks

ADAPTED = "adapted"  # folder of the adapted model in a run directory
TOKENIZER = "tokenizer"  # folder of the trained tokenizer in a run directory


def read_corpus(resolved: ResolvedConfig, judged: bool = True) -> Corpus:
    """Open the corpus of a config, without the texts of meta-validation and meta-test.

    Args:
        resolved: The config, with a ``pretraining`` section.
        judged: Whether the model will be evaluated on the tasks of the config. If not, held-out texts are removed from
            the default corpus only.

    Returns:
        The corpus.

    Raises:
        DataError: The corpus cannot be read.
        ConfigError: A package of the default corpus is not installed, or the examples of the tasks are not texts.
    """
    section, plugin = resolved.sections.pretraining, resolved.plugin("tasks")
    if section.corpus != DEFAULT and not judged:
        return open_corpus(paths_of(section), section.field)
    if plugin.modality != TEXT:
        raise ConfigError(
            f"pretraining needs texts, but the task source '{resolved.sections.tasks.source}' gives "
            f"{MODALITIES.get(plugin.modality, plugin.modality)}; expected a source of texts, or no pretraining section"
        )
    source = make_source(resolved)
    split = source.load()
    if section.corpus == DEFAULT:
        return default_corpus(source, split)
    return open_corpus(paths_of(section), section.field).without(held_out_texts(split))


def paths_of(section: PretrainingSection) -> list[str]:
    """Return the paths of ``pretraining.corpus`` as a list."""
    return [section.corpus] if isinstance(section.corpus, str) else list(section.corpus)


def prepare_pretraining(resolved: ResolvedConfig, directory: Path) -> Corpus | None:
    """Open the corpus of a search and train its tokenizer, if the config has a ``pretraining`` section.

    Args:
        resolved: The config.
        directory: Run directory, which gets the tokenizer.

    Returns:
        The corpus; None without pre-training.

    Raises:
        DataError: The corpus cannot be read.
        ConfigError: As :func:`read_corpus`, or the config asks for a new tokenizer for a pretrained model.
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
    """Train a tokenizer on the corpus and write it into the run directory, if the config asks for one.

    A tokenizer that the directory already has is not trained again.

    Args:
        section: The ``pretraining`` section.
        corpus: Texts to train on.
        directory: Run directory.
    """
    target = directory / TOKENIZER
    if section.tokenizer is not None and not target.is_dir():
        part = target.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(trained_tokenizer(corpus, section.tokenizer), part)
        part.rename(target)


def make_stage(resolved: ResolvedConfig, corpus: Corpus, space: SearchSpace) -> Pretraining:
    """Build the pre-training stage that every candidate of a search goes through.

    Args:
        resolved: The config, with ``pretraining.of: candidates``.
        corpus: The corpus; it is tokenised here, or read from the cache of tokenised corpora.
        space: The search space, whose tokenizer is used.

    Returns:
        The stage, which every trial calls before meta-training.

    Raises:
        ConfigError: The pretrained model in ``pretraining.inherit`` cannot be loaded or has another tokenizer.
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
                f"pretraining.inherit: the tokenizer of '{section.inherit}' differs from '{space.tokenizer}' of "
                f"{space_name(space)}, so their token embeddings differ; expected a model with the same tokenizer"
            )
        model = load_model(section.inherit, "pretraining.inherit")
        base, table = serialize_state(model), name_of_table(model)
    return Pretraining(section, tokens, resolved.sections.tasks.pooling, base, table)


def with_pretraining(evaluation: Evaluation, resolved: ResolvedConfig, corpus: Corpus | None) -> Evaluation:
    """Add the pre-training of candidates to an evaluation, if the config asks for it.

    Args:
        evaluation: What every trial goes through.
        resolved: The config of the search.
        corpus: The unlabelled texts; None if nothing is pre-trained.

    Returns:
        The evaluation; the same one without pre-training.

    Raises:
        ConfigError: The strategy provides initial weights itself; see :func:`make_stage` for other reasons.
    """
    from nas_meta.strategy.protocol import Strategy

    section = resolved.sections.pretraining
    if corpus is None or section is None or section.of != "candidates":
        return evaluation
    if resolved.plugin("strategy").start_of is not Strategy.start_of:
        raise ConfigError(
            "pretraining.of: candidates gives each candidate weights, but so does the strategy; expected of: model, "
            "or a strategy without a supernet"
        )
    return replace(evaluation, pretraining=make_stage(resolved, corpus, evaluation.space))


def load_model(name: str, key: str, causal: bool = False) -> nn.Module:
    """Load a pretrained model.

    Args:
        name: A folder, a hub name, or a name of the starter extra such as ``starter:minilm``.
        key: Key or phrase that the error message starts with, such as ``pretraining.inherit``.
        causal: Whether to load a causal language model with its prediction head, instead of the encoder.

    Returns:
        The model on the CPU, in evaluation mode.

    Raises:
        ConfigError: The model cannot be loaded.
    """
    from transformers import AutoModel, AutoModelForCausalLM
    from transformers.utils import logging

    from nas_meta.models.token_checks import check_architecture, check_weights

    logging.disable_progress_bar()
    kind = AutoModelForCausalLM if causal else AutoModel
    refuse_adapter(name, key)
    try:
        # Without an explicit False, transformers asks on the terminal whether to run the code in the folder.
        loaded = kind.from_pretrained(model_path(name), trust_remote_code=False, weights_only=True, dtype="float32")
        check_architecture(loaded, f"{key} '{name}'")
        check_weights(loaded, f"{key} '{name}'")
        return loaded.eval()
    except ConfigError:
        raise
    except Exception as error:  # the folder can contain anything, so the libraries can raise anything
        raise ConfigError(f"{key} '{name}' cannot be loaded: {first_line(error, with_type=False)}") from error


def with_run_artifacts(resolved: ResolvedConfig, directory: Path) -> ResolvedConfig:
    """Point a config to the adapted model and the trained tokenizer in its run directory.

    Args:
        resolved: The config.
        directory: Run directory.

    Returns:
        A config that uses those of the two that the run has already produced.
    """
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
    """Load the space of a config with its original model, to compare the adapted model with.

    Args:
        resolved: The config.
        directory: Run directory.
        tasks: The tokenised tasks.

    Returns:
        The prepared space; None if the run has not adapted a model.
    """
    if not (directory / ADAPTED).is_dir():
        return None
    return load_space(resolved, tasks)

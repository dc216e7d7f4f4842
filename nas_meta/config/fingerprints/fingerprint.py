"""The fingerprint of what makes up the problem of a search: its data, its pretrained models and its corpus."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nas_meta.config.fingerprints.data import data_difference, fingerprint_of_tasks, names_digest
from nas_meta.config.fingerprints.files import file_differences, missing_model, named_models
from nas_meta.errors import ConfigError
from nas_meta.tasks.source import SPLITS

if TYPE_CHECKING:
    from nas_meta.config.resolved import ResolvedConfig
    from nas_meta.tasks.corpus.corpus import Corpus
    from nas_meta.tasks.pool import Tasks


@dataclass(frozen=True)
class Fingerprint:
    """Digests of the data, the pretrained models and the corpus of a search.

    The fields are keys of the journal and keep their names.

    Attributes:
        data: The number of examples and their digest, by split and class; empty if unknown.
        models: Digests of the files of pretrained models, by key of the config and file name.
        corpus: Digest of the unlabelled texts of pre-training; None without any.
        names: Digest of the names of classes in words; None if no model reads them, or if unknown.
    """

    data: dict[str, dict[str, tuple[int, str]]] = field(default_factory=dict)
    models: dict[str, dict[str, str]] = field(default_factory=dict)
    corpus: str | None = None
    names: str | None = None

    def completed_by(self, other: Fingerprint) -> Fingerprint:
        """Return this fingerprint with what it lacks from another.

        Args:
            other: The other fingerprint.
        """
        models, corpus = {**other.models, **self.models}, self.corpus or other.corpus
        return Fingerprint(self.data or other.data, models, corpus, self.names or other.names)


def take_fingerprint(resolved: ResolvedConfig, tasks: Tasks | None = None, corpus: Corpus | None = None) -> Fingerprint:
    """Return the fingerprint of a config as its data and models are now.

    Args:
        resolved: The config as the user wrote it, without what the run made.
        tasks: Its tasks; None leaves out the data.
        corpus: Its corpus; None leaves it out.

    Returns:
        The fingerprint.

    Raises:
        ConfigError: A file of a model cannot be read.
        DataError: The corpus cannot be read.
    """
    from nas_meta.tasks.corpus.token_store import corpus_hash

    try:
        models = {key: files for key, (_, files) in named_models(resolved).items()}
    except OSError as error:
        raise ConfigError(f"{error.filename} cannot be read: {error.strerror}; expected a readable file") from error
    data, names = ({}, None) if tasks is None else (fingerprint_of_tasks(tasks), names_digest(tasks))
    return Fingerprint(data, models, None if corpus is None else corpus_hash(corpus), names)


def model_differences(before: Fingerprint, now: Fingerprint, resolved: ResolvedConfig) -> list[str]:
    """Return in words which pretrained models differ.

    Args:
        before: The fingerprint of a run.
        now: The fingerprint as it is now.
        resolved: The config of the run.

    Returns:
        One clause for each model that differs; a hub model that is not in the local cache counts as equal.
    """
    clauses = []
    for key, files in before.models.items():
        if key in now.models:
            if differing := list(file_differences(files, now.models[key])):
                clauses.append(f"{key} '{_name(resolved, key)}': {', '.join(differing)}")
        elif gone := missing_model(resolved, key):
            clauses.append(f"{key} '{gone}' is gone")
    return clauses


def data_differences(before: Fingerprint, now: Fingerprint, resolved: ResolvedConfig) -> list[str]:
    """Return in words how the data, or else the names of classes or the corpus, differ.

    Args:
        before: The fingerprint of a run.
        now: The fingerprint as it is now.
        resolved: The config of the run.

    Returns:
        At most one clause: held-out texts are left out of a corpus, so a corpus differs wherever its data do.
    """
    if before.data and now.data and (difference := data_difference(before.data, now.data)):
        return [f"{_origin(before, now, resolved)}: {difference}"]
    if before.names is not None and now.names not in (None, before.names):
        source = resolved.sections.tasks.source
        return [f"tasks.source '{source}' has other words for its classes than those that the run began with"]
    if before.corpus is not None and now.corpus not in (None, before.corpus):
        corpus = resolved.sections.pretraining.corpus
        names = corpus if isinstance(corpus, str) else ", ".join(corpus)
        return [f"pretraining.corpus '{names}' has other texts than those that the run began with"]
    return []


def _origin(before: Fingerprint, now: Fingerprint, resolved: ResolvedConfig) -> str:
    """Return the option with the data that differ: a file if there is one, or else the task source."""
    options = resolved.options["tasks"].model_dump(mode="json")
    changed = [split for split in SPLITS if before.data.get(split) != now.data.get(split)]
    keys: Mapping[str, str] = dict(zip(SPLITS, ("train", "valid", "test"), strict=True))
    for key in ("path", *(keys[split] for split in changed)):
        if isinstance(options.get(key), str):
            return f"tasks.{key} '{options[key]}'"
    return f"tasks.source '{resolved.sections.tasks.source}'"


def _name(resolved: ResolvedConfig, key: str) -> str:
    return named_models(resolved)[key][0]

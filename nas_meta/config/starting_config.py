"""The first config for a user's own labelled file: it runs as it is, and its comments say what to change."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from nas_meta.core import plugins
from nas_meta.core.files import why_unreadable
from nas_meta.core.wording import counted
from nas_meta.errors import ConfigError, DataError
from nas_meta.tasks.class_names import are_words
from nas_meta.tasks.data_facts import DataFacts, data_facts
from nas_meta.tasks.episodes import MOST_WAYS, EpisodeShape
from nas_meta.tasks.reading.columns import first_rows, guess_columns, source_of
from nas_meta.tasks.source import Classes, SplitClasses, TaskSource

EVEN = (0.34, 0.33, 0.33)  # shares of the classes; the default split needs more of them
QUERIES = (5, 4, 3, 2, 1)  # query examples per class that are tried, the first one that suffices is taken
SHOTS = 1
TOKENS = (32, 64, 128, 256)  # lengths to which texts may be cut
TOKENS_PER_WORD = 1.4  # of English text in the vocabulary of MiniLM, with a margin for its special tokens

TEMPLATE = """\
# {what}
# Search with it: nas-meta search {name}
# Every key is described in docs/configuration.md; nas-meta config {name} prints all of them.

tasks:
{tasks}

space:
  name: bert-subnet         # sub-networks of a pretrained encoder; nas-meta spaces lists the others
  model: starter:minilm     # or a folder, or a name on the Hugging Face Hub
  min_layers: 3

strategy:
  name: auto                # picks one for the budget and the space

objectives:
  accuracy: maximize
  flops: {{direction: minimize, max: 0.6x}}   # at most 60 % of the model's; params: {{max: 18 M}} works, too

final_training:             # trains the best trial for longer and uses that if it is better; takes some minutes
  steps: 160
  distill: {{trained: true, weight: 10}}   # the teacher is the whole model, meta-trained first

budget:
  trials: 24
"""


@dataclass(frozen=True)
class StartingConfig:
    """A config for labelled files, and what was found in them.

    Attributes:
        tasks: The section ``tasks``, as plain data.
        facts: What was found in the data, and the episodes that the config has.
    """

    tasks: Mapping[str, Any]
    facts: DataFacts

    def as_yaml(self, name: str) -> str:
        """Return the config with comments.

        Args:
            name: Path of the config file: relative paths of the data start from its folder.
        """
        facts = self.facts
        comments = {
            "source": "nas-meta tasks lists all of them",
            "path": "relative to the folder of this file",
            "train": "relative to the folder of this file",
            "text": "column with the text",
            "label": "column with the class",
            "group": "column that divides the examples into tasks",
            "join_splits": "the files have the same classes, which are split anew",
            "min_examples": "classes with fewer different texts are left out",
            "fractions": "shares of the classes to train on, to choose by and to test on",
            "ways": "classes per task",
            "shots": "examples per class to learn from",
            "queries": "examples per class to be scored on",
            "max_tokens": "longer texts are cut",
            "class_names": "the name of each class is one more example of it",
        }
        tasks = dict(self.tasks)
        for key in ("path", "train", "valid", "test"):
            if key in tasks and not os.path.isabs(os.path.expanduser(tasks[key])):
                tasks[key] = Path(os.path.relpath(tasks[key], Path(name).parent)).as_posix()
        rows = [(key, f"  {key}: {_scalar(value)}") for key, value in tasks.items()]
        width = min(40, max(len(row) for _, row in rows)) + 2
        lines = [f"{row:<{width}}# {comments[key]}" if key in comments else row for key, row in rows]
        classes = counted(facts.classes, "class", "classes")
        what = f"{counted(facts.examples, 'example')} of {classes}, from {_scalar(facts.where)}"
        return TEMPLATE.format(what=what, name=name, tasks="\n".join(lines))

    def save(self, file: Path) -> None:
        """Write the config with comments to a new file; its folder is made if necessary.

        Args:
            file: The file.

        Raises:
            ConfigError: The file exists already, or cannot be written.
        """
        refuse_existing(file)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with open(file, "x", encoding="utf-8") as stream:
                stream.write(self.as_yaml(str(file)))
        except OSError as error:
            raise ConfigError(f"{file} cannot be written: {error.strerror or error}") from error


def refuse_existing(file: Path) -> None:
    """Refuse to write over a file.

    Args:
        file: The file that a config would be written to.

    Raises:
        ConfigError: It exists already.
    """
    if os.path.lexists(file):
        raise ConfigError(f"{file} exists already; choose another file with --to CONFIG")


def starting_config(
    files: Sequence[Path], text: str | None = None, label: str | None = None, group: str | None = None
) -> StartingConfig:
    """Look at labelled files, and choose the config of a first search on them.

    Args:
        files: One file whose classes are split, or three: of meta-train, meta-validation and meta-test.
        text: Column with the text; None guesses it.
        label: Column with the class; None guesses it.
        group: Column that divides the examples into tasks with the same few classes; None if there are no such tasks.

    Returns:
        The config.

    Raises:
        ConfigError: There are two files, or more than three.
        DataError: The files cannot be read, or they have too few classes or examples.
    """
    if len(files) not in (1, 3):
        raise ConfigError(f"{len(files)} files are given; expected one, or three: to train, validate and test on")
    try:
        name = source_of(files[0])
        text, label = guess_columns(first_rows(files[0], name), files[0], text, label)
    except OSError as error:
        raise DataError(f"{files[0]} cannot be read: {why_unreadable(files[0], error)}") from error
    keys = ("path",) if len(files) == 1 else ("train", "valid", "test")
    given: dict[str, Any] = dict(zip(keys, map(str, files), strict=True)) | {"text": text, "label": label}
    given |= {"group": group} if group else {}
    source = _source(name, given)
    raw = source.read()
    try:
        source.divided(raw)
    except DataError:
        given["join_splits"] = True  # files of an ordinary classifier; any other problem is found again
    added, split, shape = _shape(given, source, raw)
    facts = data_facts(split, shape, source.where())
    tasks = {"source": name, **given, **added, **vars(shape)}
    if facts.words is not None and (tokens := _tokens(facts.words[1])) != TOKENS[0]:
        tasks["max_tokens"] = tokens
    if are_words([name for classes in split.splits.values() for name in classes]) and not split.groups:
        tasks["class_names"] = True
    return StartingConfig(tasks, facts)


def _source(name: str, options: Mapping[str, Any]) -> TaskSource:
    """Return a task source with its options."""
    return plugins.load("tasks", name)(plugins.options_of("tasks", name)(**options))


def _shape(
    given: Mapping[str, Any], source: TaskSource, raw: Classes | Mapping[str, Classes]
) -> tuple[dict[str, Any], SplitClasses, EpisodeShape]:
    """Choose the episodes: as many classes as possible up to five, and then as many queries as possible.

    The default split is preferred to an even one, which needs fewer classes.

    Args:
        given: Options of the task source so far.
        source: The source that has read the data.
        raw: What it has read.

    Returns:
        Further options, the split examples, and the shape.

    Raises:
        DataError: No episode can be drawn.
    """
    best: tuple[tuple[int, int], dict[str, Any], SplitClasses] | None = None
    for queries in QUERIES:
        for fractions in (None, EVEN):
            added: dict[str, Any] = {"min_examples": SHOTS + queries}
            added |= {"fractions": list(fractions)} if fractions else {}
            source.options = type(source.options)(**given, **added)
            split = source.divided(raw)
            ways = min(MOST_WAYS, *map(len, _smallest_choices(split)))
            if ways >= 2 and (best is None or (ways, queries) > best[0]):
                best = (ways, queries), added, split
        if best is not None and best[0][0] == MOST_WAYS:
            break
    if best is None:
        raise DataError(_too_few(source.divided(raw), source.where()))
    (ways, queries), added, split = best
    return added, split, EpisodeShape(ways, SHOTS, queries)


def _smallest_choices(split: SplitClasses) -> list[list[str]]:
    """Return the classes of each split that an episode may be drawn from; those of its largest group with groups."""
    found = []
    for classes in split.splits.values():
        groups: dict[str, list[str]] = {}
        for name in classes:
            groups.setdefault(split.groups.get(name, ""), []).append(name)
        found.append(max(groups.values(), key=len, default=[]))
    return found


def _too_few(split: SplitClasses, where: str) -> str:
    """Return the sentence for data from which no episode can be drawn."""
    count = sum(map(len, split.splits.values()))
    found = f"{where} has {counted(count, 'class', 'classes')} with at least two different texts"
    if split.groups:
        return f"{found}; expected two such classes in each of three groups"
    return (
        f"{found}; expected 6 or more, because models are trained, chosen and tested on different classes, or --group "
        "with the column that divides the examples into tasks of the same few classes"
    )


def _tokens(words: int) -> int:
    """Return the length that most texts of a number of words fit in."""
    return next((tokens for tokens in TOKENS if tokens >= TOKENS_PER_WORD * words + 2), TOKENS[-1])


def _scalar(value: Any) -> str:
    """Return a value as YAML on one line."""
    dumped = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**9)
    return dumped.removesuffix("...\n").strip()

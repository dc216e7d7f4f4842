"""Few-shot tasks made of text without labels: tell which word was masked (SMLMT).

Bansal et al. 2020, "Self-Supervised Meta-Learning for Few-Shot Natural Language Classification Tasks", section 3: N
words are the classes of a task, the examples of a word are sentences in which it is replaced by the mask token, and
labels are random. Words are filtered by how many sentences they stand in.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

from pydantic import Field, model_validator

from nas_meta.tasks.corpus.corpus import DEFAULT, Corpus, open_corpus
from nas_meta.tasks.corpus.default_corpus import default_corpus
from nas_meta.tasks.source import Classes, SourceOptions, TaskSource
from nas_meta.tasks.sources.icd10 import ICD10

SENTENCE_END = re.compile(r"(?<=[.!?;])\s+")
WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")


class SMLMTOptions(SourceOptions):
    """Options of the task source ``smlmt``."""

    corpus: str | list[str] = Field(
        DEFAULT,
        min_length=1,
        description="text files, folders, JSON Lines, folders of datasets; or default, meta-train texts of packages",
    )
    field: str = Field("text", description="where a text stands in JSON Lines and datasets")
    mask: str = Field("[MASK]", min_length=1, description="what stands for the word: the tokenizer's mask token")
    max_examples: int = Field(200, ge=2, description="words in more sentences are left out: they say little")
    shortest: int = Field(4, ge=2, description="sentences of fewer words are left out")
    window: int = Field(24, ge=3, description="of longer sentences so many words stay, around the one that is masked")

    @model_validator(mode="after")
    def _some_are_left(self) -> SMLMTOptions:
        if self.max_examples < self.min_examples:
            raise ValueError(f"max_examples is {self.max_examples}, below min_examples, {self.min_examples}")
        return self


class SMLMT(TaskSource):
    """Sentences with a masked word, classes are the words: tasks from unlabelled text (Bansal et al. 2020)."""

    Options = SMLMTOptions

    def read(self) -> Classes:
        o = self.options
        return masked_words(sentences(self.corpus()), o.min_examples, o.max_examples, o.shortest, o.window, o.mask)

    def corpus(self) -> Corpus:
        """The unlabelled texts."""
        paths = self.options.corpus
        if paths == DEFAULT:
            source = ICD10()
            return default_corpus(source, source.load())
        return open_corpus([paths] if isinstance(paths, str) else paths, self.options.field)

    def where(self) -> str:
        paths = self.options.corpus
        return f"tasks.corpus {paths if isinstance(paths, str) else ', '.join(paths)}"


def sentences(texts: Iterable[str]) -> Iterator[str]:
    """The sentences of texts."""
    for text in texts:
        yield from filter(None, map(str.strip, SENTENCE_END.split(text)))


def masked_words(
    lines: Iterable[str], fewest: int, most: int, shortest: int, window: int, mask: str
) -> dict[str, list[str]]:
    """Sentences by the word that is masked in them.

    A sentence belongs to one word alone, the rarest of those that stand in ``fewest`` to ``most`` sentences (of equally
    rare ones the first in the alphabet): so no sentence is in two classes, and none in two splits. Case makes no
    difference, and every occurrence is masked.
    """
    kept = [line for line in dict.fromkeys(lines) if len(WORD.findall(line)) >= shortest]
    counted = Counter(word for line in kept for word in words(line))
    classes: dict[str, list[str]] = defaultdict(list)
    for line in kept:
        known = [word for word in words(line) if fewest <= counted[word] <= most]
        if known:
            word = min(known, key=lambda one: (counted[one], one))
            classes[word].append(masked(line, word, window, mask))
    return dict(classes)


def words(line: str) -> set[str]:
    """The distinct words of a sentence, without regard to case."""
    return {word.casefold() for word in WORD.findall(line)}


def masked(line: str, word: str, window: int, mask: str) -> str:
    """A sentence with every occurrence of a word masked, and no more than ``window`` words around the first."""
    places = list(WORD.finditer(line))
    first = next(i for i, place in enumerate(places) if place.group().casefold() == word)
    begin = max(0, min(first - window // 2, len(places) - window))
    part = places[begin : begin + window]
    text, end = [], part[0].start() if begin else 0
    for place in part:
        text += [line[end : place.start()], mask if place.group().casefold() == word else place.group()]
        end = place.end()
    return "".join(text) + (line[end:] if begin + window >= len(places) else "")

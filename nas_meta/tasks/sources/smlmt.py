"""Few-shot tasks from unlabelled text, in which the masked word is predicted (SMLMT).

Bansal et al. 2020, "Self-Supervised Meta-Learning for Few-Shot Natural Language Classification Tasks", section 3: N
words are the classes of a task, the examples of a word are sentences in which it is replaced by the mask token, and
labels are random. Words are filtered by the number of sentences that contain them.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

from pydantic import Field, model_validator

from nas_meta.core.paths import CorpusPaths
from nas_meta.tasks.corpus.corpus import DEFAULT, Corpus, open_corpus
from nas_meta.tasks.corpus.default_corpus import default_corpus
from nas_meta.tasks.source import Classes, SourceOptions, TaskSource
from nas_meta.tasks.sources.icd10 import ICD10

SENTENCE_END = re.compile(r"(?<=[.!?;])\s+")
WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")


class SMLMTOptions(SourceOptions):
    """Options of the task source ``smlmt``."""

    corpus: CorpusPaths = Field(
        DEFAULT,
        min_length=1,
        description="text files, folders, JSON Lines, datasets folders; or default: meta-train texts of packages",
    )
    field: str = Field("text", description="field with the text in JSON Lines and datasets")
    mask: str = Field("[MASK]", min_length=1, description="mask token of the tokenizer, which replaces the word")
    max_examples: int = Field(200, ge=2, description="words in more sentences are left out as too common")
    shortest: int = Field(4, ge=2, description="sentences with fewer words are left out")
    window: int = Field(24, ge=3, description="longer sentences are cut to this many words around the masked word")

    @model_validator(mode="after")
    def _check_range(self) -> SMLMTOptions:
        if self.max_examples < self.min_examples:
            raise ValueError(
                f"max_examples is {self.max_examples}; expected at least min_examples, which is {self.min_examples}"
            )
        return self


class SMLMT(TaskSource):
    """Sentences with a masked word; classes are the words: tasks from unlabelled text (Bansal et al. 2020)."""

    Options = SMLMTOptions

    def read(self) -> Classes:
        o = self.options
        lines = split_sentences(self.corpus())
        return masked_words(lines, o.min_examples, o.max_examples, o.shortest, o.window, o.mask)

    def corpus(self) -> Corpus:
        """Return the unlabelled texts.

        Raises:
            DataError: A path cannot be read.
            ConfigError: A package of the default corpus is not installed.
        """
        paths = self.options.corpus
        if paths == DEFAULT:
            source = ICD10()
            return default_corpus(source, source.load())
        return open_corpus([paths] if isinstance(paths, str) else paths, self.options.field)

    def where(self) -> str:
        paths = self.options.corpus
        return f"tasks.corpus {paths if isinstance(paths, str) else ', '.join(paths)}"


def split_sentences(texts: Iterable[str]) -> Iterator[str]:
    """Split texts into sentences after ``.``, ``!``, ``?`` and ``;``."""
    for text in texts:
        yield from filter(None, map(str.strip, SENTENCE_END.split(text)))


def masked_words(
    lines: Iterable[str], fewest: int, most: int, shortest: int, window: int, mask: str
) -> dict[str, list[str]]:
    """Group sentences by the word that is masked in them.

    Each sentence belongs to at most one class, its rarest word among those in ``fewest`` to ``most`` sentences (ties go
    to the first in the alphabet). So no sentence is in two classes, and none is in two splits. Case is ignored.

    Args:
        lines: Sentences; repeated ones count once.
        fewest: Words in fewer sentences are not classes.
        most: Words in more sentences are not classes.
        shortest: Sentences with fewer words are left out.
        window: Number of words to which longer sentences are cut.
        mask: Mask token of the tokenizer.

    Returns:
        Sentences by class, with every occurrence of the class's word masked.
    """
    unique = [line for line in dict.fromkeys(lines) if len(WORD.findall(line)) >= shortest]
    frequency = Counter(word for line in unique for word in distinct_words(line))
    classes: dict[str, list[str]] = defaultdict(list)
    for line in unique:
        candidates = [word for word in distinct_words(line) if fewest <= frequency[word] <= most]
        if candidates:
            word = min(candidates, key=lambda one: (frequency[one], one))
            classes[word].append(mask_word(line, word, window, mask))
    return dict(classes)


def distinct_words(line: str) -> set[str]:
    """Return the distinct words of a sentence, case-folded."""
    return {word.casefold() for word in WORD.findall(line)}


def mask_word(line: str, word: str, window: int, mask: str) -> str:
    """Mask every occurrence of a word in a sentence, and cut the sentence to a window around the first.

    For example, ``mask_word("one two three four five", "three", 3, "[MASK]")`` is ``"two [MASK] four"``.

    Args:
        line: Sentence that contains the word.
        word: Case-folded word.
        window: Largest number of words to keep, the masked one included.
        mask: Mask token of the tokenizer.

    Returns:
        The masked sentence; what is between the kept words is unchanged.
    """
    places = list(WORD.finditer(line))
    first = next(i for i, place in enumerate(places) if place.group().casefold() == word)
    begin = max(0, min(first - window // 2, len(places) - window))
    part = places[begin : begin + window]
    text, end = [], part[0].start() if begin else 0
    for place in part:
        text += [line[end : place.start()], mask if place.group().casefold() == word else place.group()]
        end = place.end()
    return "".join(text) + (line[end:] if begin + window >= len(places) else "")

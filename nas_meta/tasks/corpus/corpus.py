"""Unlabelled texts: text files, folders, JSON Lines and folders of Hugging Face's ``datasets``; read, never held."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas_meta.core.files import is_encodable, json_object, regular_file
from nas_meta.errors import DataError, nearest

DEFAULT = "default"

PART = 1 << 20  # bytes of a line that are one text: a longer one is cut between two words
LONGEST_ROW = 1 << 28  # bytes of a line of JSON
TEXT = (".txt", ".text", ".md", ".rst")
JSON_LINES = (".jsonl", ".ndjson")
DATASETS = ("dataset_info.json", "dataset_dict.json")  # either lies in what ``save_to_disk`` wrote


@dataclass(frozen=True)
class Corpus:
    """Texts in a fixed order, read anew each time that they are looped over.

    Attributes:
        parts: each gives its texts.
        stamp: tells this corpus from another without reading it, such as names, sizes and times of files.
        excluded: texts that are passed over, as :func:`folded` makes them.
    """

    parts: Sequence[Callable[[], Iterable[str]]]
    stamp: str
    excluded: Collection[str] = frozenset()

    def __iter__(self) -> Iterator[str]:
        for part in self.parts:
            for text in part():
                text = text.strip()
                if text and not (self.excluded and folded(text) in self.excluded):
                    yield text

    def without(self, texts: Iterable[str]) -> Corpus:
        """This corpus, but for texts that must not be seen: those of meta-validation and meta-test classes.

        Compared without regard to case and white space.
        """
        excluded = frozenset(self.excluded) | {folded(text) for text in texts}
        return Corpus(self.parts, self.stamp, excluded)


def folded(text: str) -> str:
    """A text without what does not tell it from another: case and white space."""
    return " ".join(text.casefold().split())


def open_corpus(paths: Sequence[str | Path], field: str = "text") -> Corpus:
    """The corpus of files and folders, in the order given; a folder is read whole, its files by name.

    ``.txt``, ``.text``, ``.md`` and ``.rst`` hold a text a line (any file that is named itself does, unless it is JSON
    Lines), ``.jsonl`` and ``.ndjson`` a JSON object a line with the text under ``field``. A folder that
    ``datasets.Dataset.save_to_disk`` wrote is read through the package ``datasets``.

    Raises:
        DataError: a path does not exist, or a folder holds no such file. What is wrong inside a file is told with its
            line, when it is read.
    """
    parts: list[Callable[[], Iterable[str]]] = []
    stamps: list[tuple[Any, ...]] = []
    for path in map(Path, paths):
        if any((path / name).is_file() for name in DATASETS):
            parts.append(lambda path=path: _dataset(path, field))
            stamps += _stamps(sorted(p for p in path.rglob("*") if p.is_file()))
            continue
        files = _files_of(path)
        parts += [_reader(file, field) for file in files]
        stamps += _stamps(files)
    if not parts:
        raise DataError("no corpus is named; expected text files, folders or JSON Lines")
    return Corpus(tuple(parts), hashlib.sha256(repr((field, stamps)).encode()).hexdigest())


def _files_of(path: Path) -> list[Path]:
    try:
        if not path.is_dir():
            return [regular_file(path)]
    except OSError as error:
        raise DataError(f"the corpus {path} cannot be read: {error.strerror}") from error
    files = sorted(p for p in path.rglob("*") if p.suffix.lower() in TEXT + JSON_LINES and p.is_file())
    if not files:
        raise DataError(
            f"the corpus {path} holds no text; expected files that end in {', '.join(TEXT + JSON_LINES)}, or a folder "
            "that datasets' save_to_disk wrote"
        )
    return files


def _stamps(files: Sequence[Path]) -> list[tuple[Any, ...]]:
    return [(str(f.resolve()), s.st_size, s.st_mtime_ns) for f in files for s in [f.stat()]]


def _reader(file: Path, field: str) -> Callable[[], Iterable[str]]:
    if file.suffix.lower() in JSON_LINES:
        return lambda: _json_lines(file, field)
    return lambda: _lines(file)


def _opened(file: Path) -> Any:
    try:
        return regular_file(file).open("rb")
    except OSError as error:
        raise DataError(f"the corpus {file} cannot be read: {error.strerror}") from error


def _decoded(data: bytes, file: Path, line: int) -> str:
    try:
        return data.decode("utf-8-sig" if line == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{file}:{line}: not UTF-8 (byte {error.start} of the line); expected UTF-8 text") from error


def _lines(file: Path) -> Iterator[str]:
    """The lines of a text file; one that is very long in parts."""
    with _opened(file) as stream:
        number, rest = 1, b""
        while data := stream.readline(PART):
            data = rest + data
            ended, rest = data.endswith(b"\n"), b""
            if not ended and len(data) >= PART:
                data, rest = _cut(data)
            yield _decoded(data, file, number)
            number += ended
        if rest:
            yield _decoded(rest, file, number)


def _cut(data: bytes) -> tuple[bytes, bytes]:
    """The part of a long line up to its last space, or to its last whole character where there is none, and the rest.

    In UTF-8 the first byte of a character is none of 0b10xxxxxx.
    """
    at = data.rfind(b" ") + 1
    if not at:
        at = len(data) - 1
        while at > 1 and data[at] & 0xC0 == 0x80:
            at -= 1
    return data[:at], data[at:]


def _json_lines(file: Path, field: str) -> Iterator[str]:
    with _opened(file) as stream:
        number = 0
        while data := stream.readline(LONGEST_ROW):
            number += 1
            where = f"{file}:{number}"
            if len(data) == LONGEST_ROW:
                raise DataError(f"{where}: a line of more than {LONGEST_ROW >> 20} MiB; expected one object a line")
            content = _decoded(data, file, number)
            if not content.strip():
                continue
            yield _value(json_object(content, where), field, where)


def _value(row: dict[str, Any], field: str, where: str) -> str:
    if field not in row:
        raise DataError(f"{where}: there is no field '{field}'; {nearest(field, map(str, row))}")
    text = row[field]
    if not isinstance(text, str):
        raise DataError(f"{where}: '{field}' is {type(text).__name__}; expected a string")
    if not is_encodable(text):
        raise DataError(f"{where}: '{field}' holds half a character (a lone surrogate); expected text")
    return text


def _dataset(folder: Path, field: str) -> Iterator[str]:
    """The texts of a dataset on disk, memory-mapped; of several splits that which is named ``train``, else all."""
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise DataError(
            f"the corpus {folder} needs the package datasets, which is not installed: pip install 'nas-meta[datasets]'"
        ) from error
    try:
        loaded = datasets.load_from_disk(str(folder))
    except Exception as error:  # a folder may hold anything, and so may what the library raises
        raise DataError(f"the corpus {folder} cannot be read by datasets: {error}") from error
    splits = loaded if isinstance(loaded, dict) else {"": loaded}
    for name, split in {"train": splits["train"]}.items() if "train" in splits else splits.items():
        if field not in split.column_names:
            raise DataError(f"{folder / name}: there is no field '{field}'; {nearest(field, split.column_names)}")
        for number, row in enumerate(split.select_columns(field)):
            yield _value(row, field, f"{folder / name}, row {number}")

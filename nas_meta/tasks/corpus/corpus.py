"""Unlabelled texts from text files, folders, JSON Lines and folders of Hugging Face's ``datasets``.

A corpus is a stream: it is read anew for every loop and never held in memory, so it may be larger than memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas_meta.core.files import is_encodable, json_object, regular_file, why_unreadable
from nas_meta.errors import DataError, nearest

DEFAULT = "default"

PART = 1 << 20  # bytes of the longest text: a longer line of a text file is cut between two words
LONGEST_ROW = 1 << 28  # bytes of the longest line of a JSON Lines file
TEXT = (".txt", ".text", ".md", ".rst")
JSON_LINES = (".jsonl", ".ndjson")
DATASETS = ("dataset_info.json", "dataset_dict.json")  # a folder that ``save_to_disk`` wrote contains one of them


@dataclass(frozen=True)
class Corpus:
    """Texts in a fixed order, read anew for every loop over the corpus.

    Attributes:
        parts: Functions that each return the texts of one part of the corpus, such as a file.
        stamp: Key that changes whenever the texts may have changed, computed without reading them: for files, a hash of
            their paths, sizes and modification times.
        excluded: Keys of the texts to skip, as :func:`comparison_key` returns them.
    """

    parts: Sequence[Callable[[], Iterable[str]]]
    stamp: str
    excluded: Collection[str] = frozenset()

    def __iter__(self) -> Iterator[str]:
        for part in self.parts:
            for text in part():
                text = text.strip()
                if text and not (self.excluded and comparison_key(text) in self.excluded):
                    yield text

    def without(self, texts: Iterable[str]) -> Corpus:
        """Return this corpus without some texts, such as those of meta-validation and meta-test classes.

        Args:
            texts: Texts to exclude. Case and white space do not matter in the comparison.
        """
        excluded = frozenset(self.excluded) | {comparison_key(text) for text in texts}
        return Corpus(self.parts, self.stamp, excluded)


def comparison_key(text: str) -> str:
    """Return a text without differences in case and white space, for comparing texts."""
    return " ".join(text.casefold().split())


def open_corpus(paths: Sequence[str | Path], field: str = "text") -> Corpus:
    """Open files and folders as one corpus, in the order given.

    Files that end in ``.jsonl`` or ``.ndjson`` contain one JSON object per line. All other files contain one text per
    line. A folder is searched recursively for JSON Lines files and files that end in ``.txt``, ``.text``, ``.md`` or
    ``.rst``, which are read in the order of their paths. A folder that ``datasets.Dataset.save_to_disk`` wrote is read
    with the package ``datasets``.

    Args:
        paths: Files and folders.
        field: Field with the text in JSON Lines files and datasets.

    Returns:
        The corpus. Its files are read when it is looped over, which raises DataError, with file and line, for content
        that is not valid.

    Raises:
        DataError: There are no paths, a path does not exist, or a folder contains no such file.
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
        raise DataError("the corpus has no paths; expected text files, folders or JSON Lines files")
    return Corpus(tuple(parts), hashlib.sha256(repr((field, stamps)).encode()).hexdigest())


def _files_of(path: Path) -> list[Path]:
    """Return the file itself, or the files of a folder that can be read as text or JSON Lines."""
    try:
        if not path.is_dir():
            return [regular_file(path)]
    except OSError as error:
        raise DataError(f"the corpus {path} cannot be read: {why_unreadable(path, error)}") from error
    files = sorted(p for p in path.rglob("*") if p.suffix.lower() in TEXT + JSON_LINES and p.is_file())
    if not files:
        raise DataError(
            f"the corpus {path} contains no text files; expected files that end in {', '.join(TEXT + JSON_LINES)}, or "
            "a folder written by save_to_disk of datasets"
        )
    return files


def _stamps(files: Sequence[Path]) -> list[tuple[Any, ...]]:
    """Return path, size and modification time of each file."""
    return [(str(f.resolve()), s.st_size, s.st_mtime_ns) for f in files for s in [f.stat()]]


def _reader(file: Path, field: str) -> Callable[[], Iterable[str]]:
    """Return a function that reads the texts of a file."""
    if file.suffix.lower() in JSON_LINES:
        return lambda: _json_lines(file, field)
    return lambda: _lines(file)


def _open_binary(file: Path) -> Any:
    """Open a regular file, or raise DataError."""
    try:
        return regular_file(file).open("rb")
    except OSError as error:
        raise DataError(f"the corpus {file} cannot be read: {why_unreadable(file, error)}") from error


def _decode(data: bytes, file: Path, line: int) -> str:
    """Decode a line of a file; a byte order mark in front of the first line is dropped."""
    try:
        return data.decode("utf-8-sig" if line == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{file}:{line}: not UTF-8 (byte {error.start} of the line); expected UTF-8 text") from error


def _lines(file: Path) -> Iterator[str]:
    """Yield the lines of a text file, a line longer than ``PART`` bytes in several parts.

    ``readline(PART)`` returns part of such a line; what :func:`_cut` leaves over is the beginning of the next part.
    """
    with _open_binary(file) as stream:
        number, rest = 1, b""
        while data := stream.readline(PART):
            data = rest + data
            ended, rest = data.endswith(b"\n"), b""
            if not ended and len(data) >= PART:
                data, rest = _cut(data)
            yield _decode(data, file, number)
            number += ended
        if rest:
            yield _decode(rest, file, number)


def _cut(data: bytes) -> tuple[bytes, bytes]:
    """Cut a long line after its last space, or before its last, possibly incomplete character if it has no space.

    In UTF-8, all bytes of a character except the first have the form 0b10xxxxxx. For example, ``b"one two"`` becomes
    ``b"one "`` and ``b"two"``.
    """
    at = data.rfind(b" ") + 1
    if not at:
        at = len(data) - 1
        while at > 1 and data[at] & 0xC0 == 0x80:
            at -= 1
    return data[:at], data[at:]


def _json_lines(file: Path, field: str) -> Iterator[str]:
    """Yield one field of every object in a JSON Lines file."""
    with _open_binary(file) as stream:
        number = 0
        while data := stream.readline(LONGEST_ROW):
            number += 1
            where = f"{file}:{number}"
            if len(data) == LONGEST_ROW:
                raise DataError(
                    f"{where}: the line is longer than {LONGEST_ROW >> 20} MiB; expected one object per line"
                )
            content = _decode(data, file, number)
            if not content.strip():
                continue
            yield _text_field(json_object(content, where), field, where)


def _text_field(row: dict[str, Any], field: str, where: str) -> str:
    """Return a field of a row, or raise DataError if it is missing or not a string."""
    if field not in row:
        raise DataError(f"{where}: there is no field '{field}'; {nearest(field, map(str, row))}")
    text = row[field]
    if not isinstance(text, str):
        raise DataError(f"{where}: '{field}' is {type(text).__name__}; expected a string")
    if not is_encodable(text):
        raise DataError(f"{where}: '{field}' contains a lone surrogate; expected text that UTF-8 can encode")
    return text


def _dataset(folder: Path, field: str) -> Iterator[str]:
    """Yield the texts of a memory-mapped dataset: of its split ``train`` if there is one, else of all its splits."""
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise DataError(
            f"the corpus {folder} needs the package datasets, which is not installed: pip install 'nas-meta[datasets]'"
        ) from error
    try:
        loaded = datasets.load_from_disk(str(folder))
    except Exception as error:  # a malformed folder may raise any exception in datasets
        raise DataError(f"the corpus {folder} cannot be read by datasets: {error}") from error
    splits = loaded if isinstance(loaded, dict) else {"": loaded}
    for name, split in {"train": splits["train"]}.items() if "train" in splits else splits.items():
        if field not in split.column_names:
            raise DataError(f"{folder / name}: there is no field '{field}'; {nearest(field, split.column_names)}")
        for number, row in enumerate(split.select_columns(field)):
            yield _text_field(row, field, f"{folder / name}, row {number}")

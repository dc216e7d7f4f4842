"""The encoding of a text file: named by the user, or recognised by its bytes."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TextIO

from nas_meta.errors import DataError

KNOWN = (
    "ascii", "big5", "cp1250", "cp1251", "cp1252", "cp1253", "cp1254", "cp437", "cp850", "cp932", "euc_jp", "euc_kr",
    "gb18030", "gbk", "iso8859-15", "iso8859-2", "koi8-r", "latin-1", "mac-roman", "shift_jis", "utf-16", "utf-16-be",
    "utf-16-le", "utf-32", "utf-8", "windows-1252",
)  # fmt: skip
MARKS = (  # UTF-32 first: its byte order mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"), (codecs.BOM_UTF8, "utf-8"),
)  # fmt: skip
CHUNK = 1 << 20  # bytes that are decoded at once
HEAD = 4096  # bytes in which UTF-16 without a byte order mark is recognised
LETTER = re.compile(rb"[A-Za-z]")
LINE_BREAK = re.compile(r"\r\n|\r|\n")


class TextEncoding(NamedTuple):
    """An encoding that a whole file can be decoded with.

    Attributes:
        name: Name of the codec.
        note: Sentence about how it was recognised; empty for UTF-8 and for an encoding that the user named.
    """

    name: str
    note: str = ""


class Undecodable(NamedTuple):
    """The first byte of a file that an encoding cannot decode.

    Attributes:
        offset: Number of bytes before it.
        line: Line that contains it, from 1.
        byte: Its value, such as ``0xE9``.
    """

    offset: int
    line: int
    byte: str


def is_text_encoding(name: str) -> bool:
    """Return whether Python can decode text with the codec of this name."""
    try:
        codec = codecs.lookup(name)
    except (LookupError, ValueError):
        return False
    return bool(getattr(codec, "_is_text_encoding", True)) and codec.incrementaldecoder is not None


def text_encoding(file: Path, given: str | None = None) -> TextEncoding:
    """Find the encoding of a text file.

    A byte order mark decides. Without one, the file is UTF-8 if all of it is valid UTF-8; else UTF-16 if every second
    byte of its beginning is zero, or Windows-1252, which contains Latin-1, if it looks like text in a Western language.

    Args:
        file: Regular file.
        given: Encoding that the user named, which is not questioned; None to recognise it.

    Returns:
        The encoding; the whole file can be decoded with it.

    Raises:
        DataError: The file cannot be decoded with the given encoding, or no encoding is recognised.
        OSError: The file cannot be read.
    """
    with open(file, "rb") as stream:
        head = stream.read(HEAD)
    marked = next((name for mark, name in MARKS if head.startswith(mark)), None)
    name = given or marked or _utf16_without_mark(head) or "utf-8"
    bad = undecodable(file, name)
    if bad is None:
        usual = given is not None or name == "utf-8"
        return TextEncoding(name, "" if usual else f"{file} is read as {name.upper()}")
    if given is None and name == "utf-8" and marked is None and _is_western(file):
        note = f"{file} is read as Windows-1252: the byte {bad.byte} at offset {bad.offset} (line {bad.line})"
        return TextEncoding("cp1252", f"{note} is not UTF-8; set tasks.encoding if this is wrong")
    raise DataError(
        f"{file}:{bad.line}: the byte {bad.byte} at offset {bad.offset} is not {name.upper()}; expected "
        f"{name.upper()} text, or the encoding of the file in tasks.encoding"
    )


@contextmanager
def open_text(file: Path, encoding: str) -> Iterator[TextIO]:
    """Open a text file at its first character, after a byte order mark if there is one; line breaks are kept.

    Args:
        file: Regular file.
        encoding: Encoding of the file.

    Yields:
        The stream.
    """
    with open(file, encoding=encoding, newline="") as stream:
        if stream.read(1) != "\ufeff":
            stream.seek(0)
        yield stream


def undecodable(file: Path, encoding: str) -> Undecodable | None:
    """Return the first byte that an encoding cannot decode, or None if it decodes the whole file.

    Args:
        file: Regular file.
        encoding: Name of a codec.
    """
    decoder, read = codecs.getincrementaldecoder(encoding)(), 0
    with open(file, "rb") as stream:
        while True:
            chunk = stream.read(CHUNK)
            read += len(chunk)
            try:
                decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                # The decoder's input is the chunk, preceded by the bytes that it kept of the chunk before.
                return _at(file, encoding, read - len(error.object) + error.start)
            except UnicodeError:  # without a position, such as UTF-16 without a byte order mark
                return _at(file, encoding, 0)
            if not chunk:
                return None


def _at(file: Path, encoding: str, offset: int) -> Undecodable:
    with open(file, "rb") as stream:
        before, byte = stream.read(offset), stream.read(1)
    text = before.decode(encoding, errors="replace") if before else ""
    return Undecodable(offset, len(LINE_BREAK.findall(text)) + 1, f"0x{byte.hex().upper()}")


def _utf16_without_mark(head: bytes) -> str | None:
    """Recognise UTF-16 without a byte order mark: one byte of every ASCII character is zero."""
    even, odd = head[0::2].count(0), head[1::2].count(0)
    if len(head) >= 4 and max(even, odd) * 2 > len(head) // 2 and min(even, odd) * 20 <= max(even, odd):
        return "utf-16-le" if odd > even else "utf-16-be"
    return None


def _is_western(file: Path) -> bool:
    """Return whether bytes that are not UTF-8 look like Windows-1252.

    They do if all of them are characters of Windows-1252, most letters are ASCII (in Cyrillic or Chinese encodings most
    are not), and the file is not UTF-8 apart from a few damaged bytes.
    """
    letters = high = valid = invalid = 0
    with open(file, "rb") as stream:
        for line in stream:
            if b"\0" in line:
                return False
            letters += len(LETTER.findall(line))
            if line.isascii():
                continue
            try:
                line.decode("cp1252")
            except UnicodeDecodeError:
                return False
            high += sum(byte >= 0x80 for byte in line)
            for character in line.decode("utf-8", "surrogateescape"):
                valid += "\x7f" < character < "\ud800" or character > "\udfff"
                invalid += "\udc80" <= character <= "\udcff"
    return high * 2 <= letters and valid < invalid

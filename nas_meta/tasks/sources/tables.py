"""Labelled texts from tables: Parquet files, Excel workbooks, and folders that the package datasets saved."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import Field

from nas_meta.core.files import regular_file
from nas_meta.core.guard import first_line
from nas_meta.errors import DataError, nearest
from nas_meta.tasks.reading.row import Row
from nas_meta.tasks.sources.files import ColumnOptions, FileSource

DATASETS = ("dataset_info.json", "dataset_dict.json")  # files of a folder that save_to_disk wrote


class Table(FileSource):
    """Base of task sources that read columns of a table."""

    Options = ColumnOptions


class Parquet(Table):
    """A Parquet file, or a folder of Parquet files, with a text column and a label column."""

    def rows(self, file: Path) -> Iterator[Row]:
        parquet = _package("pyarrow.parquet", "pyarrow", "parquet", file)
        files = sorted(file.rglob("*.parquet")) if file.is_dir() else [regular_file(file)]
        if not files:
            raise DataError(f"{file} contains no file that ends in .parquet; expected at least one")
        for part in files:
            split = _split_of(part.stem) if file.is_dir() else ""
            with _readable(part, "Parquet"):
                table = parquet.ParquetFile(part)
                _check_columns(part, self.columns, table.schema_arrow.names)
                names = _class_names(table.schema_arrow.metadata or {}, self.options.label)
                batches = table.iter_batches(columns=self.columns)
                for number, fields in enumerate((row for batch in batches for row in batch.to_pylist()), 1):
                    yield Row(f"{part}, row {number}", _plain(fields, names, self.options.label), split)


class ExcelOptions(ColumnOptions):
    """Options of the task source ``excel``."""

    sheet: str | None = Field(None, description="name of the sheet; by default the first one")


class Excel(Table):
    """A sheet of an Excel workbook (.xlsx) with a header row, a text column and a label column."""

    Options = ExcelOptions

    def rows(self, file: Path) -> Iterator[Row]:
        openpyxl = _package("openpyxl", "openpyxl", "excel", file)
        with _readable(regular_file(file), "an Excel workbook (.xlsx)"):
            book = openpyxl.load_workbook(file, read_only=True, data_only=True)
            sheet = self.options.sheet or book.sheetnames[0]
            if sheet not in book.sheetnames:
                raise DataError(f"{file} has no sheet '{sheet}'; {nearest(sheet, book.sheetnames)}")
            if len(book.sheetnames) > 1 and self.options.sheet is None:
                self.note(f"{file} is read from its first sheet '{sheet}'; tasks.sheet names another one")
            header: list[str] = []
            for number, cells in enumerate(book[sheet].iter_rows(values_only=True), 1):
                if all(cell is None or not str(cell).strip() for cell in cells):
                    continue
                if not header:
                    header = ["" if cell is None else str(cell).strip() for cell in cells]
                    _check_columns(file, self.columns, header)
                    continue
                yield Row(f"{file}, row {number}", _plain(dict(zip(header, cells, strict=False))))


class Datasets(Parquet):
    """A folder that save_to_disk of datasets wrote, or Parquet files as on the Hugging Face Hub."""

    def rows(self, file: Path) -> Iterator[Row]:
        if not any((file / name).is_file() for name in DATASETS):
            if not file.is_dir() or any(file.rglob("*.parquet")):
                yield from super().rows(file)
                return
            raise DataError(f"{file} is not a dataset; expected {' or '.join(DATASETS)}, or Parquet files")
        datasets = _package("datasets", "datasets", "datasets", file)
        what = "a folder that save_to_disk of datasets wrote"
        with _readable(file, what):
            loaded = datasets.load_from_disk(str(file))
        for name, split in loaded.items() if isinstance(loaded, dict) else [("", loaded)]:
            where = file / name
            _check_columns(where, self.columns, split.column_names)
            names = getattr(split.features[self.options.label], "names", None)
            with _readable(where, what):
                for number, fields in enumerate(split.select_columns(self.columns), 1):
                    yield Row(f"{where}, row {number}", _plain(fields, names, self.options.label), name)


def _package(module: str, package: str, extra: str, file: Path) -> Any:
    """Import a package of an extra, or raise a sentence that says how to install it."""
    try:
        return import_module(module)
    except ImportError as error:
        raise DataError(
            f"{file} needs the package {package}, which is not installed: pip install 'nas-meta[{extra}]'"
        ) from error


@contextmanager
def _readable(file: Path, what: str) -> Iterator[None]:
    """Turn any exception of a library, which a malformed file may raise, into a sentence."""
    try:
        yield
    except (DataError, GeneratorExit):
        raise
    except OSError as error:
        if error.strerror:
            raise
        raise DataError(f"{file} is not {what} ({first_line(error, with_type=False)})") from error
    except Exception as error:
        raise DataError(f"{file} is not {what} ({first_line(error, with_type=False)})") from error


def _check_columns(where: Path, wanted: Sequence[str], known: Sequence[str]) -> None:
    for name in wanted:
        if name not in known:
            raise DataError(f"{where}: there is no column '{name}'; {nearest(name, filter(None, known))}")
        if list(known).count(name) > 1:
            raise DataError(f"{where}: {list(known).count(name)} columns are named '{name}'; expected one")


def _plain(fields: Mapping[str, Any], names: Sequence[str] | None = None, label: str = "") -> dict[str, Any]:
    """Return cells as text: numbers, dates and truth values as they are written, and labels by their names.

    Args:
        fields: Cells of a row; missing ones are None or NaN and stay.
        names: Names of the classes, if the label is an index into them; None if it is not.
        label: Column of the label.
    """
    plain = {}
    for name, value in fields.items():
        if name == label and names is not None and isinstance(value, int) and 0 <= value < len(names):
            value = names[value]
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if value is not None and value == value and not isinstance(value, (str, bytes, list, dict)):
            value = str(value)
        plain[name] = value
    return plain


def _class_names(metadata: Mapping[bytes, bytes], label: str) -> list[str] | None:
    """Return the class names that datasets stores in a Parquet file, where a label is an index; None without any."""
    try:
        names = json.loads(metadata[b"huggingface"])["info"]["features"][label]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def _split_of(stem: str) -> str:
    """Return the split in the name of a file of the Hugging Face Hub, such as ``train-00000-of-00001``."""
    return stem.split("-")[0]

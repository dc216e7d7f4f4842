"""A table for terminals of any width: no cell is cut, and the longest column moves below its row if need be."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

GAP, INDENT = 2, 4  # spaces between two columns without lines, and before a detail below its row


@dataclass
class Listing:
    """Rows of short cells, each with one detail that may be long, such as an architecture.

    If everything fits on one line per row, it is a table with the detail as its last column. In a narrower terminal the
    table has no lines between its columns, and in a still narrower one the detail follows its row on lines of its own;
    it is wrapped, never cut. Where the output is not a terminal, there are no lines either, for other programs.

    Attributes:
        heading: Heading of the detail.
        title: Text above the table.
        caption: Text below the table.
    """

    heading: str
    title: str = ""
    caption: str = ""
    _columns: list[tuple[str, Literal["left", "right"]]] = field(default_factory=list)
    _rows: list[tuple[tuple[str, ...], str, str]] = field(default_factory=list)

    def add_column(self, title: str, justify: Literal["left", "right"] = "left") -> None:
        """Add a column of short cells.

        Args:
            title: Heading of the column.
            justify: Side on which its cells are aligned.
        """
        self._columns.append((title, justify))

    def add_row(self, *cells: str, detail: str = "", style: str = "") -> None:
        """Add a row.

        Args:
            cells: One text per column.
            detail: The long text of the row.
            style: Style of the row, as rich names it.
        """
        self._rows.append((cells, detail, style))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the table with lines if it fits, else without them, else with the details below their rows."""
        if self.title:
            yield Text(self.title, style="italic")
        unlimited = options.update(max_width=10**6)
        forms = [self._table()] * console.is_terminal + [self._table(box=None, pad_edge=False, padding=(0, GAP, 0, 0))]
        widths = [Measurement.get(console, unlimited, form).maximum for form in forms]
        fitting = [form for form, width in zip(forms, widths, strict=True) if width <= options.max_width]
        if fitting:
            yield fitting[0]
        else:
            yield from self._below()
        if self.caption:
            yield Text(self.caption, style="dim italic")

    def _table(self, **style: Any) -> Table:
        table = Table(**style)
        for title, justify in self._columns:
            table.add_column(title, justify=justify)
        table.add_column(self.heading)
        for cells, detail, style in self._rows:
            table.add_row(*cells, detail, style=style)
        return table

    def _below(self) -> RenderResult:
        headings = tuple(title for title, _ in self._columns)
        widths = [max(map(cell_len, column)) for column in zip(headings, *(row[0] for row in self._rows), strict=True)]
        yield Text(self._aligned(headings, widths), style="bold")
        yield Padding(Text(self.heading, style="bold"), (0, 0, 0, INDENT), expand=False)
        for cells, detail, style in self._rows:
            yield Text(self._aligned(cells, widths), style=style)
            yield Padding(Text(detail, style=style), (0, 0, 0, INDENT), expand=False)

    def _aligned(self, cells: tuple[str, ...], widths: list[int]) -> str:
        """Return the cells of a row as one line of text."""
        parts = []
        for cell, width, (_, justify) in zip(cells, widths, self._columns, strict=True):
            space = " " * (width - cell_len(cell))
            parts.append(space + cell if justify == "right" else cell + space)
        return (" " * GAP).join(parts).rstrip()

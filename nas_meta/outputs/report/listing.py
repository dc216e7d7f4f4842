"""A table for terminals of any width: no cell is cut, and the longest column moves below its row if need be."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from typing import Literal

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
        table, plain = self._table(), self._plain()
        unlimited = options.update(max_width=10**6)
        if console.is_terminal and Measurement.get(console, unlimited, table).maximum <= options.max_width:
            yield table
        elif max(line.cell_len for line in plain) <= options.max_width:
            yield from plain
        else:
            yield from self._below(options.max_width)
        if self.caption:
            yield Text(self.caption, style="dim italic")

    def _table(self) -> Table:
        table = Table()
        for title, justify in self._columns:
            table.add_column(title, justify=justify)
        table.add_column(self.heading)
        for cells, detail, style in self._rows:
            table.add_row(*cells, detail, style=style)
        return table

    def _plain(self) -> list[Text]:
        """Return the heading and the rows as one line of text each, without spaces at their ends."""
        widths, gap = self._widths, " " * GAP
        lines = [(self._headings, self.heading, "bold"), *self._rows]
        return [Text((self._aligned(c, widths) + gap + detail).rstrip(), style=style) for c, detail, style in lines]

    def _below(self, room: int) -> RenderResult:
        widths, headings = self._widths, [self._headings]
        if sum(widths) + GAP * (len(widths) - 1) > room:  # long headings take several lines
            widths, headings = self._stacked()
        for cells in headings[:-1]:
            yield Text(self._aligned(cells, widths).rstrip(), style="bold")
        for cells, detail, style in [(headings[-1], self.heading, "bold"), *self._rows]:
            yield Text(self._aligned(cells, widths).rstrip(), style=style)
            yield Padding(Text(detail, style=style), (0, 0, 0, INDENT), expand=False)

    def _stacked(self) -> tuple[list[int], list[tuple[str, ...]]]:
        """Return the least widths that break headings between words, and the lines of the headings."""
        words = [max(title.split(), key=cell_len, default="") for title in self._headings]
        columns = zip(words, *(row[0] for row in self._rows), strict=True)
        widths = [max(map(cell_len, column)) for column in columns]
        parts = [textwrap.wrap(title, max(1, width)) for title, width in zip(self._headings, widths, strict=True)]
        height = max(map(len, parts))
        return widths, list(zip(*([""] * (height - len(part)) + part for part in parts), strict=True))

    @property
    def _headings(self) -> tuple[str, ...]:
        return tuple(title for title, _ in self._columns)

    @property
    def _widths(self) -> list[int]:
        """The width of each column of short cells."""
        columns = zip(self._headings, *(row[0] for row in self._rows), strict=True)
        return [max(map(cell_len, column)) for column in columns]

    def _aligned(self, cells: tuple[str, ...], widths: list[int]) -> str:
        """Return the cells of a row as one line of text."""
        parts = []
        for cell, width, (_, justify) in zip(cells, widths, self._columns, strict=True):
            space = " " * (width - cell_len(cell))
            parts.append(space + cell if justify == "right" else cell + space)
        return (" " * GAP).join(parts)

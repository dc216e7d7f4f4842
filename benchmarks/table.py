"""Result tables and their place in ``benchmarks/README.md``."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

README = Path(__file__).parent / "README.md"


@dataclass(frozen=True)
class Table:
    """Result of one benchmark.

    Attributes:
        header: column headings.
        rows: text cells, one sequence per row.
        note: sentences below the table that explain how to read it.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    def markdown(self) -> str:
        """The table in Markdown, followed by its note."""
        lines = [self.header, ["---"] * len(self.header), *self.rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines) + (f"\n\n{self.note}" if self.note else "")


def machine() -> str:
    """One line that names the CPU, the number of cores and the package versions."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        found = re.search(r"model name\s*:\s*(.+)", info.read_text())
        cpu = found.group(1) if found else cpu
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "ray"))
    return f"{cpu}, {cores} core{'s' if cores != 1 else ''}, Python {platform.python_version()}, {packages}"


def publish(name: str, table: Table) -> None:
    """Replaces the text between the README's markers ``<!-- name -->`` and ``<!-- /name -->`` by a table.

    Args:
        name: module name of the benchmark.
        table: its result.
    """
    text = README.read_text(encoding="utf-8")
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    body = f"{begin}\n{table.markdown()}\n\nMeasured on {machine()} with `python -m benchmarks.run {name}`.\n{end}"
    README.write_text(before + body + after, encoding="utf-8")

"""Which ends of trials the monitors have shown, so that a resumed search shows the others.

The journal comes first: a search that is killed right after it has written the end of a trial has not shown it in logs,
TensorBoard, W&B and hooks yet. The file ``shown`` of the run directory has one trial id per line, written after the
monitors have handled it. A trial may thus be shown twice, but none is left out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path

from nas_meta.core.files import regular_file, write_atomically

FILE = "shown"
MOST_BYTES = 16 * 2**20


class ShownTrials:
    """The trials whose end was shown, in a file.

    Args:
        directory: The run directory.
    """

    def __init__(self, directory: Path):
        self._path = directory / FILE

    def restore(self, ended: Collection[int]) -> list[int]:
        """Return the trials that were not shown in earlier sessions.

        Args:
            ended: Ids of the trials that have ended and are not rerun.

        Returns:
            Their ids that are not in the file; none for a run of an older version, which has no such file.
        """
        if self._path.exists():
            lines = regular_file(self._path, MOST_BYTES).read_text(encoding="ascii", errors="replace").split()
            shown = {int(line) for line in lines if line.isdecimal() and len(line) < 10}.intersection(ended)
        else:
            shown = set(ended)
        with suppress(OSError):  # on a full disk; trials are shown again then
            write_atomically(self._path, "".join(f"{number}\n" for number in sorted(shown)).encode())
        return sorted(set(ended) - shown)

    def add(self, numbers: Iterable[int]) -> None:
        """Note that trials were shown.

        Args:
            numbers: Their ids.
        """
        lines = "".join(f"{number}\n" for number in numbers)
        if lines:
            with suppress(OSError), self._path.open("a", encoding="ascii") as file:
                file.write(lines)

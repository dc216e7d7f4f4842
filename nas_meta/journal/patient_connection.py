"""An SQLite connection that waits while another program, such as a backup or a database browser, locks the file."""

from __future__ import annotations

import logging
import sqlite3
import time
from typing import Any

log = logging.getLogger(__name__)
PATIENCE = 3600.0  # seconds to wait for another program
TRY = 1.0  # seconds that SQLite itself waits, during which no signal is handled


class PatientConnection(sqlite3.Connection):
    """Repeats statements that fail because another program has locked the file."""

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        """Execute a statement, and wait up to an hour while the file is locked.

        Args:
            sql: The statement.
            parameters: Values of its placeholders.

        Returns:
            The cursor.

        Raises:
            sqlite3.OperationalError: The file is still locked, or the statement failed for another reason.
        """
        began, warned = time.monotonic(), False
        while True:
            try:
                return super().execute(sql, parameters)
            except sqlite3.OperationalError as error:
                waited = time.monotonic() - began
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or waited > PATIENCE:
                    raise
                if not warned and waited > TRY:
                    warned = True
                    log.warning("another program has locked the journal; the search waits until it has finished")
                time.sleep(0.05)

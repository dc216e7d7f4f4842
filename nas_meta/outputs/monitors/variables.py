"""Environment variables that hold inside a block, for clients that read their settings from them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


@contextmanager
def variables(settings: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables inside the block, and set them back after it.

    Args:
        settings: Values by name.
    """
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value

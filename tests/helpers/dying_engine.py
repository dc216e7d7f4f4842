"""An inline engine whose worker seems to die during certain calls."""

from nas_meta.execution.engine import Event
from nas_meta.execution.inline_engine import InlineEngine


class DyingEngine(InlineEngine):
    """Kills calls of a method: each the given number of times before it succeeds.

    Args:
        payload: The payload of the engine.
        method: Name of the method.
        deaths: How often a call of it dies.
        only: Dies only where this is among the arguments; by default always.
    """

    def __init__(self, payload, method, deaths, only=None):
        super().__init__(payload)
        self.method, self.deaths, self.only, self.died = method, deaths, only, {}

    def events(self):
        while self._pending:
            key, method, arguments = self._pending
            count = self.died.get(key, 0)
            if method == self.method and count < self.deaths and (self.only is None or self.only in arguments):
                self.died[key], self._pending = count + 1, None
                yield Event(key, error="the worker died: killed", done=True, died=True)
            else:
                yield from super().events()

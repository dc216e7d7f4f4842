"""Finds code that would fail on a GPU, on a machine without one.

The rule is that tensors that compute together are on the device of the model. On a CPU nothing fails if they are not,
so tensors are tracked instead: one that is made without a device (``torch.arange(3)``, ``torch.from_numpy(labels)``) is
*at home*, on the CPU, until ``.to(...)`` moves it; all others, such as weights and embeddings, are *away*, where the
model is. An operation on both would fail on a GPU.

Example: ``torch.from_numpy(labels) == logits.argmax(1)`` mixes them, and
``torch.from_numpy(labels).to(logits.device) == logits.argmax(1)`` does not.
"""

from __future__ import annotations

import traceback
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, resolve_name

# Private, because torch 2.13 has no public module for nested results, and operations return tuples and lists.
from torch.utils._pytree import tree_flatten, tree_map

MOVES = ("to", "cuda", "type_as")  # methods whose result is where the model is
HOMES = ("cpu",)  # methods whose result is on the CPU
ALLOWED = ("__getitem__", "__setitem__", "copy_", "index_put_")  # which take indices or values of the CPU on a GPU, too
OWN = str(Path(__file__).parents[1])


class DeviceRule(TorchFunctionMode):
    """Context in which operations on tensors at home and away are recorded.

    Attributes:
        violations: One clause for each line of code that mixes them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.violations: list[str] = []
        self._home: dict[int, weakref.ref[Tensor]] = {}

    def __enter__(self) -> DeviceRule:
        self._from_numpy = torch.from_numpy
        # torch does not report calls of this function.
        setattr(torch, "from_numpy", lambda array: self._mark(self._from_numpy(array)))  # noqa: B010
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        setattr(torch, "from_numpy", self._from_numpy)  # noqa: B010
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        tensors = list(_tensors((args, kwargs)))
        result = func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if name in MOVES and tensors:
            moved = name != "to" or any(
                isinstance(a, (torch.device, str, Tensor)) for a in (*args[1:], *kwargs.values())
            )
            # A tensor that is there already is returned as it is; on a GPU it would be another one.
            return result.view_as(result) if moved and isinstance(result, Tensor) else self._keep(tensors, result)
        if name in HOMES and tensors:
            return tree_map(lambda t: self._mark(t.view_as(t)) if isinstance(t, Tensor) else t, result)
        if not tensors:
            return result if kwargs.get("device") is not None else tree_map(self._mark, result)
        home = [t for t in tensors if self._is_home(t)]
        mixed = any(t.ndim > 0 for t in home) and len(home) < len(tensors)
        if mixed and name not in ALLOWED and not name.startswith("__get__"):
            self._record(func)
        return self._keep(tensors, result) if not mixed else result

    def _keep(self, tensors: list[Tensor], result: Any) -> Any:
        """Mark a result as at home if everything that it was computed from is."""
        return tree_map(self._mark, result) if all(map(self._is_home, tensors)) else result

    def _mark(self, value: Any) -> Any:
        if isinstance(value, Tensor) and not isinstance(value, torch.nn.Parameter):
            self._home[id(value)] = weakref.ref(value)
        return value

    def _is_home(self, tensor: Tensor) -> bool:
        reference = self._home.get(id(tensor))
        return reference is not None and reference() is tensor

    def _record(self, func: Callable[..., Any]) -> None:
        frames = [f for f in traceback.extract_stack() if "torch" not in Path(f.filename).parts]
        place = next((f for f in reversed(frames) if f.filename != __file__), None)
        where = f"line {place.lineno} of {Path(place.filename).name}" if place is not None else "an operation"
        operation = (resolve_name(func) or getattr(func, "__name__", "an operation")).removeprefix("torch.")
        clause = f"{where} ({operation})"
        if clause not in self.violations:
            self.violations.append(clause)


def _tensors(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested arguments."""
    return (leaf for leaf in tree_flatten(value)[0] if isinstance(leaf, Tensor))

"""The public API as text, and what a plugin would miss that was written against such a text.

``python tests/compat/public_api.py MODULE [NAME...]`` prints what stands in a module today, to extend ``api/`` with.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import sys
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

HOOKS = ("__init__", "__call__", "__getitem__")  # of a class's own methods, those with underscores that count


def stub(module: Any, names: list[str]) -> str:
    """What a module offers under these names, as a stub with defaults and without annotations."""
    lines: list[str] = []
    for name in names:
        value = getattr(module, name)
        if isinstance(value, type):
            members = [f"    {line}" for line in _members(value)]
            lines += [f"class {name}:", *(members or ["    ..."])]
        else:
            lines.append(_line(name, value))
    return "\n".join(lines) + "\n"


def _members(cls: type) -> Iterator[str]:
    fields = _attributes(cls)
    if "__init__" not in vars(cls) and fields:
        yield f"def __init__{_shown(inspect.signature(cls), 'self')}: ..."
    for name in vars(cls):
        known = name in fields and fields <= set(inspect.signature(cls).parameters)
        if (not name.startswith("_") or name in HOOKS) and not known and name != "model_config":
            yield _line(name, inspect.getattr_static(cls, name))
    yield from (f"{name} = ..." for name in sorted(fields - set(inspect.signature(cls).parameters) - set(vars(cls))))


def _line(name: str, value: Any) -> str:
    value = getattr(value, "__func__", value)
    return f"def {name}{_shown(inspect.signature(value))}: ..." if inspect.isfunction(value) else f"{name} = ..."


def _shown(signature: inspect.Signature, *before: str) -> str:
    """The parameters with those defaults that have a literal."""
    parts, bare = list(before), False
    for p in signature.parameters.values():
        if p.kind is p.KEYWORD_ONLY and not bare:
            parts.append("*")
        bare = bare or p.kind in (p.KEYWORD_ONLY, p.VAR_POSITIONAL)
        star = {p.VAR_POSITIONAL: "*", p.VAR_KEYWORD: "**"}.get(p.kind, "")
        parts.append(f"{star}{p.name}" + ("" if p.default is p.empty else f"={_default(p.default)}"))
    return f"({', '.join(parts)})"


def _default(value: Any) -> str:
    """The literal of a default; ``...`` stands for any other."""
    try:
        return repr(value) if ast.literal_eval(repr(value)) == value else "..."
    except (ValueError, SyntaxError):
        return "..."


def _attributes(cls: type) -> set[str]:
    """Names that instances have, as far as the class says so."""
    fields = {f.name for f in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else set()
    models = set(cls.model_fields) if issubclass(cls, BaseModel) else set()
    ours = [base for base in cls.__mro__ if base.__module__.startswith("nas_meta")]
    return fields | models | {n for base in ours for n in inspect.get_annotations(base)}


def breaks(text: str, module: Any) -> list[str]:
    """What of a stub a module does not keep: names, parameters and defaults. More than that it may have."""
    return list(_breaks(ast.parse(text).body, module, module.__name__))


def _breaks(body: list[ast.stmt], owner: Any, where: str) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.Assign):
            name = ast.unparse(node.targets[0])
            if not hasattr(owner, name) and not (isinstance(owner, type) and name in _attributes(owner)):
                yield f"{where}.{name} is gone"
        elif isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            value = getattr(owner, node.name, None)
            if value is None:
                yield f"{where}.{node.name} is gone"
            elif isinstance(node, ast.ClassDef):
                yield from _breaks(node.body, value, f"{where}.{node.name}")
            elif node.name == "__init__":
                yield from _calls(node, inspect.signature(owner), where)
            else:
                bound = isinstance(owner, type) and not inspect.isfunction(inspect.getattr_static(owner, node.name))
                yield from _calls(node, inspect.signature(value), f"{where}.{node.name}", 0 if bound else None)


def _calls(
    node: ast.FunctionDef, signature: inspect.Signature, where: str, skipped: int | None = None
) -> Iterator[str]:
    """How calls that the old parameters allow would fail today."""
    now = [p for p in signature.parameters.values() if p.name != "self"]
    old = [a.arg for a in (*node.args.posonlyargs, *node.args.args) if a.arg not in ("self", "cls")]
    named = [a.arg for a in node.args.kwonlyargs]
    defaults = dict(zip(reversed(old), reversed(node.args.defaults), strict=False))
    defaults |= {n: d for n, d in zip(named, node.args.kw_defaults, strict=True) if d is not None}
    by_name = {p.name: p for p in now}
    places = [p.name for p in now if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    for place, name in enumerate(old):
        if name not in by_name:
            yield f"{where}: the parameter {name} is gone"
        elif places[place : place + 1] != [name]:
            yield f"{where}: the parameter {name} is not the one at place {place} any more"
    yield from (f"{where}: the parameter {name} is gone" for name in named if name not in by_name)
    for name, default in defaults.items():
        if name not in by_name:
            continue
        has = by_name[name].default
        if has is inspect.Parameter.empty:
            yield f"{where}: the parameter {name} has no default any more"
        elif (was := ast.literal_eval(default)) is not ... and was != has:
            yield f"{where}: the default of {name} was {was!r} and is {has!r}"
    for p in now:
        if p.name not in (*old, *named) and p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
            yield f"{where}: the parameter {p.name} is new and has no default"


if __name__ == "__main__":
    asked = importlib.import_module(sys.argv[1])
    sys.stdout.write(stub(asked, sys.argv[2:] or asked.__all__))

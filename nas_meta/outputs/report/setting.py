"""What a run was computed from: its data, its software and hardware, and the commands that repeat it."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping
from typing import Annotated, Any

import yaml
from pydantic import Field

from nas_meta.config.environment import shareable
from nas_meta.config.fingerprints.environment import Environment
from nas_meta.config.given_data import with_own_data
from nas_meta.core.wording import counted
from nas_meta.journal.database import Journal
from nas_meta.journal.row_checks import recorded_config, validated
from nas_meta.journal.run import Run
from nas_meta.tasks.source import SPLITS

NAMES = 200  # classes of a split that are listed
SECONDS = Annotated[float, Field(ge=0, le=1e12)] | None


def recorded(run: Run) -> tuple[dict[str, Any], list[str], float | None, float | None]:
    """Return what the journal of a run records beside its trials; nothing in it is executed.

    Args:
        run: The run.

    Returns:
        The config as plain data, sentences on how the data were read, when the search was created in seconds since the
        epoch, and how many seconds it took until its last trial.

    Raises:
        RunError: The journal is damaged.
    """
    journal = Journal.open(run.directory)
    notes = validated(list[str], journal.get("tasks", []), "tasks")
    times = (validated(SECONDS, journal.get(key), key) for key in ("created", "seconds"))
    return (with_own_data(recorded_config(journal.get("config")), run.directory), notes, *times)


def data_of(run: Run, document: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    """Return what is known of the data without reading them again.

    Args:
        run: The run.
        document: Its config as plain data.
        notes: Sentences on how the data were read.

    Returns:
        The ``source``, ``notes``, and ``splits``: for each split the number of ``classes`` and ``examples``, the sizes
        of the smallest and the largest class, and names of classes; empty in old journals. ``checks`` are sentences on
        classes and examples that splits share.
    """
    fingerprint = run.fingerprint
    tasks = document.get("tasks")
    splits: dict[str, Any] = {}
    for name, classes in (fingerprint.data if fingerprint else {}).items():
        sizes = [count for count, _ in classes.values()]
        if sizes:
            splits[name] = {
                "classes": len(sizes), "examples": sum(sizes), "smallest": min(sizes), "largest": max(sizes),
                "names": sorted(classes)[:NAMES],
            }  # fmt: skip
    source = str(tasks.get("source")) if isinstance(tasks, Mapping) else "not available"
    return {"source": source, "notes": notes, "splits": splits, "checks": _checks(run)}


def _checks(run: Run) -> list[str]:
    """Return which classes, and which contents of whole classes, stand in several splits."""
    fingerprint = run.fingerprint
    if fingerprint is None or not fingerprint.data:
        return []
    seen: dict[str, set[str]] = {}
    contents: dict[str, set[str]] = {}
    for split, classes in fingerprint.data.items():
        for name, (_, digest) in classes.items():
            seen.setdefault(name, set()).add(split)
            contents.setdefault(digest, set()).add(f"{split} {name}")
    shared = sorted(name for name, splits in seen.items() if len(splits) > 1)
    twins = [sorted(places) for places in contents.values() if len({p.partition(" ")[0] for p in places}) > 1]
    checks = [
        f"{counted(len(shared), 'class stands', 'classes stand')} in several splits, such as {shared[0]}." if shared
        else f"No class stands in two of the splits {', '.join(SPLITS)}."
    ]  # fmt: skip
    if twins:
        found = counted(len(twins), "class has", "classes have")
        checks.append(f"{found} the same examples in two splits, such as {' and '.join(twins[0])}.")
    else:
        checks.append("No two classes of different splits have the same examples.")
    return checks


def reproduction_of(run: Run, document: Mapping[str, Any], created: float | None) -> dict[str, Any]:
    """Return what somebody needs to repeat a run.

    Args:
        run: The run.
        document: Its config as plain data.
        created: When the search was created, in seconds since the epoch; None if unknown.

    Returns:
        ``created`` as text in UTC, ``seed``, ``versions``, ``hardware``, ``models`` (digests of files by key of the
        config), ``commands``, and ``config``, the YAML without hooks and addresses.
    """
    environment = _environment(run)
    fingerprint = run.fingerprint
    commands = {
        "repeat the search": shlex.join(
            ["nas-meta", "search", str(run.directory / "config.yaml"), "--run-dir", "NEW_DIRECTORY"]
        ),
    }
    if any(t.status == "completed" for t in run.trials):
        commands["train the winner again, from its row in the journal"] = shlex.join(
            ["nas-meta", "trial", str(run.directory), str(run.best.id), "--rerun"]
        )
    return {
        "created": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(created)) if created else None,
        "seed": document.get("seed"),
        "versions": dict(environment.versions) if environment else {},
        "hardware": dict(environment.processor) if environment else {},
        "models": {key: dict(files) for key, files in fingerprint.models.items()} if fingerprint else {},
        "commands": commands,
        "config": yaml.safe_dump(shareable(document), sort_keys=False, allow_unicode=True),
    }


def _environment(run: Run) -> Environment | None:
    """Return the environment of the winner, or without one of the last trial."""
    trials = run.trials
    done = [t for t in trials if t.status == "completed"]
    return run.environment_of(run.best) if done else run.environment_of(trials[-1]) if trials else None


def device_of(run: Run) -> str:
    """Return the device of the trials as their environment records it; ``cpu`` where none is recorded.

    Args:
        run: The run.
    """
    environment = _environment(run)
    return str(environment.processor.get("device", "cpu")) if environment else "cpu"

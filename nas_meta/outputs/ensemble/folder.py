"""Write an ensemble: the exported folder of every member, a description and a model card."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from nas_meta.core.files import make_public, refuse_occupied
from nas_meta.errors import RunError
from nas_meta.evaluation.calibration import read_calibration
from nas_meta.journal.run import Run
from nas_meta.outputs.ensemble.description import Description, Member
from nas_meta.outputs.ensemble.judging import Judged, Row
from nas_meta.outputs.ensemble.scoring import FEWEST, Candidates
from nas_meta.outputs.export.folder import export

CARD = """---
library_name: nas-meta
tags: [few-shot, neural-architecture-search, nas-meta]
---
# {title}

An ensemble of {count} models that one search found: it averages their calibrated probabilities.

| | accuracy | against the best single trial | calibration error | latency | parameters |
| --- | --- | --- | --- | --- | --- |
{rows}

Measured on {episodes} meta-validation {unit} that the selection did not use; intervals of 95 %, differences paired.
{note}

```python
import nas_meta

classifier = nas_meta.load_classifier("{title}").fit(examples, labels)
print(classifier.predict(new_examples))
```

Each member is a model of its own in the folder that bears its name; `ensemble.json` has their weights and temperatures.
"""


def write_ensemble(run: Run, candidates: Candidates, judged: Judged, folder: Path) -> Path:
    """Write an ensemble as a folder that :func:`nas_meta.load_classifier` loads.

    Args:
        run: The run.
        candidates: The scored trials.
        judged: The ensemble.
        folder: New or empty folder; it stays as it is if a member cannot be exported.

    Returns:
        The folder.

    Raises:
        RunError: The ensemble has one member, or the folder is not empty.
        PluginError: The space does not write a Hugging Face folder.
    """
    refuse_occupied(folder)
    if len(judged.members) < FEWEST:
        number = candidates.trials[judged.members[0]].id
        raise RunError(
            f"the selection chose trial {number} alone, which is not an ensemble; expected "
            f"'nas-meta export {run.directory} --trial {number}' for it"
        )
    with tempfile.TemporaryDirectory(prefix="nas-meta-") as temporary:
        target, members = Path(temporary) / folder.name, []
        target.mkdir()
        for member, weight in zip(judged.members, judged.weights, strict=True):
            name = f"trial-{candidates.trials[member].id}"
            export(run, target / name, candidates.trials[member].id, changes=False)
            calibration = read_calibration(target / name)
            temperatures = {} if calibration is None else dict(calibration.temperatures)
            temperatures[candidates.ways] = candidates.temperatures[member]
            members.append(Member(name, weight, temperatures))
        Description(members, judged.as_dict()).write(target)
        (target / "README.md").write_text(_card(judged, folder.name), encoding="utf-8")
        make_public(target)
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(target, folder, dirs_exist_ok=True)
    return folder


def cells(row: Row) -> list[str]:
    """Format a row of the comparison: accuracy, difference, calibration error, latency and parameters.

    Args:
        row: The row.
    """
    return [
        f"{100 * row.accuracy:.1f} ± {100 * row.interval:.1f} %",
        f"{100 * row.difference:+.1f} ± {100 * row.difference_interval:.1f}",
        f"{row.calibration_error:.3f}", f"{1e3 * row.latency:.1f} ms", f"{row.params / 1e6:.1f} M",
    ]  # fmt: skip


def named(row: Row) -> str:
    """Return the title of a row with its trials."""
    return f"{row.title}: {', '.join(map(str, row.trials))}"


def _card(judged: Judged, title: str) -> str:
    """Return the model card."""
    rows = "\n".join(f"| {named(row)} | {' | '.join(cells(row))} |" for row in judged.rows)
    note = f"\nNote: {judged.same_latency}." if judged.same_latency else ""
    return CARD.format(
        title=title, count=len(judged.members), rows=rows, episodes=judged.episodes, unit=judged.unit, note=note
    )

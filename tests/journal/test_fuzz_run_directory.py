"""Whatever has happened to the files of a run, using it ends well or with a sentence, and touches nothing else."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fuzzed_runs import snapshots

HELPER = Path(__file__).parents[1] / "helpers" / "use_fuzzed_runs.py"
BATCH = 100  # cases of one process


@pytest.mark.timeout(4 * 3600)
@pytest.mark.slow
@pytest.mark.parametrize("cases", [2000])
def test_a_mutated_run_is_used_without_a_traceback_and_changes_nothing_beside_it(cases, tiny_model, tmp_path):
    """Each case is opened, listed, resumed and exported in a process with little memory and a timeout per case."""
    templates = {name: str(folder) for name, folder in snapshots(tmp_path, tiny_model).items()}
    assert set(templates) == {
        "adapting", "training", "searching-supernet", "done-supernet", "searching-candidates", "done-candidates"
    }  # fmt: skip
    (tmp_path / "templates.json").write_text(json.dumps(templates))
    # Other cases in every run with NAS_META_FUZZ, the number of the first one.
    first = int(os.environ.get("NAS_META_FUZZ", 0))
    for start in range(first, first + cases, BATCH):
        work = tmp_path / f"work{start}"
        work.mkdir()
        last = min(start + BATCH, first + cases)
        command = [sys.executable, str(HELPER), str(tmp_path / "templates.json"), str(work), str(start), str(last)]
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        )
        *faults, end = done.stdout.splitlines() or [""]
        assert done.returncode == 0 and end.startswith("done"), done.stdout + done.stderr[-3000:]
        assert not faults, "\n".join(faults)

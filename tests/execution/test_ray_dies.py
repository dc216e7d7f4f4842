"""Ray's own processes die during a search: it ends with a sentence, and can be resumed."""

import json
import shutil
import subprocess
import time
from pathlib import Path

import psutil
import pytest
import yaml
from command_line import PROGRAM, nas_meta

from nas_meta import load_run, resume
from nas_meta.errors import NasMetaError
from nas_meta.journal.status import read_status


def until(condition, process, seconds=200):
    """Wait for a condition while a process runs."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    assert condition()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["raylet", "gcs_server"])
def test_a_search_whose_ray_dies_says_so_and_is_resumed(name, small_config, tmp_path):
    """Nothing in the sentence comes from Ray, whose native part would end the driver without a word."""
    config, run = tmp_path / "config.yaml", tmp_path / "run"
    small_config |= {"learner": {"name": "protonet", "steps": 10**6, "lr": 1e-3}, "strategy": {"name": "random"}}
    config.write_text(yaml.safe_dump(small_config))
    process = subprocess.Popen(
        [*PROGRAM, "search", str(config), "--run-dir", str(run)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True,
    )  # fmt: skip
    status = run / "status.json"
    until(lambda: status.is_file() and any(json.loads(status.read_text())["steps"].values()), process)
    children = psutil.Process(process.pid).children(recursive=True)
    next(child for child in children if child.name() == name).kill()
    _, err = process.communicate(timeout=200)
    words = f"Ray's {'raylet' if name == 'raylet' else 'GCS'} process died (killed by SIGKILL); its log is "
    last = err.splitlines()[-1]
    assert process.returncode == 1 and last.startswith(f"nas-meta: {words}") and "Traceback" not in err
    assert last.endswith(f"finished trials are kept, and 'nas-meta resume {run}' resumes the search")
    ended = read_status(load_run(run))
    assert ended.phase == "failed" and ended.error.startswith(words)
    log = Path(ended.error.removeprefix(words))
    assert log.is_file()
    shutil.rmtree(log.parents[3])  # the folder of this Ray, which stays where the error names a log in it
    assert words in " ".join(nas_meta("status", run).stdout.split())
    _, alive = psutil.wait_procs(children, timeout=60)
    assert not alive
    with pytest.raises(NasMetaError, match=r"it took longer than 0\.001 minutes"):  # of trials that run again
        resume(run, ["budget.trials=1", "budget.timeout_minutes=0.001"], inline=True)

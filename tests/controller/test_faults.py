"""Workers and nodes that die, trials that hang or diverge, Ctrl-C: real processes, a real cluster of several nodes."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
import yaml
from command_line import PROGRAM, nas_meta

from nas_meta import load_run, search

SPACE = '''
import os, signal, time
from pathlib import Path
import torch
from transformers import BertConfig, BertModel
from nas_meta import SearchSpace

HERE = Path(__file__).parent if "__file__" in globals() else None

class Faulty(SearchSpace):
    """One kind of fault for each value of its choice."""
    tokenizer = "{model}"
    def choices(self):
        return {{"kind": {kinds}, "width": {widths}}}
    def build(self, architecture):
        kind, width = architecture["kind"], architecture["width"]
        started = Path("{folder}") / f"{{kind}}-{{width}}"
        with started.open("a") as file:
            file.write(f"{{os.getpid()}} {{os.environ.get('CUDA_VISIBLE_DEVICES')}}\\n")
        times = len(started.read_text().splitlines())
        if kind == "dies" or (kind == "dies-once" and times == 1):
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "slow":
            time.sleep({seconds})
        model = BertModel(BertConfig(vocab_size=64, hidden_size=width, num_hidden_layers=1, num_attention_heads=2,
                                     intermediate_size=16))
        if kind == "nan":
            with torch.no_grad():
                model.embeddings.word_embeddings.weight.fill_(float("nan"))
        return model
'''


@pytest.fixture
def faulty(small_config, tmp_path):
    """Makes a config whose space has architectures of these kinds; each tells in a file how often it was built."""

    def make(*kinds, seconds=60, widths=(16, 32)):
        plugin = tmp_path / "faulty.py"
        model = small_config["space"]["model"]
        plugin.write_text(
            SPACE.format(model=model, kinds=list(kinds), widths=list(widths), folder=tmp_path, seconds=seconds)
        )
        return small_config | {
            "space": {"name": f"{plugin}:Faulty"},
            "strategy": {"name": "grid"},
            # Unchecked: the checks before the first trial build models in this process, which some kinds end.
            "evaluation": {"episodes": 5, "test_episodes": 5, "test_best": 1, "check_models": False, "compare": False},
            "budget": {"trials": len(widths) * len(kinds)},
        }

    return make


def times_built(folder, kind, width=16):
    return len((folder / f"{kind}-{width}").read_text().splitlines())


@pytest.mark.slow
def test_workers_that_die_are_replaced_and_their_trials_tried_again(faulty, tmp_path):
    document = faulty("dies-once", "fine", "dies", "nan", widths=[16])
    document["resources"] |= {"retries": 1}
    run = search(document, tmp_path / "run")
    by_kind = {}
    for trial in run.trials:
        by_kind.setdefault(trial.architecture["kind"], []).append(trial)
    assert [t.status for t in by_kind["fine"] + by_kind["dies-once"]] == ["completed"] * 2
    assert times_built(tmp_path, "fine") >= 1 and times_built(tmp_path, "dies-once") >= 2
    for trial in by_kind["dies"]:
        assert trial.status == "failed" and "the worker died" in trial.error and "(2 times)" in trial.error
        assert times_built(tmp_path, "dies", trial.architecture["width"]) == 2
    for trial in by_kind["nan"]:
        assert trial.status == "failed" and "not finite" in trial.error
        assert times_built(tmp_path, "nan", trial.architecture["width"]) == 1  # its worker lives: nothing to retry


def test_a_trial_that_takes_too_long_is_ended_and_its_worker_goes_on(faulty, tmp_path):
    document = faulty("fine")
    document["learner"] |= {"steps": 10**7}
    document["budget"] |= {"timeout_minutes": 0.01, "trials": 2}
    with pytest.raises(Exception, match=r"took longer than 0\.01 minutes"):
        search(document, tmp_path / "run", inline=True)
    trials = load_run(tmp_path / "run").trials
    assert [t.status for t in trials] == ["timed-out"] * 2


def started(config, run):
    """A search through the command line, in a process group of its own, once its first slow trial runs."""
    process = subprocess.Popen(
        [*PROGRAM, "search", str(config), "--run-dir", str(run)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not list(config.parent.glob("slow-*")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    return process, psutil.Process(process.pid).children(recursive=True)


@pytest.mark.slow
@pytest.mark.parametrize("interrupts", [1, 2])
def test_ctrl_c_lets_trials_finish_and_a_second_one_does_not(interrupts, faulty, tmp_path):
    document = faulty("slow", seconds=4 if interrupts == 1 else 100)
    # Only the second Ctrl-C ends a trial that would have all this time.
    document["resources"] |= {"workers": 1, "grace_seconds": 600}
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(document))
    process, children = started(config, tmp_path / "run")
    # The journal is read here while the search writes it.
    assert json.loads(nas_meta("trials", tmp_path / "run", "--json").stdout)[-1]["status"] == "running"
    for _ in range(interrupts):
        os.killpg(process.pid, signal.SIGINT)  # as the terminal does: to every process of the group
        time.sleep(1)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in err and "nas-meta resume" in err
    (before,) = load_run(tmp_path / "run").trials
    if interrupts == 1:
        assert before.status == "completed" and "finishing running trials" in out
    else:
        assert before.status == "stopped"
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    if interrupts == 1:
        nas_meta("resume", tmp_path / "run", "--allow-plugins", "--inline")
        trials = json.loads(nas_meta("trials", tmp_path / "run", "--json").stdout)
        assert [t["status"] for t in trials] == ["completed"] * 2
        assert trials[0]["finished"] == before.finished


@pytest.mark.slow  # Ray's own agents notice after a minute
def test_a_driver_that_is_killed_leaves_no_process_and_its_search_goes_on(faulty, tmp_path):
    document = faulty("fine", "slow", seconds=3)
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(document))
    process, children = started(config, tmp_path / "run")
    process.kill()
    process.communicate()
    before = load_run(tmp_path / "run").trials
    assert any(t.status == "running" for t in before)
    command = [*PROGRAM, "search", str(config), "--run-dir", str(tmp_path / "run"), "--resume"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    trials = load_run(tmp_path / "run").trials
    assert [t.status for t in trials] == ["completed"] * 4
    assert [t for t in trials if t.id in {b.id for b in before if b.status == "completed"}] == [
        b for b in before if b.status == "completed"
    ]
    _, alive = psutil.wait_procs(children, timeout=120)
    assert not alive


@pytest.fixture
def cluster():
    """A head without CPUs for trials, and two nodes."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    yield cluster, nodes
    ray.shutdown()
    cluster.shutdown()


@pytest.mark.slow
def test_when_a_node_dies_its_trials_run_elsewhere(faulty, cluster, tmp_path):
    cluster, nodes = cluster
    document = faulty("slow", "fine", "dies-once", seconds=3)
    document["resources"] |= {"address": cluster.address, "cpus_per_trial": 1}
    killed = []

    def watch(status):
        if not killed and sum(status.steps.get(t.id, 0) > 0 for t in status.trials) >= 1:
            killed.append([t.id for t in status.trials if t.status == "running"])
            cluster.remove_node(nodes[1], allow_graceful=False)

    run = search(document, tmp_path / "run", watch=watch)
    assert killed and [t.status for t in run.trials] == ["completed"] * 6
    assert run.test_of(run.best)


@pytest.mark.slow
def test_a_plugin_file_reaches_other_nodes_without_being_there(faulty, cluster, tmp_path):
    """Its module is sent by value: nothing is imported from the file where the trial runs."""
    cluster, _ = cluster
    document = faulty("fine")
    document["resources"] |= {"address": cluster.address, "cpus_per_trial": 1}
    plugin = Path(document["space"]["name"].partition(":")[0])

    def watch(status):
        if status.phase == "searching":  # no worker has started yet
            plugin.unlink(missing_ok=True)

    run = search(document, tmp_path / "run", watch=watch)
    assert [t.status for t in run.trials] == ["completed"] * 2
    assert not plugin.exists()


RAISING = """
import ctypes, os, resource
from search_spaces.pretrained.bert_subnet import BertSubnet

class Faulty(BertSubnet):
    def build(self, architecture):
        with open({log!r}, "a") as file:
            file.write(f"{{os.getpid()}}\\n")
        if len(self.kept_layers(architecture)) == 1:
            {fault}
        return super().build(architecture)
"""
FAULTS = {
    "segfault": ("ctypes.string_at(0)", "the worker died"),
    "allocation": ("bytearray(2**46)", "MemoryError"),
    "limit": (
        # Room for what is there and a little: torch cannot allocate, as on a machine without memory.
        "import torch; free = resource.RLIMIT_AS; kb = int(open('/proc/self/statm').read().split()[0]) * 4096; "
        "limits = resource.getrlimit(free); resource.setrlimit(free, (kb + 2**26, limits[1]))\n"
        "            try:\n                torch.ones(2**30)\n"
        "            finally:\n                resource.setrlimit(free, limits)",
        "memory",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", list(FAULTS))
def test_a_segmentation_fault_and_a_lack_of_memory_cost_one_trial_each(fault, small_config, tmp_path):
    code, words = FAULTS[fault]
    plugin, log = tmp_path / "faulty.py", tmp_path / "log"
    plugin.write_text(RAISING.format(log=str(log), fault=code))
    # One layer of each, and both: the first two meet the fault.
    small_config["space"] |= {"name": f"{plugin}:Faulty", "heads": [1.0], "ffn": [1.0]}
    document = small_config | {"strategy": {"name": "grid"}, "budget": {"trials": 3}}
    document["resources"] = {"workers": 2, "cpus_per_trial": 1, "retries": 1}
    run = search(document, tmp_path / "run")
    by_layers = {sum(t.architecture[f"layer{i}.keep"] for i in range(2)): t for t in run.trials}
    bad = [t for t in run.trials if sum(t.architecture[f"layer{i}.keep"] for i in range(2)) == 1]
    assert by_layers[2].status == "completed" and len(bad) == 2
    for trial in bad:
        assert trial.status == "failed" and words in trial.error, trial.error
        # The segmentation fault is tried again on a fresh worker; what raises in one that lives is not.
        assert ("(2 times)" in trial.error) == (fault == "segfault")
    # Every build of a bad trial was one try: two of them each with a fault that kills.
    assert len(log.read_text().split()) >= (5 if fault == "segfault" else 3)

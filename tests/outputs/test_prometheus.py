"""Numbers of a search on the /metrics page of Ray's own exporter."""

import re
import socket
import time
import urllib.request

import psutil
import pytest

from nas_meta import search
from nas_meta.errors import ConfigError
from nas_meta.journal.status import read_status
from nas_meta.outputs.monitors import from_config


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def page(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            return answer.read().decode()
    except OSError:  # Ray's agent is still starting
        return ""


def values(text, run):
    """The search's own values on a page, by name and the label that tells them apart."""
    found = {}
    for name, labels, value in re.findall(r"^ray_nas_meta_(\w+)\{(.*)\} (\S+)$", text, re.MULTILINE):
        label = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        if label["run"] == run:
            found[name, label.get("status") or label.get("metric")] = float(value)
    return found


def test_what_it_needs_is_said_before_anything_runs(small_config, tmp_path, monkeypatch):
    def refused(inline=False):
        with pytest.raises(ConfigError) as error:
            search(small_config | {"watching": {"prometheus": port}}, tmp_path / "run", inline=inline)
        assert not (tmp_path / "run").exists()
        return str(error.value)

    port = free_port()
    assert "needs Ray's exporter; expected a search without --inline" in refused(inline=True)
    monkeypatch.setattr(from_config, "_installed", lambda module: False)
    assert "watching.prometheus: Ray's exporter is not installed" in refused()
    monkeypatch.setattr(from_config, "_installed", lambda module: True)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        assert f"watching.prometheus: port {port} is not available" in refused()


@pytest.mark.slow  # Ray's agent needs its time to start and to report
def test_a_search_is_seen_on_the_page(small_config, tmp_path):
    if not all(map(from_config._installed, from_config.EXPORTER)):
        pytest.skip("the extra nas-meta[prometheus] is not installed")
    port, seen, listening = free_port(), {}, set()

    def watch(status):
        """Holds the search where two trials have ended until the page tells of them."""
        if seen or status.phase != "searching" or sum(t.status == "completed" for t in status.trials) < 2:
            return
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            found = values(page(port), "watched")
            if found.get(("trials", "completed")) == sum(t.status == "completed" for t in status.trials):
                best = max(t.metrics["accuracy"] for t in status.trials if t.metrics)
                running = sum(t.status == "running" for t in status.trials)
                seen.update(found, expected=(best, running))
                listening.update(
                    c.laddr.ip for c in psutil.net_connections("tcp") if c.laddr.port == port and c.status == "LISTEN"
                )
                return
            time.sleep(0.5)

    document = small_config | {"watching": {"prometheus": port}}
    run = search(document, tmp_path / "watched", watch=watch)
    assert list(read_status(run).troubles) == []
    best, running = seen["expected"]
    assert seen["best", "accuracy"] == pytest.approx(best)
    assert seen["trials", "running"] == seen["busy_workers", None] == running
    assert seen["trials", "failed"] == seen["trials", "timed-out"] == 0
    assert seen["trials_finished_total", None] == seen["trials", "completed"]
    assert listening == {"127.0.0.1"}
    assert page(port) == ""  # nothing is left listening

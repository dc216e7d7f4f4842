"""The report: one HTML file that loads nothing, escapes everything, and states the same facts as ``--json``."""

import json
import re
from html.parser import HTMLParser

import pytest
from command_line import nas_meta
from planted_run import HOSTILE, planted

from nas_meta import search
from nas_meta.outputs.report.cost import Rates
from nas_meta.outputs.report.html import amount, report_facts

VOID = {"meta", "br", "path", "use", "rect", "image"}


class Page(HTMLParser):
    """Reads a page: its elements, attributes and text; fails if elements are not nested."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.texts, self.open = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attributes]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attributes]

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag, self.getpos()

    def handle_data(self, text):
        self.texts.append(text)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return planted(tmp_path_factory.mktemp("reported") / "run", rungs=True)


@pytest.fixture(scope="module")
def html(run):
    nas_meta("report", run.directory)
    return (run.directory / "report.html").read_text()


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def test_the_page_loads_nothing_and_executes_nothing(html, page):
    policy = next(
        value for tag, name, value in page.attributes if (tag, name) == ("meta", "content") and "src" in value
    )
    assert "default-src 'none'" in policy and "script" not in policy
    assert not {"script", "iframe", "link", "object", "img"} & set(page.tags)
    for _, name, value in page.attributes:
        assert not name.startswith("on")
        if name in ("href", "src", "xlink:href"):
            assert value.startswith("#")
    assert not re.search(r"https?://|//\w|@import|url\((?!#)", html)
    assert len(html.encode()) < 500_000
    assert page.tags.count("svg") == 4  # front, curves, and the importances for two objectives


def test_whatever_a_run_names_is_escaped(html, page):
    assert HOSTILE not in html
    assert page.text.count(HOSTILE) >= 3, "a class, a failure and a name of what was not measured"


def test_a_manager_reads_the_verdict_and_the_losing_rows_first(run, page):
    text = page.text
    assert text.index(run.verdict) < text.index("Against the alternatives") < text.index("Which choices mattered")
    assert run.verdict.startswith("Nothing to gain.")
    assert "the winner is 10.0 points worse" in text, "TF-IDF wins, and the table states it"
    assert "the winner is 5.0 points better" in text and "the winner is 10.0 points better" in text
    assert "depth matters for accuracy" in text and "From the first layers trained alike to trial" in text
    assert "No class stands in two of the splits" in text
    assert f"nas-meta search {run.directory / 'config.yaml'} --run-dir NEW_DIRECTORY" in text
    assert "my-private-hook" not in text and "my-cluster" not in text


def test_the_cost_is_measured_and_estimates_show_their_rates(run, page):
    document = json.loads(nas_meta("report", run.directory, "--json", "--watts-per-core", "20").stdout)
    cost = document["runs"][0]["cost"]
    assert cost["core_hours"] == pytest.approx(43 * 36 * 2 / 3600)
    assert cost["kwh"] == pytest.approx(cost["core_hours"] * 20 / 1000)
    assert cost["money"] == pytest.approx(cost["core_hours"] * 0.05)
    assert "10 W and 0.05 USD per core-hour" in page.text and "estimate" in page.text


def test_json_has_the_facts_of_the_page(run):
    (facts,) = json.loads(nas_meta("report", run.directory, "--json").stdout)["runs"]
    assert facts["verdict"] == run.verdict and facts["winner"]["trial"] == run.best.id
    assert [row["name"] for row in facts["table"]] == [
        "TF-IDF, nearest centroid", f"trial {run.best.id}", "the untouched model",
        "the first layers trained alike",
    ]  # fmt: skip
    assert [round(row["against"]["mean"]) for row in facts["table"] if row["against"]] == [-10, 5, 10]
    assert facts["failures"] == [{"reason": f"it broke: {HOSTILE}", "trials": 3, "last": 43}]
    front = facts["front"]["rows"]
    assert {row["trial"] for row in front} >= {t.id for t in run.pareto}
    assert front[0]["chosen"] and front[0]["costs"] == []
    cheaper = next(row for row in front if row["metrics"]["flops"] < front[0]["metrics"]["flops"])
    assert re.search(r"accuracy -\d", cheaper["costs"][0]) and any("MFLOPs -" in cost for cost in cheaper["costs"])
    assert facts["data"]["splits"]["meta-test"]["examples"] == 45


def test_runs_stand_side_by_side_and_are_paired_where_the_episodes_are_the_same(run, tmp_path):
    other = planted(tmp_path / "other", seed=7)
    objectives = [{"metric": "accuracy", "direction": "maximize"}]
    fewer = planted(tmp_path / "fewer", config={"tasks": {"ways": 10}, "seed": 1, "objectives": objectives})
    file = tmp_path / "both.html"
    nas_meta("report", run.directory, other.directory, fewer.directory, "--to", file)
    text = Page(file.read_text()).text
    assert "3 runs side by side" in text
    assert "The winner of run against that of other: not distinguishable (+0.0 to +0.0 points)." in text
    assert "The winners of run and fewer cannot be compared episode by episode: tasks.ways differs." in text


@pytest.mark.parametrize("trials", [0, 1, 12])
def test_a_search_that_has_not_ended_has_a_report_too(tmp_path, trials):
    run = planted(tmp_path / "run", trials, failing=1, tested=False, cpus=0, fingerprint=None)
    nas_meta("report", run.directory)
    text = Page((run.directory / "report.html").read_text()).text
    assert "No trial was completed" in text if trials == 0 else "the search has not reached its end" in text
    assert "not recorded" in text, "the cost of a run without CPUs per trial"
    assert "Classes and sizes are not available" in text


def test_a_report_of_thousands_of_trials_stays_small(tmp_path):
    names = {f"{i:04d} {'long' * 50}": (20, f"{i:x}") for i in range(3000)}
    fingerprint = {"data": {"meta-train": names}, "models": {}, "corpus": None}
    run = planted(tmp_path / "run", 1500, failing=200, rungs=True, fingerprint=fingerprint)
    nas_meta("report", run.directory)
    assert (run.directory / "report.html").stat().st_size < 500_000


def test_what_cannot_be_written_is_one_sentence(run, tmp_path):
    assert "--to is missing for a report of 2 runs" in nas_meta("report", run.directory, run.directory, check=2).stderr
    assert (
        "is a folder; expected the name of a file"
        in nas_meta("report", run.directory, "--to", tmp_path, check=1).stderr
    )
    missing = tmp_path / "missing" / "report.html"
    assert "cannot be written" in nas_meta("report", run.directory, "--to", missing, check=1).stderr
    assert "is not a run" in nas_meta("report", tmp_path, check=1).stderr
    nas_meta("report", run.directory, "--price-per-core-hour", "-1", check=2)


def test_a_search_ends_with_its_report(small_config, tmp_path):
    run = search(small_config | {"budget": {"trials": 2}}, tmp_path / "run", inline=True)
    page = Page((run.directory / "report.html").read_text())
    assert run.verdict in page.text and "State: done." in page.text


def test_a_report_that_fails_does_not_end_the_search(small_config, tmp_path, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError("no report today")

    monkeypatch.setattr("nas_meta.outputs.report.html.write_report", fail)
    seen = []
    config = small_config | {"budget": {"trials": 1}}
    run = search(config, tmp_path / "run", inline=True, watch=lambda status: seen.append(list(status.troubles)))
    assert run.best.id == 1 and not (run.directory / "report.html").exists()
    assert any("no report today" in trouble for trouble in seen[-1])


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "not recorded"), (0.0, "0 kWh"), (1e-9, "less than 0.001 kWh"), (0.1234, "0.12 kWh"), (12.34, "12.3 kWh"),
     (12345.6, "12,346 kWh")],
)  # fmt: skip
def test_amounts_have_a_readable_size(value, shown):
    assert amount(value, "kWh") == shown


def test_runs_with_the_same_name_are_named_by_their_directory(run, tmp_path):
    same = planted(tmp_path / "run", seed=3)
    names = [facts["name"] for facts in report_facts([run, same], Rates())["runs"]]
    assert names == [str(run.directory), str(same.directory)]

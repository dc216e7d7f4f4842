"""The commands for authors of strategies and learners: what they write works, and what is wrong is explained."""

import json

import pytest
import yaml
from command_line import nas_meta

from nas_meta import search
from nas_meta.config.resolved import read_config


@pytest.mark.parametrize(
    ("kind", "section", "name"),
    [
        ("strategy", "strategy", "HillClimb"),
        pytest.param("learner", "learner", "CosineMeans", marks=pytest.mark.slow),
    ],
)
def test_a_new_plugin_passes_its_check_and_runs_in_a_search(kind, section, name, small_config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written = nas_meta(kind, "new", name).stdout.splitlines()
    file, config = written[0].split()[2].rstrip(";"), written[1].split()[2].rstrip(";")
    assert written == [
        f"written to {file}; try: nas-meta {kind} check {file}:{name}",
        f"written to {config}; try: nas-meta search {config}",
    ]
    checked = nas_meta(kind, "check", f"{file}:{name}").stdout
    assert "wrong" not in checked and checked.count("ok    ") >= 8
    options = yaml.safe_load((tmp_path / config).read_text())
    assert read_config(tmp_path / config).sections is not None
    assert options[section]["name"] == f"{file}:{name}"
    small_config[section] = options[section] | ({"steps": 2} if kind == "learner" else {})
    small_config["budget"]["trials"] = 4
    run = search(small_config, tmp_path / "run", inline=True)
    assert [trial.status for trial in run.trials] == ["completed"] * 4


def test_nothing_is_overwritten(tmp_path):
    nas_meta("strategy", "new", "my strategy", cwd=tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["my_strategy.py", "my_strategy.yaml"]
    (tmp_path / "my_strategy.py").unlink()
    refused = nas_meta("strategy", "new", "MyStrategy", check=2, cwd=tmp_path)
    assert "my_strategy.yaml exists already; choose another name" in refused.stderr
    assert not (tmp_path / "my_strategy.py").exists()


@pytest.mark.parametrize("kind", ["space", "strategy", "learner"])
def test_a_name_that_cannot_be_a_class_is_refused(kind, tmp_path):
    refused = nas_meta(kind, "new", "none", check=2, cwd=tmp_path).stderr
    assert "'none' cannot name a class; expected letters and digits" in refused and not list(tmp_path.iterdir())


FAULTY = '''
from nas_meta import Strategy

class First(Strategy):
    """Proposes the architectures in their order."""

    def __init__(self, context, options=None):
        super().__init__(context, options)
        self.rest = context.space.walk()

    def ask(self):
        return next(self.rest, None)

    def tell(self, outcome):
        self.gain = outcome.score - 0.5
'''


def test_what_is_wrong_with_a_strategy_and_how_to_mend_it(tmp_path):
    (tmp_path / "first.py").write_text(FAULTY)
    printed = nas_meta("strategy", "check", "first.py:First", check=1, cwd=tmp_path).stdout
    assert "ok    a small space is tried completely\n" in printed
    assert (
        "wrong failed trials do not end the search: First.tell() raised TypeError: unsupported operand type(s) for -: "
        "'NoneType' and 'float'\n      to mend it, look at line 15 of first.py, in tell()\n"
    ) in printed
    assert (
        "wrong another seed gives other proposals: three seeds gave the same proposals\n"
        "      to mend it, draw random numbers from np.random.default_rng(context.seed)\n"
    ) in printed
    assert "skip  results of other searches are learned: learns is False\n" in printed
    assert "optimum" not in printed


def test_a_strategy_is_compared_with_random_search():
    printed = nas_meta("strategy", "check", "tpe", "--searches", "2").stdout.splitlines()
    assert printed[-3] == "1 is the optimum            strategy  random search"
    best, front = ([float(word) for word in line.split()[-2:]] for line in printed[-2:])
    assert best[0] > best[1] and front[0] > front[1]
    document = json.loads(nas_meta("strategy", "check", "grid", "--searches", "0", "--json").stdout)
    assert document["comparisons"] == [] and {row["problem"] for row in document["checks"]} == {None}


@pytest.mark.parametrize("kind", ["strategy", "learner"])
def test_a_plugin_that_does_not_exist_is_a_problem(kind):
    assert "is not an installed" in nas_meta(kind, "check", "protonest", check=1).stdout

"""Plugins that return or raise arbitrary things: one sentence that names the plugin, or a trial that fails with one."""

import pytest
from command_line import nas_meta

from nas_meta import load_run, search
from nas_meta.errors import NasMetaError

HEAD = """
import sys, numpy, torch
from torch import nn
from nas_meta import SearchSpace, Choice, Strategy, Architecture, WAIT
from nas_meta.learners.base import Learner
from nas_meta.tasks.source import TaskSource
class Model(nn.Module):
    def __init__(self, give=lambda x: x):
        super().__init__()
        self.e, self.give = nn.Embedding(64, 4), give
        self.w = nn.Linear(4, 4)
    def forward(self, input_ids, attention_mask):
        return self.give(self.w(self.e(input_ids)))
class Good(SearchSpace):
    tokenizer = {model!r}
    def choices(self):
        return {{"w": [1, 2, 3]}}
    def build(self, a):
        return Model()
class Once(Strategy):
    remaining = 2
    def ask(self):
        self.remaining -= 1
        return self.context.space.architecture({{"w": self.remaining}}) if self.remaining > 0 else None
    def tell(self, outcome):
        return None
class Bag(Learner):
    def meta_loss(self, encoder, pool, episode):
        return encoder.embed(pool, episode.indices).square().mean()
    def classify(self, encoder, pool, episode):
        return torch.zeros(episode.query.size, len(episode.query))
"""
RAISED = [
    "raise ValueError('a\\nb')",
    "raise SystemExit(0)",
    "raise RecursionError",
    "raise MemoryError",
    "raise StopIteration",
    "sys.exit('out')",
    "1 / 0",
    "raise KeyboardInterrupt",
]
BAD = {
    "Good.choices": [
        "None",
        "['a']",
        "'abc'",
        "3",
        "{1: [1]}",
        "{'w': 'abc'}",
        "{'w': 3}",
        "{'w': None}",
        "{'w': []}",
        "{'w': [[1]]}",
        "{'w': [object()]}",
        "{'w': {1: 2}}",
        "(x for x in 'ab')",
        "{'w': [float('nan')]}",
        "{'w': Choice(3)}",
        "{'w': Choice([1], when=3)}",
        "{'w': Choice([1], when={'x': 1})}",
        "{'w': ['\\ud800']}",
    ],
    "Good.problem": ["3", "['no']", "True"],
    "Good.counts": ["None", "[1]", "{'params': 'many'}"],
    "Good.prepare": [],
    "Once.ask": [
        "'w=1'",
        "3",
        "{'w': 1}",
        "['w']",
        "Architecture({'w': 9})",
        "Architecture({'x': 1})",
        "Architecture(None)",
        "Architecture({})",
        "(a for a in [])",
        "Architecture({'w': 1, 'more': 2})",
    ],
    "Once.tell": [],
}
TRIAL = {
    "Good.build": [
        "None",
        "'model'",
        "3",
        "Model",
        "nn.Module()",
        "nn.Linear(2, 2)",
        "Model(lambda x: None)",
        "Model(lambda x: x[0])",
        "Model(lambda x: x.long())",
        "Model(lambda x: x.sum())",
        "Model(lambda x: x * float('nan'))",
        "Model(lambda x: x.to(torch.complex64))",
        "Model(lambda x: (x,))",
        "Model(lambda x: x[..., :0])",
        "Model().requires_grad_(False)",
        "Model(lambda x: x.detach())",
        "Model(lambda x: sys.exit(0))",
    ],
    "Bag.meta_loss": [
        "0.5",
        "None",
        "'loss'",
        "torch.zeros(3)",
        "torch.tensor(1.0)",
        "torch.tensor(1)",
        "[torch.zeros(1)]",
    ],
    "Bag.classify": ["None", "torch.zeros(2, 2)", "numpy.zeros((9, 3))", "[[0]]", "torch.zeros(())"],
}


@pytest.fixture
def config_with(tmp_path, tiny_model, small_config):
    """Function that writes a plugin file with one method replaced, and returns a config that uses it."""

    def make(method, body):
        owner, _, name = method.partition(".")
        lines = f"class Bad({owner}):\n    def {name}(self, *a, **k):\n        {body}\n"
        file = tmp_path / "bad.py"
        file.write_text(HEAD.format(model=str(tiny_model)) + lines)
        names = {"Good": ("space", "name"), "Once": ("strategy", "name"), "Bag": ("learner", "name")}
        document = small_config | {
            "space": {"name": f"{file}:Good"},
            "strategy": {"name": f"{file}:Once"},
            "learner": {"name": f"{file}:Bag", "steps": 1},
            "evaluation": {"episodes": 2, "test_episodes": 2, "compare": False},
            "objectives": {"accuracy": "maximize", "params": {"max": 1e9}},
            "budget": {"trials": 1},
            "resources": {"workers": 1, "retries": 1},
            "latency": {"seconds": 0.01},
        }
        section, key = names[owner]
        document[section] = document[section] | {key: f"{file}:Bad"}
        return document

    return make


def cases(table, raised):
    return [(m, f"return {v}") for m, values in table.items() for v in values] + [(m, r) for m in table for r in raised]


@pytest.fixture(autouse=True)
def fresh_modules():
    """Forget imported plugin files, because a process imports a file only once and every case rewrites it."""
    import sys

    yield
    for name in [n for n in sys.modules if n.startswith("nas_meta_plugin_")]:
        del sys.modules[name]


def failure_of(document, run):
    """Run a search and return None, or the sentence with which it failed."""
    try:
        search(document, run, inline=True)
    except NasMetaError as error:
        message = str(error)
        assert message.isprintable() and len(message) < 2000
        return message
    return None


@pytest.mark.parametrize(("method", "body"), cases(BAD, RAISED[:4]))
def test_a_plugin_call_on_the_driver_fails_with_a_sentence(method, body, config_with, tmp_path):
    message = failure_of(config_with(method, body), tmp_path / "run")
    assert message and ("Bad" in message or "Good" in message), message


@pytest.mark.parametrize(("method", "body"), cases(TRIAL, RAISED))
def test_a_plugin_call_in_a_trial_fails_the_trial(method, body, config_with, tmp_path):
    document = config_with(method, body)
    message = failure_of(document, tmp_path / "run")
    assert message and "no trial was completed" in message
    (trial,) = load_run(tmp_path / "run").trials
    assert trial.status == "failed" and trial.error.isprintable()
    if body.startswith("return"):
        assert any(
            w in trial.error
            for w in (
                "Bad",
                "not finite",
                "no parameters",
                "trainable parameters",
                "Linear",
                "forward",
                "gradient",
                "SystemExit",
            )
        ), trial.error


@pytest.mark.slow
def test_a_search_continues_after_a_bad_architecture(config_with, tmp_path):
    document = config_with("Good.build", "return Model() if a[0]['w'] != 2 else None")
    document |= {"strategy": {"name": "grid"}, "budget": {"trials": 3}}
    run = search(document, tmp_path / "run")  # on Ray
    by_width = {t.architecture["w"]: t for t in run.trials}
    assert [by_width[w].status for w in (1, 2, 3)] == ["completed", "failed", "completed"]
    assert by_width[2].error == "build() of Bad returned None; expected a torch module"


@pytest.mark.parametrize(
    ("method", "body", "words"),
    [
        ("Good.choices", "return 'abc'", "choices() returned a str; expected a mapping"),
        ("Good.build", "return None", "build() returned NoneType"),
        ("Good.size", "raise SystemExit(0)", "SystemExit"),
    ],
)
def test_the_space_check_reports_the_same_faults(method, body, words, config_with):
    name = config_with(method, body)["space"]["name"]
    assert words in nas_meta("space", "check", name, check=1).stdout

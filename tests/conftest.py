"""Shared fixtures: a tiny pretrained encoder, labelled texts, and the config of a search that takes seconds."""

import gc
import json
import os
import random
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# The models of tests are tiny: several threads would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import yaml
from hypothesis import settings
from words import WORDS

settings.register_profile("any time", deadline=None)  # the machine may be busy
settings.load_profile("any time")

# The slowest files, which mostly wait for processes. They start first, so that no test worker finishes long after the
# others.
LONGEST = ("test_faults.py", "test_resume.py", "test_search.py", "test_plugins.py", "test_scale.py", "test_rerun.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Move the slowest test files to the front."""
    ranks = {name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path.name, len(LONGEST)))


@pytest.fixture(scope="module", autouse=True)
def frozen_objects():
    """Keep loaded modules out of garbage collection, which is slow otherwise: every trial ends with a full one."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """Folder of a two-layer BERT with a word-level tokenizer, saved like a pretrained model."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("tiny-bert")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    BertModel(
        BertConfig(
            vocab_size=len(vocabulary),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=64,
            max_position_embeddings=64,
        )
    ).save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def token_cache(tmp_path_factory, monkeypatch):
    """Keep the cache of tokenised corpora in the temporary folder of the tests."""
    monkeypatch.setenv("NAS_META_CACHE", str(tmp_path_factory.getbasetemp() / "tokens"))


@pytest.fixture
def corpus(tmp_path) -> Path:
    """File of 60 unlabelled texts of nine words each."""
    rng = random.Random(1)
    file = tmp_path / "corpus.txt"
    file.write_text("\n".join(" ".join(rng.choices(WORDS, k=9)) for _ in range(60)))
    return file


@pytest.fixture(scope="session")
def labelled_texts(tmp_path_factory) -> Path:
    """JSON Lines file of 12 classes; each text has two words that are typical of its class, and some random ones."""
    rng = random.Random(0)
    file = tmp_path_factory.mktemp("data") / "intents.jsonl"
    rows = []
    for label in range(12):
        typical = WORDS[2 * label : 2 * label + 2]
        texts = set()
        while len(texts) < 12:
            texts.add(" ".join(rng.choices(typical, k=2) + rng.choices(WORDS, k=rng.randint(1, 5))))
        rows += [{"text": text, "label": f"class{label}"} for text in sorted(texts)]
    file.write_text("\n".join(map(json.dumps, rows)))
    return file


@pytest.fixture(scope="session")
def texts_by_class(labelled_texts) -> dict[str, list[str]]:
    """The texts of ``labelled_texts`` by class."""
    found = {}
    for line in labelled_texts.read_text().splitlines():
        row = json.loads(line)
        found.setdefault(row["label"], []).append(row["text"])
    return found


@pytest.fixture
def small_config(tiny_model, labelled_texts) -> dict:
    """Config of a complete search that takes seconds."""
    return {
        "space": {"name": "bert-subnet", "model": str(tiny_model), "heads": [1.0, 0.5], "ffn": [1.0, 0.5]},
        "tasks": {"source": "jsonl", "path": str(labelled_texts), "ways": 3, "shots": 1, "queries": 3},
        # The default fits and compares heads after every trial; the tests of heads do that.
        "learner": {"name": "protonet", "steps": 4, "lr": 1e-3, "head": "none"},
        "strategy": {"name": "evolution"},
        "evaluation": {
            "episodes": 20,
            "test_episodes": 20,
            "interim_every": 2,
            "interim_episodes": 5,
            "compare": False,  # the tests of comparisons train them
        },
        "budget": {"trials": 6},
        "resources": {"workers": 2, "cpus_per_trial": 1},
        "latency": {"seconds": 0.02},
        "seed": 3,
    }


@pytest.fixture
def fragile_learner(tmp_path) -> str:
    """Name of a learner whose training raises ``ZeroDivisionError``."""
    plugin = tmp_path / "fragile.py"
    plugin.write_text(
        "from nas_meta.learners.protonet import ProtoNet\n"
        "class Fragile(ProtoNet):\n"
        "    def meta_loss(self, encoder, pool, episode):\n"
        "        raise ZeroDivisionError('too dark')\n"
    )
    return f"{plugin}:Fragile"


@pytest.fixture
def small_config_file(small_config, tmp_path) -> Path:
    """YAML file of ``small_config``."""
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(small_config))
    return file

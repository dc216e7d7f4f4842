"""What tests of learners start from: the classes of meta-train, encoders, and tiny decoders for in-context learning."""

import json

import pytest
import torch
from tiny_decoder import save_tiny

from nas_meta.models.encoder import Encoder
from nas_meta.tasks.sources.files import FileOptions, JSONLines
from nas_meta.tasks.tokenization import load_tasks, load_tokenizer


@pytest.fixture(scope="module")
def pool(tiny_model, labelled_texts):
    """The texts of meta-train."""
    source = JSONLines(FileOptions(path=labelled_texts))
    return load_tasks(source, load_tokenizer(str(tiny_model)), 16)["meta-train"]


@pytest.fixture
def encoder_for(tiny_model):
    """Makes an encoder with the parameters that a learner adds for a number of ways."""
    from transformers import AutoModel

    def make(learner, ways):
        torch.manual_seed(0)
        encoder = Encoder(AutoModel.from_pretrained(tiny_model))
        encoder.learned = learner.learned(encoder, ways)
        return encoder

    return make


@pytest.fixture(scope="module")
def texts(labelled_texts):
    return [json.loads(line)["text"] for line in labelled_texts.read_text().splitlines()]


@pytest.fixture(scope="module")
def folders(tmp_path_factory, texts):
    """A tiny model of each of three families, with its tokenizer."""
    found = {}
    for family in ("gpt2", "untied", "qwen3"):
        found[family] = tmp_path_factory.mktemp(family)
        save_tiny(family, found[family], texts, positions=512)
    return found

"""Tiny decoders for the tests of in-context learning."""

import json

import pytest
from tiny_decoder import save_tiny


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

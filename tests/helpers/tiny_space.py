"""A plugin file with a space of small encoders from scratch."""

PLUGIN = '''
import torch
from transformers import BertConfig, BertModel
from nas_meta import SearchSpace

class Tiny(SearchSpace):
    """Small encoders from scratch."""
    tokenizer = {tokenizer!r}
    def choices(self):
        return {{"depth": [1, 2], "heads": [2, 4], "width": [16, 32, 64]}}
    def build(self, architecture):
        return BertModel(BertConfig(
            vocab_size=29, hidden_size=32, num_hidden_layers=architecture["depth"], max_position_embeddings=64,
            num_attention_heads=architecture["heads"], intermediate_size=architecture["width"]))
'''

"""The search-space plugin that ``nas-meta space new`` writes."""

PLUGIN = '''"""A search space for nas-meta. Check it: nas-meta space check {file}:{name}"""

from transformers import BertConfig, BertModel

from nas_meta import SearchSpace


class {name}(SearchSpace):
    """Small encoders from scratch: how deep, how many heads, how wide."""

    from_scratch = True

    def choices(self):
        return {{"depth": [1, 2, 3], "heads": [2, 4], "width": [64, 128, 256]}}

    def build(self, architecture):
        return BertModel(
            BertConfig(
                hidden_size=128,
                num_hidden_layers=architecture["depth"],
                num_attention_heads=architecture["heads"],
                intermediate_size=architecture["width"],
            )
        )
'''

"""`nas_meta.tasks.source` as plugins could rely on it from nas-meta 0.1 on.

NEVER edit a line to make a test pass: somebody's plugin calls it so. Only ever add lines.
"""

SPLITS = ...

class SourceOptions:
    def __init__(self, *, min_examples=20, fractions=(0.5, 0.25, 0.25), split_seed=0): ...

class SplitClasses:
    def __init__(self, splits, report=...): ...

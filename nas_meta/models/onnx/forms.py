"""The forms in which a model can be deployed, without torch: classifiers of ONNX folders use this, too."""

from __future__ import annotations

NONE, INT8, STATIC = QUANTIZATIONS = ("none", "int8", "int8-static")
OUTPUT = "sentence_embedding"  # name of the graph's output, as other tools name it

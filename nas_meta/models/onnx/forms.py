"""The forms in which a model can be deployed, without torch: classifiers of ONNX folders use this, too."""

from __future__ import annotations

import importlib.util

from nas_meta.errors import ConfigError

NONE, INT8, STATIC = QUANTIZATIONS = ("none", "int8", "int8-static")
TORCH, ONNX, ONNX_INT8 = FORMS = ("torch", "onnx", "onnx-int8")
QUANTIZATION = {ONNX: NONE, ONNX_INT8: INT8}  # of each form that is a graph
OUTPUT = "sentence_embedding"  # name of the graph's output, as other tools name it
PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def check_packages(subject: str) -> None:
    """Check that graphs can be written and run here.

    Args:
        subject: What needs them, such as ``--format onnx``.

    Raises:
        ConfigError: A package is not installed.
    """
    for package in PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise ConfigError(
                f"{subject} needs the package {package}, which is not installed: pip install 'nas-meta[onnx]'"
            )

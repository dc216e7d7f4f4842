"""Open an ONNX graph with onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nas_meta.core.files import regular_file

ERRORS_ONLY = 3  # severity of onnxruntime's log


def open_session(file: Path, threads: int = 0) -> Any:
    """Open a graph on the CPU.

    Args:
        file: The graph.
        threads: CPU threads; 0 leaves the number to onnxruntime.

    Returns:
        The ``onnxruntime.InferenceSession``.

    Raises:
        ImportError: onnxruntime is not installed.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = ERRORS_ONLY
    return onnxruntime.InferenceSession(str(regular_file(file)), options, providers=["CPUExecutionProvider"])

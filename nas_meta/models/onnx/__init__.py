"""Models as ONNX graphs: export, INT8 weights, and sessions of onnxruntime."""

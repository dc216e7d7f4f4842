"""Models as ONNX graphs: written from an exported model, and run without torch and transformers."""

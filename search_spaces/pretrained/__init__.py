"""Search spaces on a pretrained model: which layers, heads and neurons to keep, and which adapters to add."""

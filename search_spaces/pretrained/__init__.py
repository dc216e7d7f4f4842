"""Spaces cut from a pretrained model: layers, heads and neurons that stay, and adapters."""

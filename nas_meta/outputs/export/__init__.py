"""From a run to a folder that transformers loads, and back."""

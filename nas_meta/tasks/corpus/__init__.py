"""Unlabelled text for pre-training: reading it, tokenising it once to disk, and learning a tokenizer from it."""

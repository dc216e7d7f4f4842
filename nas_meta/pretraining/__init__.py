"""Self-supervised pre-training: corpora, tokens on disk, objectives, the loop, and its place in a search."""

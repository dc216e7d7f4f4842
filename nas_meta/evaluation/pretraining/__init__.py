"""Self-supervised pre-training of one model: its options, the loop, and its place in a trial."""

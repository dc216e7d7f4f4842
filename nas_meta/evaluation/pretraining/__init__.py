"""Self-supervised pre-training of one model: its options, the training loop, and the stage of a trial that runs it."""

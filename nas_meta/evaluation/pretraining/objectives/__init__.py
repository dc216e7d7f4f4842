"""Pre-training objectives: what a model learns to predict from unlabelled text, one loss per file."""

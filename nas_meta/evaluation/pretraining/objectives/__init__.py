"""What a model is pre-trained to predict: one loss per file."""

"""A few-shot classifier from an exported model: fit on a few examples of every class, then predict."""

"""Search spaces of models that start from random weights."""

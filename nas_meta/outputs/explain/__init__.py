"""Explanations: which choices matter, why this architecture won, and why a text gets its class."""

"""Spaces of models that start from random weights."""

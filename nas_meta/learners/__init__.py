"""Learners, the algorithms by which a model learns from a few examples: one file per algorithm."""

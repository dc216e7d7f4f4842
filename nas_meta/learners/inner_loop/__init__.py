"""Gradient descent on one support set, differentiable, and how many such loops run at once."""

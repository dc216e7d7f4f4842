"""How a model learns from few examples: one file per algorithm."""

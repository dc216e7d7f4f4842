"""Where episodes come from: sources, splits, tokens, sampling."""

"""Fingerprints of what a search depends on besides its config: data, models, corpus, plugin files and environment."""

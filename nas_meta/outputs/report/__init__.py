"""Results of a search as tables, figures and text."""

"""Export models of a run as Hugging Face folders, and evaluate such folders."""

"""The words in the texts of tests, all of them in the vocabulary of the tiny models."""

WORDS = [f"{a}{b}" for a in ("red", "blue", "green", "gray", "pink", "gold") for b in ("fox", "cat", "owl", "bee")]

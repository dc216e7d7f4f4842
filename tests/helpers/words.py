"""The words that texts of tests are made of; the tiny models of tests know them all."""

WORDS = [f"{a}{b}" for a in ("red", "blue", "green", "gray", "pink", "gold") for b in ("fox", "cat", "owl", "bee")]

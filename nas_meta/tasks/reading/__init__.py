"""Reading of files that other programs wrote: encodings, delimited text, JSON and tables."""

"""The built-in task sources: one module per file format or package."""

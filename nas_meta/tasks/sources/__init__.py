"""The task sources that ship: one per file format or package."""

"""The search spaces that ship: each a plugin like anybody's."""

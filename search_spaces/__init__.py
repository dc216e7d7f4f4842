"""The built-in search spaces, each a plugin found by its entry point, like third-party ones."""

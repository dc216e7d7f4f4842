"""Spaces of wirings: every layer chooses its operation and its inputs."""

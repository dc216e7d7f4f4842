"""Search space in which every layer chooses its operation and its inputs."""

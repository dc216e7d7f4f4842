"""What several strategies use: mutation, and selection among several objectives."""

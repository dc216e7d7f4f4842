"""What several strategies use: unseen architectures, and selection among several objectives."""

"""Meta-training options and their implementation, which all learners share."""

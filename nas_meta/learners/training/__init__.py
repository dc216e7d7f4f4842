"""Options and parts of meta-training that every learner shares."""

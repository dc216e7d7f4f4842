"""MetaNAS: weights and architectures meta-learned together, so that every task gets its own architecture."""

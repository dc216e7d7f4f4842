"""Strategies that train a supernet of alternatives and derive architectures from it, with NNI's super-modules."""

"""NNI's multi-trial strategies behind one adapter."""

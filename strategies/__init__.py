"""The strategies that ship: each a plugin; NNI's stand behind one adapter."""

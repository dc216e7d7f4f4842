"""Optuna's samplers behind one adapter."""

"""Engines that run trials: they send a picklable payload to workers and stream results back, without knowing torch."""

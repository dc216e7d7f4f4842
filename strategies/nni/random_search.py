"""Random search, with NNI's ``Random``."""

from __future__ import annotations

from nni.nas.strategy import Random as NNIRandom

from strategies.nni.adapter import NNIAdapter


class Random(NNIAdapter):
    """Random search: uniform, without repeats (NNI)."""

    withdraws = True

    def make(self) -> NNIRandom:
        return NNIRandom(dedup=False, seed=self.context.seed)

"""Random search: NNI's ``Random``."""

from __future__ import annotations

from nni.nas.strategy import Random as NNIRandom

from strategies.nni.adapter import NNIAdapter


class Random(NNIAdapter):
    """Uniform random architectures, none twice (NNI)."""

    withdraws = True

    def make(self) -> NNIRandom:
        return NNIRandom(dedup=False, seed=self.context.seed)

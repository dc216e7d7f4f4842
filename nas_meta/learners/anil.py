"""ANIL (Raghu et al. 2020, "Rapid Learning or Feature Reuse?"): MAML whose inner loop moves the head alone.

θ = (body, head); head' = head - α∇_head L_support, and both are trained on L_query(body, head'), section 5.
"""

from __future__ import annotations

from typing import Literal

from nas_meta.learners.maml import MAML, MAMLOptions


class ANILOptions(MAMLOptions):
    """Options of ANIL."""

    adapt: Literal["head"] = "head"
    inner_steps: int = 10
    meta_batch: int = 1


class ANIL(MAML):
    """ANIL: almost no inner loop, only the head adapts to a support set."""

    Options = ANILOptions

"""ANIL, almost no inner loop (Raghu et al. 2020, "Rapid Learning or Feature Reuse?"): MAML that adapts only the head.

For θ = (body, head), head' = head - α∇_head L_support, and both are trained on L_query(body, head') (section 5).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from nas_meta.learners.maml import MAML, MAMLOptions


class ANILOptions(MAMLOptions):
    """Options of ANIL."""

    adapt: Literal["head"] = Field("head", description="what is trained on a support set: always only the head")
    inner_steps: int = Field(10, description="gradient steps on a support set during meta-training")
    meta_batch: int = Field(1, description="episodes per meta-training step; their gradients are averaged")


class ANIL(MAML):
    """ANIL: MAML that adapts only the head to a support set."""

    Options = ANILOptions

"""Which learners compare embeddings in closed form, so that their models can be deployed without torch."""

from __future__ import annotations

from nas_meta.learners.base import Learner
from nas_meta.learners.matching import Matching
from nas_meta.learners.protonet import ProtoNet
from nas_meta.learners.ridge import Ridge

NAMES = ("protonet", "ridge", "matching")


def in_closed_form(learner: Learner) -> bool:
    """Return whether a learner classifies from embeddings by a formula that an ONNX folder can hold.

    Args:
        learner: The learner; a subclass of a plugin may compare in another way, so only the built-in classes count.
    """
    if type(learner) is Matching:
        return not learner.options.full_context
    return type(learner) in (ProtoNet, Ridge)

"""One trial, from architecture to metrics: build, pre-train, meta-train, validate, measure."""

from typing import TYPE_CHECKING

from nas_meta.core.lazy import lazy_exports

if TYPE_CHECKING:
    from nas_meta.evaluation.progress import EvaluationSettings as EvaluationSettings
    from nas_meta.evaluation.progress import JobResult as JobResult
    from nas_meta.evaluation.progress import Progress as Progress
    from nas_meta.evaluation.progress import Result as Result
    from nas_meta.evaluation.trial import Evaluation as Evaluation
    from nas_meta.models.state import deserialize_state, serialize_state

    packed = serialize_state  # the names of version 0.1
    unpacked = deserialize_state

_EXPORTS = {
    "Evaluation": "nas_meta.evaluation.trial",
    "EvaluationSettings": "nas_meta.evaluation.progress",
    "JobResult": "nas_meta.evaluation.progress",
    "Progress": "nas_meta.evaluation.progress",
    "packed": "nas_meta.models.state:serialize_state",
    "unpacked": "nas_meta.models.state:deserialize_state",
    "Result": "nas_meta.evaluation.progress",
}
__getattr__ = lazy_exports(__name__, _EXPORTS)

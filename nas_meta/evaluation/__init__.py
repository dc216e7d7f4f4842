"""One trial, from architecture to metrics: build, pre-train, meta-train, validate, measure."""

from typing import TYPE_CHECKING

from nas_meta.core.lazy import lazy_exports

if TYPE_CHECKING:
    from nas_meta.evaluation.progress import EvaluationSettings as EvaluationSettings
    from nas_meta.evaluation.progress import JobResult as JobResult
    from nas_meta.evaluation.progress import Progress as Progress
    from nas_meta.evaluation.progress import Result as Result
    from nas_meta.evaluation.trial import Evaluation as Evaluation
    from nas_meta.models.state import packed as packed
    from nas_meta.models.state import unpacked as unpacked

_EXPORTS = {
    "Evaluation": "nas_meta.evaluation.trial",
    "EvaluationSettings": "nas_meta.evaluation.progress",
    "JobResult": "nas_meta.evaluation.progress",
    "Progress": "nas_meta.evaluation.progress",
    "Result": "nas_meta.evaluation.progress",
    "packed": "nas_meta.models.state",
    "unpacked": "nas_meta.models.state",
}
__getattr__ = lazy_exports(__name__, _EXPORTS)

"""What scikit-learn asks of an estimator besides its methods, so that its tools take a classifier."""

from __future__ import annotations

import dataclasses
from typing import Any

from nas_meta.tasks.examples import TEXT


class Estimator:
    """Base class of a dataclass with the fields ``parts`` and ``fitted`` that scikit-learn's tools take.

    ``cross_val_score``, ``GridSearchCV`` and so on clone a classifier: clones share the model and are not fitted.
    Only scikit-learn calls these methods, so a classifier of an ONNX folder works without it.
    """

    def __sklearn_clone__(self) -> Any:
        return dataclasses.replace(self, fitted=None)  # type: ignore[type-var]

    def __sklearn_is_fitted__(self) -> bool:
        return self.fitted is not None  # type: ignore[attr-defined]

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags

        of_texts = self.parts.preparation.modality == TEXT  # type: ignore[attr-defined]
        return Tags(
            estimator_type="classifier",
            target_tags=TargetTags(required=True),
            classifier_tags=ClassifierTags(),
            input_tags=InputTags(two_d_array=False, one_d_array=of_texts, string=of_texts),
        )

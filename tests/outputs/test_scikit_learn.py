"""scikit-learn's own checks of an estimator, and its tools on a classifier of texts."""

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.base import clone, is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.utils import InputTags
from sklearn.utils.estimator_checks import check_estimator
from sklearn.utils.validation import check_is_fitted

from nas_meta.outputs.classifier.classifier import FewShotClassifier
from nas_meta.outputs.onnx.comparison import compare


class VectorParts:
    """A model whose examples are their own embeddings: scikit-learn's checks pass arrays of numbers."""

    embeds, calibration, name = True, None, "protonet"
    preparation = SimpleNamespace(modality="text", class_names=False, checked=lambda rows, name: list(rows))

    def check_ways(self, classes):
        assert classes > 1

    def embed(self, examples, batch_size, progress):
        return np.stack([np.append(np.asarray(row, np.float64), 1.0) for row in examples])

    def logits(self, support, labels, ways, queries, unlabelled):
        comparison = {"kind": "prototypes", "distance": "euclidean", "normalize": False, "scale": 1.0}
        return compare(comparison, support, labels, ways, queries, unlabelled)


class OfVectors(FewShotClassifier):
    """The classifier, which announces arrays of numbers: scikit-learn would check nothing otherwise."""

    def __init__(self, parts=None, batch_size=64, source="", refuse=None, class_names=None, fitted=None):
        super().__init__(parts or VectorParts(), batch_size, source, refuse, class_names, fitted)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags = InputTags(two_d_array=True)
        return tags


NUMBERS = "examples are texts or images, whose own checks are in test_classifier.py"
OWN_ERRORS = "wrong data are a DataError in one sentence, not a ValueError in scikit-learn's words"
EXCEPTIONS = {  # of scikit-learn's checks that the classifier does not pass, with the reason
    "check_array_api_input": NUMBERS,
    "check_classifier_data_not_an_array": NUMBERS,
    "check_estimator_sparse_array": NUMBERS,
    "check_estimator_sparse_matrix": NUMBERS,
    "check_estimator_sparse_tag": NUMBERS,
    "check_estimators_empty_data_messages": NUMBERS,
    "check_estimators_nan_inf": NUMBERS,
    "check_fit1d": NUMBERS,
    "check_fit2d_predict1d": NUMBERS,
    "check_n_features_in": NUMBERS,
    "check_n_features_in_after_fitting": NUMBERS,
    "check_classifiers_regression_target": OWN_ERRORS,
    "check_classifiers_train": OWN_ERRORS,
    "check_complex_data": OWN_ERRORS,
    "check_requires_y_none": OWN_ERRORS,
    "check_set_params": OWN_ERRORS,
    "check_supervised_y_no_nan": OWN_ERRORS,
    "check_supervised_y_2d": "labels are one per example; a column is not flattened",
    "check_classifiers_one_label": "one class leaves nothing to decide, and is refused",
    "check_fit2d_1sample": "one example has one class, which is refused",
    "check_do_not_raise_errors_in_init_or_set_params": "wrong settings are refused at once, not at the next fit",
    "check_dont_overwrite_parameters": "the support set is the public attribute 'fitted'",
    "check_estimators_partial_fit_n_features": "partial_fit takes new classes at any time, so it has no list of them",
    "check_estimators_unfitted": "the error names fit(texts, labels), and exists without scikit-learn",
    "check_fit_score_takes_y": "the second argument is called labels; scikit-learn's tools pass it by position",
    "check_parameters_default_constructible": "a classifier is loaded with its model: load_classifier(DIR)",
}


@pytest.mark.filterwarnings("ignore:Estimator OfVectors does not inherit")
def test_the_checks_of_scikit_learn_that_apply():
    rows = check_estimator(OfVectors(), expected_failed_checks=EXCEPTIONS, on_fail=None, on_skip=None)
    failed = {row["check_name"]: row["exception"] for row in rows if row["status"] == "failed"}
    assert not failed
    passed = {row["check_name"] for row in rows if row["status"] == "passed"}
    assert not passed & (EXCEPTIONS.keys() - {"check_array_api_input"}), "an exception that is none any more"
    assert {"check_estimator_cloneable", "check_fit_idempotent", "check_methods_sample_order_invariance",
            "check_methods_subset_invariance", "check_dict_unchanged", "check_get_params_invariance",
            "check_classifiers_classes", "check_estimators_pickle"} <= passed  # fmt: skip


class LetterParts(VectorParts):
    """A model that embeds a text as the counts of four letters."""

    preparation = SimpleNamespace(modality="text", class_names=False, checked=lambda texts, name: list(texts))

    def embed(self, examples, batch_size, progress):
        return np.array([[text.count(letter) for letter in "abcd"] for text in examples], np.float64)


def test_texts_are_cross_validated_and_settings_searched_with_clones_that_share_the_model():
    classifier = FewShotClassifier(LetterParts(), source="here")
    texts = np.array(["aab", "aba", "aac", "acaa", "bbc", "bcb", "bbd", "dbb"], dtype=object)
    labels = np.array(["a"] * 4 + ["b"] * 4)
    assert is_classifier(classifier)
    with pytest.raises(NotFittedError):
        check_is_fitted(classifier)
    assert cross_val_score(classifier, texts, labels, cv=2).tolist() == [1.0, 1.0]
    assert classifier.fitted is None, "only its clones were fitted"
    search = GridSearchCV(classifier, {"batch_size": [1, 8]}, cv=2).fit(texts, labels)
    assert search.best_score_ == 1.0 and search.best_estimator_.parts is classifier.parts
    check_is_fitted(search.best_estimator_)
    copy = clone(search.best_estimator_)
    assert copy.fitted is None and copy.batch_size == search.best_params_["batch_size"] and copy.source == "here"

"""The fitted classifier of a command: a model with a support file, or a saved classifier."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nas_meta.errors import ConfigError, DataError

if TYPE_CHECKING:
    from nas_meta.outputs.classifier.classifier import FewShotClassifier


def fitted_classifier(
    model: Path, support: Path | None, fields: tuple[str, str], trial: int | None, allow_plugins: bool,
    refuse: float | None = None, class_names: bool | None = None,
) -> FewShotClassifier:  # fmt: skip
    """Load a classifier and fit it to a support file, if there is one.

    Args:
        model: Exported folder, run directory, or saved classifier.
        support: File with labelled examples; None for a saved classifier.
        fields: Names of the text field and the label field of the file.
        trial: Trial of a run; None for the best.
        allow_plugins: Whether the code of plugin files that the model names may be run.
        refuse: Share of the texts of the classes that may be refused; None keeps the classifier's.
        class_names: Whether the names of classes are examples; None for what the model was trained with.

    Returns:
        The fitted classifier.

    Raises:
        ConfigError: There are no classes, or the model cannot be loaded.
        DataError: The file cannot be used.
    """
    from nas_meta.outputs.classifier.files import read_support
    from nas_meta.outputs.classifier.loading import load_classifier

    labelled = None if support is None else read_support(support, *fields)
    classifier = load_classifier(model, trial=trial, allow_plugins=allow_plugins)
    if class_names is not None and support is None:
        raise ConfigError("the examples of a saved classifier are fixed; expected --support FILE beside --class-names")
    if refuse is not None:
        classifier.set_params(refuse=refuse)
    if labelled is not None:
        try:
            classifier.fit(*labelled, class_names=class_names)
        except DataError as error:
            raise DataError(f"{support}: {error}") from error
    elif classifier.fitted is None:
        raise ConfigError("--support is missing; expected a file with examples, or a saved classifier as MODEL")
    return classifier

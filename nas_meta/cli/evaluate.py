"""``nas-meta evaluate``: the accuracy of a model on episodes or all classes, or of a fitted classifier on a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from nas_meta.cli import options
from nas_meta.cli.opening import named_or_latest
from nas_meta.cli.plugins import print_json
from nas_meta.cli.printing import echo
from nas_meta.core.files import similar_sibling
from nas_meta.errors import ConfigError


def evaluate(
    model: Annotated[
        Optional[Path],
        typer.Argument(
            metavar="MODEL|RUN",
            help="Hugging Face folder of an encoder, run directory, or saved classifier; by default the latest run "
            "under runs/",
        ),
    ] = None,
    config: Annotated[
        Optional[Path],
        typer.Option(
            "--config",
            metavar="CONFIG",
            help="YAML config with the tasks and the learner; by default that of the run or of the exported folder",
        ),
    ] = None,
    trial: Annotated[
        Optional[int], typer.Option("--trial", metavar="ID", help="trial of the run; by default the best")
    ] = None,
    split: Annotated[str, typer.Option("--split", help="meta-train, meta-validation or meta-test")] = "meta-test",
    episodes: Annotated[
        Optional[int],
        typer.Option(
            "--episodes",
            min=2,
            metavar="N",
            help="number of episodes, by default 600, or of full-way draws, by default 10",
        ),
    ] = None,
    shots: options.ShotsOption = None,
    full_way: Annotated[
        bool, typer.Option("--full-way", help="take all classes of the split at once, for ten draws of the support set")
    ] = False,
    open_set: Annotated[
        bool,
        typer.Option(
            "--open-set", help="also measure how well queries of other classes are distinguished (AUROC, FPR95)"
        ),
    ] = False,
    input_: Annotated[
        Optional[Path],
        typer.Option("--input", metavar="FILE", help="labelled CSV or JSON Lines that a saved classifier is tested on"),
    ] = None,
    text: Annotated[str, typer.Option("--text", metavar="NAME", help="text field of the file")] = "text",
    label: Annotated[str, typer.Option("--label", metavar="NAME", help="label field of the file")] = "label",
    set_: options.SetOption = None,
    as_json: options.JsonOption = False,
    allow_plugins: options.AllowOption = False,
) -> None:
    """Measure the few-shot accuracy of a model, or of the best trial of a run, without training it.

    With --input, measure a fitted classifier on a labelled file.
    """
    folder = named_or_latest(model)
    if input_ is not None:
        if config is not None or full_way or open_set or episodes or shots or set_ or trial is not None:
            raise ConfigError(
                "--input tests a saved classifier on a file; expected no --config, --trial, --episodes, --shots, "
                "--full-way or --set beside it"
            )
        show_file(folder, input_, text, label, as_json, allow_plugins)
        return
    protocol = {"split": split, "episodes": episodes, "shots": shots, "full_way": full_way, "open_set": open_set}
    from nas_meta.journal.database import Journal

    if Journal.exists(folder):
        from nas_meta.journal.run import load_run
        from nas_meta.outputs.export.evaluated_trial import evaluate_trial

        row = evaluate_trial(load_run(folder, allow_plugins), trial, config, set_ or (), **protocol)
    else:
        from nas_meta.config.resolved import read_config
        from nas_meta.outputs.export.exported_model import CONFIG, evaluate_folder, exported_config

        if trial is not None:
            raise ConfigError(f"{folder} is not a run, so it has no trial {trial}; expected a run directory")
        if not folder.is_dir():
            hint = similar_sibling(folder) or "; expected an exported model, a run directory or a saved classifier"
            raise ConfigError(f"{folder} is not a folder{hint}")
        if config is None and not (folder / CONFIG).is_file():
            raise ConfigError(
                f"--config is missing, and {folder} has no {CONFIG}; expected a config with the tasks, or a saved "
                "classifier with --input FILE"
            )
        own = read_config(config, set_ or ()) if config else exported_config(folder, set_ or (), allow_plugins)
        row = evaluate_folder(folder, own, **protocol)
    if as_json:
        print_json(row)
    else:
        show_episodes(row)


def show_episodes(row: Mapping[str, Any]) -> None:
    """Print the accuracy of a model on episodes in one sentence, and its open-set metrics in another.

    Args:
        row: What :func:`nas_meta.outputs.export.exported_model.evaluate_folder` returned.
    """
    from nas_meta.evaluation.metrics import METRICS
    from nas_meta.evaluation.protocols import FULL_WAY, task_words

    if row["protocol"] == FULL_WAY:
        words = task_words(None, row["shots"], row["class_names"])
        tasks = f"all {row['ways']} classes of {row['split']} ({words}, 95% interval over "
        tasks += f"{row['episodes']} draws of the support set, {row['queries']:,} queries each)"
    else:
        tasks = f"{row['episodes']} {row['split']} episodes "
        tasks += f"({task_words(row['ways'], row['shots'], row['class_names'])})"
    echo(f"{METRICS['accuracy'].format(row)} on {tasks}, {METRICS['params'].format(row)} parameters", hanging=0)
    if "oos_auroc" in row:
        echo(
            f"queries of other classes: AUROC {row['oos_auroc']:.3f} ± {row['oos_auroc_ci95']:.3f}; a threshold that "
            f"accepts 95 % of the known queries accepts {100 * row['oos_fpr95']:.1f} ± "
            f"{100 * row['oos_fpr95_ci95']:.1f} % of these "
            f"(over {row['oos_episodes']} episodes, {task_words(row['oos_ways'], row['shots'], row['class_names'])})",
            hanging=0,
        )


def show_file(model: Path, file: Path, text: str, label: str, as_json: bool, allow_plugins: bool) -> None:
    """Test a saved classifier on a labelled file and print the result.

    Args:
        model: Folder of the saved classifier.
        file: The labelled file.
        text: Name of its text field.
        label: Name of its label field.
        as_json: Whether to print JSON, with one row per class.
        allow_plugins: Whether the code of plugin files that the model names may be run.

    Raises:
        ConfigError: The folder holds no fitted classifier.
        DataError: The file cannot be read, or a label is not a class of the classifier.
    """
    from nas_meta.outputs.classifier.files import read_labelled
    from nas_meta.outputs.classifier.loading import load_classifier
    from nas_meta.outputs.classifier.scoring import score_on

    texts, labels = read_labelled(file, text, label)
    classifier = load_classifier(model, allow_plugins=allow_plugins)
    if classifier.fitted is None:
        raise ConfigError(
            f"{model} is not a fitted classifier; expected a folder that 'nas-meta classify --save' wrote, or --config "
            "to evaluate the model on episodes"
        )
    row: dict[str, Any] = {"model": str(model), "input": str(file), **score_on(classifier, texts, labels, str(file))}
    if as_json:
        print_json(row)
    else:
        low, high = (100 * end for end in row["accuracy_interval"])
        echo(
            f"{100 * row['accuracy']:.1f} % of {row['examples']:,} examples are classified correctly "
            f"(95% interval over examples {low:.1f} to {high:.1f} %)"
            + (f"; {row['refused']:,} were refused" if row["refused"] else ""),
            hanging=0,
        )

"""Write the model card (``README.md``) of an exported folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas_meta.config.resolved import Config
from nas_meta.core.wording import counted
from nas_meta.errors import one_line
from nas_meta.evaluation.metrics import ACCURACY, METRICS, shown_metrics
from nas_meta.evaluation.protocols import task_words
from nas_meta.journal.records import Trial
from nas_meta.journal.run import Run
from nas_meta.journal.verdict import verdict_of
from nas_meta.models.inputs import describe_inputs
from nas_meta.outputs.export.own_code import names_code
from nas_meta.space.search_space import SearchSpace
from nas_meta.tasks.examples import IMAGE, IMAGE_TEXT, TEXT

if TYPE_CHECKING:
    from nas_meta.evaluation.calibration import Calibration

CARD = """---
library_name: transformers
pipeline_tag: {tag}
tags: [few-shot, neural-architecture-search, nas-meta]
---
# {title}

A {space}, found by nas-meta and meta-trained with `{learner}` for {steps} on episodes ({episodes})
from `{source}`.

| | |
| --- | --- |
{metrics}
{verdict}
Learn classes from a few examples and classify, with the package `nas-meta`:

```python
import nas_meta

classifier = nas_meta.load_classifier("{folder}").fit(examples, labels)
print(classifier.predict(new_examples))
```
{calibrated}
Embeddings are {embeddings}:

```python
{loading}```
{note}
## Architecture

```json
{architecture}
```
"""


LOADING = """from transformers import {classes}

{preparing}
model = AutoModel.from_pretrained("{folder}"{own_code})
"""


PREPARING = {
    "AutoTokenizer": 'tokenizer = AutoTokenizer.from_pretrained("{folder}")',
    "AutoImageProcessor": 'processor = AutoImageProcessor.from_pretrained("{folder}")',
}


CLASSES = {
    TEXT: ("AutoTokenizer",), IMAGE: ("AutoImageProcessor",), IMAGE_TEXT: ("AutoImageProcessor", "AutoTokenizer"),
}  # fmt: skip


EMBEDDINGS = {
    (TEXT, "mean"): "the mean of the last hidden state over the tokens of the attention mask",
    (TEXT, "cls"): "the last hidden state of the first token",
    (TEXT, "last"): "the last hidden state of the last token of the attention mask",
    (TEXT, "attention"): "the `pooler_output` of the model: the last hidden state, averaged with learned weights",
    (IMAGE, "mean"): "the mean of the last hidden state over its positions",
    (IMAGE, "cls"): "the first position of the last hidden state",
    (IMAGE, "last"): "the last position of the last hidden state",
    (IMAGE, "attention"): "the last hidden state, averaged with learned weights",
} | {
    (IMAGE_TEXT, pooling): "the output of the model for `pixel_values`, `input_ids` and `attention_mask`"
    for pooling in ("mean", "cls", "last", "attention")
}


LAYERS_NOTE = """
The layers differ in size, which no config of transformers can describe: `modeling_subnet.py` in this folder builds them
from `config.json`. It needs torch and transformers only. Sentence Transformers loads the model with
`SentenceTransformer("{folder}", trust_remote_code=True)`.
"""


DECODER_NOTE = """
`AutoModelForCausalLM` loads the model with its language-model head.
"""


NOTES = {'"nas_meta_layers"': LAYERS_NOTE, 'ForCausalLM"': DECODER_NOTE}  # by a text in the folder's config.json


def metric_rows(run: Run, trial: Trial, inputs: str) -> list[str]:
    """List the metrics of a trial as rows of a Markdown table.

    Args:
        run: The run.
        trial: The trial.
        inputs: Inputs for which FLOPs are counted, such as ``1 × 32 tokens``.

    Returns:
        Rows with the accuracies, exact counts, and the other objectives of the search.
    """
    accuracy = METRICS[ACCURACY]
    test = accuracy.format(run.test_of(trial), prefix="test_") or "not measured"
    rows = [("meta-validation accuracy", accuracy.format(trial.metrics)), ("meta-test accuracy", test)]
    if final := kept_training(run, trial):
        rows.insert(1, ("meta-validation accuracy after the final training", accuracy.format(final["metrics"])))
    rows += [
        ("parameters of the architecture", f"{int(trial.metrics['params']):,}"),
        (f"FLOPs for {inputs}", f"{int(trial.metrics['flops']):,}"),
    ]
    others = [m for m in shown_metrics([o.metric for o in run.objectives], trial.metrics) if not m.overview]
    rows += [(metric.title, metric.format(trial.metrics)) for metric in others]
    return [f"| {name} | {value} |" for name, value in rows if value]


def model_card(
    run: Run, trial: Trial, space: SearchSpace, folder: Path, config: Config, calibration: Calibration | None = None
) -> str:
    """Return the model card of a trial in Markdown.

    Args:
        run: The run.
        trial: The exported trial.
        space: Space of the run.
        folder: Exported folder with ``config.json``.
        config: Config of the trial, with its searched hyperparameters filled in.
        calibration: The calibration of the model; None without one.
    """
    sizes = (folder / "config.json").read_text(encoding="utf-8")
    preparing = CLASSES[space.modality]
    # Where transformers does not know the model, its config.json holds the Python code that loads it.
    own_loading = json.loads(sizes).get("nas_meta_loading")
    loading = own_loading or LOADING.format(
        classes=", ".join(sorted(("AutoModel", *preparing))),
        preparing="\n".join(PREPARING[name].format(folder=folder.name) for name in preparing),
        folder=folder.name,
        own_code=", trust_remote_code=True" if names_code(folder) else "",
    )
    card = CARD.format(
        title=folder.name,
        space=f"model of the space `{config.space.name}`",
        learner=config.learner.name,
        steps=steps_taken(run, trial),
        episodes=task_words(config.tasks.ways, config.tasks.shots, config.tasks.class_names),
        source=config.tasks.source,
        metrics="\n".join(metric_rows(run, trial, describe_inputs(space, 1, config.evaluation.flops_tokens))),
        verdict=_verdict(run, trial),
        calibrated=_calibrated(calibration),
        embeddings=EMBEDDINGS[space.modality, config.tasks.pooling],
        tag="image-feature-extraction" if space.modality == IMAGE else "feature-extraction",
        folder=folder.name,
        loading=loading,
        note="".join(note.format(folder=folder.name) for text, note in NOTES.items() if text in sizes),
        architecture=json.dumps(dict(trial.architecture), indent=1),
    )
    return card.replace("library_name: transformers", "library_name: nas-meta") if own_loading else card


def kept_training(run: Run, trial: Trial) -> Mapping[str, Any] | None:
    """Return the final training whose weights a trial has.

    Args:
        run: The run.
        trial: The trial.

    Returns:
        Its entry of :attr:`nas_meta.journal.run.Run.final_training`; None if the trial has the weights of the search.
    """
    final = run.final_training.get(trial.id)
    return final if final and final["kept"] else None


def steps_taken(run: Run, trial: Trial) -> str:
    """Return how many steps the weights of a trial were trained for, in words.

    Args:
        run: The run.
        trial: The trial.
    """
    final = kept_training(run, trial)
    return counted(trial.fidelity, "step") + (f", then for {final['options'].get('steps')} more," if final else "")


def _calibrated(calibration: Calibration | None) -> str:
    """Return the paragraph about probabilities and refused answers; empty without a calibration."""
    if calibration is None:
        return ""
    m = calibration.measured
    return (
        "\nProbabilities are calibrated on meta-validation: on meta-test, the expected calibration error is "
        f"{m['ece_after']:.3f}, and {m['ece_before']:.3f} before. With `fit(examples, labels, refuse=0.05)`, `predict` "
        f"gives None for texts of no class: {100 * m['refused']:.1f} % of the meta-test queries of known classes were "
        f"refused (at most 5 % are meant to be), and scores tell queries of other classes apart with an AUROC of "
        f"{m['oos_auroc']:.3f} (95 % of the known ones accepted: {100 * m['oos_fpr95']:.0f} % of the others, too).\n"
    )


def _verdict(run: Run, trial: Trial) -> str:
    """Return the paragraph that says what the trial is worth; empty if its run does not know."""
    verdict = one_line(verdict_of(run.report, trial))
    return f"\n{verdict}\n" if verdict else ""

"""Adapt architecture and weights to the task of a user's support set, with a run that meta-learned both (MetaNAS)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from nas_meta.config.components import make_evaluation, make_strategy
from nas_meta.config.environment import shareable
from nas_meta.config.gpu_sharing import on_this_machine
from nas_meta.config.problem import load_problem
from nas_meta.core.files import make_public, refuse_occupied
from nas_meta.errors import ConfigError, DataError, RunError, nearest
from nas_meta.journal.run import Run
from nas_meta.outputs.changes import warn_of_changes
from nas_meta.outputs.export.exported_model import CONFIG
from nas_meta.outputs.export.own_code import drop_foreign_code, names_code
from nas_meta.outputs.export.sentence_transformer import write_modules
from nas_meta.strategy.protocol import Adapted, Strategy
from nas_meta.tasks.class_names import merge_names
from nas_meta.tasks.examples import MODALITIES, TEXT
from nas_meta.tasks.source import Classes, SplitClasses, TaskSource
from nas_meta.tasks.sources.files import CSV, FileOptions, JSONLines
from nas_meta.tasks.tokenization import load_tasks, load_tokenizer, text_encoder, with_name_rows

HEAD = "head.safetensors"
LABELS = "labels.json"
READERS = {".jsonl": JSONLines, ".csv": CSV, ".json": JSONLines, ".tsv": CSV}
CARD = """---
library_name: transformers
tags: [few-shot, neural-architecture-search, nas-meta]
---
# {title}

Architecture and weights were adapted by nas-meta to one task: {examples} examples of {classes} classes.

```python
import json, torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{title}")
model = AutoModel.from_pretrained("{title}"{own_code}).eval()
head, labels = load_file("{title}/{head}"), json.load(open("{title}/{labels}"))
batch = tokenizer(["a text"], return_tensors="pt", padding=True)
batch.pop("token_type_ids", None)
with torch.no_grad():
    states, mask = model(**batch).last_hidden_state, batch["attention_mask"].unsqueeze(-1)
    z = torch.nn.functional.normalize({pooled}, dim=-1)
    print([labels[i] for i in (z @ head["weight"].T + head["bias"]).argmax(1)])
```

## Architecture

```json
{architecture}
```
"""
POOLED = {
    "mean": "(states * mask).sum(1) / mask.sum(1)",
    "cls": "states[:, 0]",
    "last": "states[torch.arange(len(states)), mask.sum(1).flatten() - 1]",
    "attention": "(states * (model.pooling_scores(states)[..., None] + mask.log()).softmax(1)).sum(1)",
}


class _GivenClasses(TaskSource):
    """A source whose classes are given and all in meta-test, without a minimum of examples."""

    def __init__(self, classes: Classes):
        super().__init__()
        self.classes = classes

    def read(self) -> Classes:
        return self.classes

    def load(self) -> SplitClasses:
        return SplitClasses({"meta-train": {}, "meta-validation": {}, "meta-test": self.classes})


@dataclass(frozen=True)
class TaskModel:
    """Model for one task, as :func:`adapt` wrote it.

    Attributes:
        folder: Folder of the model.
        labels: Class names; the position is the index of the class.
        architecture: Values by choice.
        params: Number of parameters.
        accuracy: Accuracy on the query file, from 0 to 1; None without a query file.
        examples: Number of examples in the query file.
    """

    folder: Path
    labels: list[str]
    architecture: dict[str, Any]
    params: int
    accuracy: float | None = None
    examples: int = 0


def adapt(
    run: Run, support: Path, folder: Path, query: Path | None = None, text: str = "text", label: str = "label"
) -> TaskModel:
    """Adapt the supernet of a run to a support set and write the model as a Hugging Face folder.

    The classifier is written to ``head.safetensors``, the class names to ``labels.json``;
    :func:`nas_meta.load_classifier` reads the folder. With ``tasks.class_names``, the name of each class is one more
    support example.

    Args:
        run: A finished run of the strategy ``metanas``, on texts.
        support: JSON Lines or CSV file with a few examples of every class, of at least two classes.
        folder: New or empty folder.
        query: File with more examples of the same classes, to measure the accuracy on.
        text: Name of the text field in both files.
        label: Name of the label field in both files.

    Returns:
        The model.

    Raises:
        ConfigError: The strategy of the run does not adapt architectures to tasks, or the run is not on texts.
        RunError: The run has no trained supernet, or the folder is not empty.
        DataError: A file cannot be read, has another format, or holds unexpected classes.
    """
    from nas_meta.models.profiling import parameters

    strategy_class, name = run.config.plugin("strategy"), run.config.sections.strategy.name
    if strategy_class.adapted is Strategy.adapted:
        raise ConfigError(
            f"{run.directory} was searched with the strategy '{name}', which does not adapt architectures to tasks; "
            "expected a run of metanas"
        )
    if run.supernet is None or not run.findings:
        raise RunError(f"{run.directory} has no trained supernet yet; expected a finished search")
    refuse_occupied(folder)
    classes = read_examples(support, text, label)
    if len(classes) < 2:
        raise DataError(f"{support} has one class, '{next(iter(classes))}'; expected at least two classes")
    config = run.config.sections
    warn_of_changes(run)
    space, tasks, shape = load_problem(run.config)
    if space.modality != TEXT:
        raise ConfigError(f"{run.directory} was searched on {MODALITIES[space.modality]}; expected a run on texts")
    evaluation = make_evaluation(on_this_machine(run.config), space, tasks, shape, cpus=0, trains=False)
    strategy = make_strategy(run.config, space)
    strategy.receive(run.findings, run.supernet)
    tokenizer = load_tokenizer(space.tokenizer)
    pool = load_tasks(_GivenClasses(classes), tokenizer, config.tasks.max_tokens)["meta-test"]
    if config.tasks.class_names:  # as in the episodes that the supernet was trained on
        pool = with_name_rows(pool, text_encoder(tokenizer, config.tasks.max_tokens))
    rows = [np.flatnonzero(pool.labels == label) for label in range(len(classes))]
    adapted = strategy.adapted(evaluation, pool, rows)
    correct = None
    if query is not None:
        queries = _read_queries(query, text, label, classes, support)
        correct = _correct(adapted, evaluation.pooling, queries, tokenizer, run)
    _save(adapted, space, folder, classes, tokenizer, config.tasks.pooling)
    chosen = run.config.at(adapted.architecture, space.pooling(adapted.architecture))
    (folder / CONFIG).write_text(yaml.safe_dump(shareable(chosen.document), sort_keys=False), encoding="utf-8")
    write_modules(folder, config.tasks.pooling, adapted.weight.shape[1], config.tasks.max_tokens, normalized=True)
    return TaskModel(
        folder, list(classes), dict(adapted.architecture.values), parameters(adapted.model),
        None if correct is None else float(correct.mean()), 0 if correct is None else len(correct),
    )  # fmt: skip


def read_examples(file: Path, text: str, label: str) -> Classes:
    """Read the examples of a JSON Lines or CSV file.

    Args:
        file: File that ends with ``.jsonl`` or ``.csv``.
        text: Name of the text field.
        label: Name of the label field.

    Returns:
        Distinct examples by class; classes are sorted by name.

    Raises:
        DataError: The file has another ending or cannot be read.
    """
    if file.suffix not in READERS:
        raise DataError(f"{file} is not a supported file; expected a file that ends with {' or '.join(READERS)}")
    examples, _ = merge_names(READERS[file.suffix](FileOptions(path=file, text=text, label=label)).examples())
    return {name: list(dict.fromkeys(examples[name])) for name in sorted(examples)}


def _read_queries(file: Path, text: str, label: str, classes: Classes, support: Path) -> Classes:
    """Read the query examples, in the class order of the support set."""
    examples = read_examples(file, text, label)
    for name in examples:
        if name not in classes:
            raise DataError(f"{file}: the class '{name}' is not in {support}; {nearest(name, classes)}")
    return {name: examples.get(name, []) for name in classes}


def _correct(adapted: Adapted, pooling: str, classes: Classes, tokenizer: Any, run: Run) -> np.ndarray:
    """Return ``[examples]`` booleans: whether each example is classified correctly."""
    import torch
    import torch.nn.functional as F

    from nas_meta.models.encoder import Encoder

    pool = load_tasks(_GivenClasses(classes), tokenizer, run.config.sections.tasks.max_tokens)["meta-test"]
    with torch.inference_mode():
        z = Encoder(adapted.model, pooling).eval().embed(pool, np.arange(len(pool)), rows=64)
        logits = F.linear(F.normalize(z, dim=-1), adapted.weight, adapted.bias)
    return logits.argmax(1).cpu().numpy() == pool.labels


def _save(adapted: Adapted, space: Any, folder: Path, classes: Classes, tokenizer: Any, pooling: str) -> None:
    """Write the model, its tokenizer, its classifier and a model card."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    space.save(adapted.model, adapted.architecture, folder)
    tokenizer.save_pretrained(folder)
    drop_foreign_code(folder)
    save_file({"weight": adapted.weight.cpu().contiguous(), "bias": adapted.bias.cpu().contiguous()}, folder / HEAD)
    (folder / LABELS).write_text(json.dumps(list(classes), ensure_ascii=False), encoding="utf-8")
    card = CARD.format(
        title=folder.name, examples=sum(map(len, classes.values())), classes=len(classes), head=HEAD, labels=LABELS,
        own_code=", trust_remote_code=True" if names_code(folder) else "",
        pooled=POOLED[pooling], architecture=json.dumps(dict(adapted.architecture.values), indent=1),
    )  # fmt: skip
    (folder / "README.md").write_text(card, encoding="utf-8")
    make_public(folder)

"""A model with an architecture of its own for the task of a user's support set, from a run that meta-learned both."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nas_meta.config.components import make_evaluation, make_strategy
from nas_meta.config.problem import load_problem
from nas_meta.errors import ConfigError, DataError, RunError, nearest
from nas_meta.journal.run import Run
from nas_meta.outputs.export.sentence_transformer import write_modules
from nas_meta.strategy.protocol import Adapted, Strategy
from nas_meta.tasks.examples import MODALITIES, TEXT
from nas_meta.tasks.source import Classes, SplitClasses, TaskSource
from nas_meta.tasks.sources.files import CSV, FileOptions, JSONLines
from nas_meta.tasks.tokenization import load_tasks, load_tokenizer

HEAD = "head.safetensors"
LABELS = "labels.json"
READERS = {".jsonl": JSONLines, ".csv": CSV}
CARD = """---
library_name: transformers
tags: [few-shot, neural-architecture-search, nas-meta]
---
# {title}

Adapted by nas-meta to {examples} examples of {classes} classes; weights and architecture are the task's own.

```python
import json, torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{title}")
model = AutoModel.from_pretrained("{title}", trust_remote_code=True).eval()
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


class _OneTask(TaskSource):
    """Classes as they are, none left out: a support set is small."""

    def __init__(self, classes: Classes):
        super().__init__()
        self.classes = classes

    def read(self) -> Classes:
        return self.classes

    def load(self) -> SplitClasses:
        return SplitClasses({"meta-train": {}, "meta-validation": {}, "meta-test": self.classes})


@dataclass(frozen=True)
class TaskModel:
    """What :func:`adapt` found; ``accuracy`` on the query file, where there is one."""

    folder: Path
    labels: list[str]
    architecture: dict[str, Any]
    params: int
    accuracy: float | None = None
    examples: int = 0


def adapt(
    run: Run, support: Path, folder: Path, query: Path | None = None, text: str = "text", label: str = "label"
) -> TaskModel:
    """Adapts a run's supernet to a support set and writes the model as a Hugging Face folder, its head beside it.

    Args:
        support: JSON Lines or CSV, some examples of every class.
        folder: must not exist, or be empty.
        query: more examples of the same classes, to measure the accuracy on.
        text, label: names of the fields in both files.

    Raises:
        ConfigError: the run's strategy gives tasks no architectures of their own.
        RunError: the run has no trained supernet, or the folder is not empty.
        DataError: a file cannot be used.
    """
    from nas_meta.models.profiling import parameters

    strategy_class, name = run.config.plugin("strategy"), run.config.sections.strategy.name
    if strategy_class.adapted is Strategy.adapted:
        raise ConfigError(
            f"{run.directory} was searched with the strategy '{name}', which gives tasks no architecture of their own; "
            "expected a run of metanas"
        )
    if run.supernet is None or not run.findings:
        raise RunError(f"{run.directory} has no trained supernet yet; let the search finish")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(f"{folder} is not an empty folder; name another one with --to")
    classes = read_examples(support, text, label)
    if len(classes) < 2:
        raise DataError(f"{support} has one class, '{next(iter(classes))}'; expected at least two")
    config = run.config.sections
    space, tasks, shape = load_problem(run.config)
    if space.modality != TEXT:
        raise ConfigError(f"{run.directory} was searched on {MODALITIES[space.modality]}; expected a run on texts")
    evaluation = make_evaluation(run.config, space, tasks, shape, cpus=0)
    strategy = make_strategy(run.config, space)
    strategy.receive(run.findings, run.supernet)
    tokenizer = load_tokenizer(space.tokenizer)
    pool = load_tasks(_OneTask(classes), tokenizer, config.tasks.max_tokens)["meta-test"]
    made = strategy.adapted(evaluation, pool, pool.members)
    scores = None
    if query is not None:
        scores = _scores(made, evaluation.pooling, _queries(query, text, label, classes, support), tokenizer, run)
    _save(made, space, folder, classes, tokenizer, config.tasks.pooling)
    write_modules(folder, config.tasks.pooling, made.weight.shape[1], config.tasks.max_tokens, normalized=True)
    return TaskModel(
        folder, list(classes), dict(made.architecture.values), parameters(made.model),
        None if scores is None else float(scores.mean()), 0 if scores is None else len(scores),
    )  # fmt: skip


def read_examples(file: Path, text: str, label: str) -> Classes:
    """The examples of a JSON Lines or CSV file by class, in the order of their names.

    Raises:
        DataError: it is another kind of file, or cannot be used.
    """
    if file.suffix not in READERS:
        raise DataError(f"{file} is neither {' nor '.join(READERS)}; expected one of these")
    found = READERS[file.suffix](FileOptions(path=file, text=text, label=label)).read()
    return {name: list(dict.fromkeys(found[name])) for name in sorted(found)}


def _queries(file: Path, text: str, label: str, classes: Classes, support: Path) -> Classes:
    found = read_examples(file, text, label)
    for name in found:
        if name not in classes:
            raise DataError(f"{file}: the class '{name}' is not in {support}; {nearest(name, classes)}")
    return {name: found.get(name, []) for name in classes}


def _scores(made: Adapted, pooling: str, classes: Classes, tokenizer: Any, run: Run) -> np.ndarray:
    """``[examples]``: whether each is classified correctly."""
    import torch
    import torch.nn.functional as F

    from nas_meta.models.encoder import Encoder

    pool = load_tasks(_OneTask(classes), tokenizer, run.config.sections.tasks.max_tokens)["meta-test"]
    with torch.inference_mode():
        z = Encoder(made.model, pooling).eval().embed(pool, np.arange(len(pool)), rows=64)
        logits = F.linear(F.normalize(z, dim=-1), made.weight, made.bias)
    return logits.argmax(1).cpu().numpy() == pool.labels


def _save(made: Adapted, space: Any, folder: Path, classes: Classes, tokenizer: Any, pooling: str) -> None:
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    space.save(made.model, made.architecture, folder)
    tokenizer.save_pretrained(folder)
    save_file({"weight": made.weight.cpu().contiguous(), "bias": made.bias.cpu().contiguous()}, folder / HEAD)
    (folder / LABELS).write_text(json.dumps(list(classes), ensure_ascii=False), encoding="utf-8")
    card = CARD.format(
        title=folder.name, examples=sum(map(len, classes.values())), classes=len(classes), head=HEAD, labels=LABELS,
        pooled=POOLED[pooling], architecture=json.dumps(dict(made.architecture.values), indent=1),
    )  # fmt: skip
    (folder / "README.md").write_text(card, encoding="utf-8")

"""The gates of an ONNX folder in words, and its model card."""

from __future__ import annotations

from nas_meta.config.resolved import Config
from nas_meta.errors import one_line
from nas_meta.evaluation.protocols import task_words
from nas_meta.journal.records import Trial
from nas_meta.journal.run import Run
from nas_meta.journal.verdict import verdict_of
from nas_meta.models.inputs import describe_inputs
from nas_meta.models.onnx.forms import NONE
from nas_meta.outputs.export.model_card import metric_rows, steps_taken
from nas_meta.outputs.onnx.gates import Latency, has_vnni
from nas_meta.outputs.onnx.model import Gates
from nas_meta.space.search_space import SearchSpace
from nas_meta.tasks.examples import MODALITIES, TEXT

CARD = """---
library_name: onnx
pipeline_tag: {tag}
tags: [few-shot, neural-architecture-search, nas-meta, onnx]
---
# {title}

A model of the space `{space}`, found by nas-meta and meta-trained with `{learner}` for {steps} on episodes
({episodes}) from `{source}`; {what}.

| | |
| --- | --- |
{metrics}
{verdict}
The accuracies above are those of the torch model. Measured when this folder was written:

{gates}

Learn classes from a few examples and classify, with `nas-meta`, `onnxruntime` and `tokenizers`, without torch and
transformers:

```python
import nas_meta

classifier = nas_meta.load_classifier("{title}").fit(examples, labels)
print(classifier.predict(new_examples))
```

`model.onnx` takes {inputs} and returns `sentence_embedding`{unit}.
"""


def gate_lines(gates: Gates) -> list[str]:
    """Return what was measured, one line each.

    Args:
        gates: The measurements.
    """
    what, settings = MODALITIES[gates.modality], gates.settings
    lines = [f"float32 graph: largest difference from torch {gates.difference:.1e} over {gates.examples} {what}"]
    size = f"{gates.bytes:,} bytes"
    if gates.paired is not None:
        judged = gates.paired
        size += f", {gates.float_bytes / gates.bytes:.2f} times smaller than float32"
        lines.append(
            f"{gates.quantization}: {judged.accuracy:.2f} % on {judged.episodes} meta-test episodes, torch "
            f"{judged.reference:.2f} %; paired difference {judged.difference:+.2f} ± {judged.half:.2f} points"
        )
    lines.append(f"size of model.onnx: {size}")
    length = f" of {settings.tokens} tokens" if gates.modality == TEXT else ""
    lines.append(
        f"latency of a batch of {settings.batch}{length} on {settings.threads} "
        f"{'thread' if settings.threads == 1 else 'threads'}: {_time(gates.onnx)}, torch {_time(gates.torch)}; "
        f"{gates.torch.median / gates.onnx.median:.2f} times as fast"
    )
    vnni = "with VNNI" if has_vnni(gates.flags) else "without VNNI"
    lines.append(f"CPU: {gates.cpu}, {vnni} ({' '.join(gates.flags) or 'no flags known'})")
    return lines


def onnx_card(run: Run, trial: Trial, space: SearchSpace, config: Config, title: str, unit: bool, gates: Gates) -> str:
    """Return the model card of an ONNX folder in Markdown.

    Args:
        run: The run.
        trial: The exported trial.
        space: Space of the run.
        config: Config of the trial.
        title: Name of the folder.
        unit: Whether embeddings have unit norm.
        gates: What was measured.
    """
    inputs = {"text": ["input_ids", "attention_mask"], "image": ["pixel_values"]}
    names = inputs.get(gates.modality) or [*inputs["text"], *inputs["image"]]
    verdict = one_line(verdict_of(run.report, trial))
    quantized = "an ONNX graph in float32" if gates.quantization == NONE else f"an ONNX graph in {gates.quantization}"
    return CARD.format(
        title=title,
        tag="image-feature-extraction" if gates.modality == "image" else "feature-extraction",
        space=config.space.name, learner=config.learner.name, steps=steps_taken(run, trial),
        episodes=task_words(config.tasks.ways, config.tasks.shots, config.tasks.class_names),
        source=config.tasks.source, what=quantized,
        metrics="\n".join(metric_rows(run, trial, describe_inputs(space, 1, config.evaluation.flops_tokens))),
        verdict=f"\n{verdict}\n" if verdict else "",
        gates="\n".join(f"- {line}" for line in gate_lines(gates)),
        inputs=", ".join(f"`{name}`" for name in names),
        unit=", scaled to unit norm" if unit else "",
    )  # fmt: skip


def _time(latency: Latency) -> str:
    """Format a latency."""
    return f"{1000 * latency.median:.2f} ms (95th percentile {1000 * latency.p95:.2f} ms)"

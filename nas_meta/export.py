"""The winner as a Hugging Face folder, and any such folder scored on episodes."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas_meta.config.compatibility import check_images, check_source
from nas_meta.config.components import episode_shape, make_evaluation, make_space, prompted
from nas_meta.config.resolved import Config, ResolvedConfig
from nas_meta.errors import ConfigError, PluginError, RunError
from nas_meta.journal.records import Trial
from nas_meta.journal.run import Run
from nas_meta.models.compute import Compute
from nas_meta.models.inputs import described
from nas_meta.space.architecture import Architecture
from nas_meta.space.search_space import SearchSpace
from nas_meta.space.wrappers import name_of
from nas_meta.tasks.examples import IMAGE, IMAGE_TEXT, TEXT

if TYPE_CHECKING:
    import torch

    from nas_meta.models.encoder import Encoder

LEARNED = "learner.safetensors"
CONFIG = "nas_meta.yaml"
CARD = """---
library_name: transformers
pipeline_tag: {tag}
tags: [few-shot, neural-architecture-search, nas-meta]
---
# {title}

A {space} found by nas-meta: meta-trained with `{learner}` for {steps} steps of {ways}-way {shots}-shot episodes of
`{source}`.

| | |
| --- | --- |
| meta-validation accuracy | {accuracy} |
| meta-test accuracy | {test} |
| parameters of the architecture | {params:,} |
| FLOPs for {inputs} | {flops:,} |

Embeddings are {embeddings}:

```python
from transformers import {classes}

{preparing}
model = AutoModel.from_pretrained("{folder}"{own_code})
```
{note}
## Architecture

```json
{architecture}
```
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
    (TEXT, "attention"): "the model's `pooler_output`: the last hidden state averaged by scores of tokens",
    (IMAGE, "mean"): "the mean of the last hidden state",
    (IMAGE, "cls"): "the first of the last hidden state",
    (IMAGE, "last"): "the last of the last hidden state",
    (IMAGE, "attention"): "the last hidden state, averaged by scores of its parts",
} | {
    (IMAGE_TEXT, pooling): "what the model returns of `pixel_values`, `input_ids` and `attention_mask`"
    for pooling in ("mean", "cls", "last", "attention")
}
SLICED_NOTE = """
Heads and neurons that the architecture does not have are stored as zeros, so that plain transformers loads it. With
nas-meta installed, `search_spaces.slicing.load_sliced("{folder}")` cuts them out: the same outputs, smaller and faster.
"""
DECODER_NOTE = """
`AutoModelForCausalLM` loads it with its head. Where layers differ in size, the smaller ones are filled up with zeros;
with nas-meta installed, `search_spaces.decoder_slicing.load_sliced("{folder}")` cuts them out: the same outputs.
"""
NOTES = {"nas_meta_widths": SLICED_NOTE, "decoder_widths": DECODER_NOTE}  # by a key of the folder's config.json


def export(run: Run, folder: str | Path, trial_id: int | None = None) -> Path:
    """Writes a trained model, its tokenizer and image processor where it takes texts and images, and a model card.

    Args:
        folder: must not exist, or be empty.
        trial_id: by default the best trial.

    Raises:
        RunError: the trial's weights were not kept, or the folder is not empty.
        PluginError: the space writes no Hugging Face folder.
    """
    folder = Path(folder)
    trial = run.best if trial_id is None else run.trial(trial_id)
    weights = run.weights_of(trial)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(f"{folder} is not an empty folder; name another one with --to")
    from safetensors.torch import save_file

    from nas_meta.models.adapters import removed
    from nas_meta.tasks.sources.images import save_processor
    from nas_meta.tasks.tokenization import load_tokenizer

    space = make_space(run.config)
    architecture = Architecture(trial.architecture)
    evaluation = make_evaluation(run.config, space, None, episode_shape(run.config), cpus=0)
    encoder = dataclasses.replace(evaluation, compute=Compute()).restored(architecture, weights).eval()
    folder.mkdir(parents=True, exist_ok=True)
    if learned := learned_state(encoder):
        save_file(learned, folder / LEARNED)
    # What the learner put into the model stands in the learner's file; the space saves what it built.
    model = removed(encoder.model, merge=False) if encoder.inserted else encoder.model
    space.save(model, architecture, folder)
    if not (folder / "config.json").is_file():
        raise PluginError(f"{name_of(space)}.save() wrote no config.json; expected a Hugging Face folder")
    if space.modality != IMAGE:
        load_tokenizer(space.tokenizer).save_pretrained(folder)
    if space.modality != TEXT:
        save_processor(space.image_shape, folder)
    config = run.config.at(architecture, space.pooling(architecture))
    (folder / CONFIG).write_text(config.as_yaml(), encoding="utf-8")
    (folder / "README.md").write_text(model_card(run, trial, space, folder, config.config), encoding="utf-8")
    return folder


def learned_state(encoder: Encoder) -> dict[str, torch.Tensor]:
    """What the learner learned beside the space's model: its head, rates or memory, and the adapters it put in."""
    own = {f"model.{name}" for name in encoder.inserted}
    return {n: t.contiguous() for n, t in encoder.state_dict().items() if n.startswith("learned.") or n in own}


def restore_learned(encoder: Encoder, state: dict[str, torch.Tensor], config: ResolvedConfig, folder: Path) -> None:
    """Takes over what :func:`learned_state` gave.

    Raises:
        ConfigError: it is not what the config's learner learns.
    """
    own = learned_state(encoder)
    if {n: t.shape for n, t in own.items()} != {n: t.shape for n, t in state.items()}:
        raise ConfigError(
            f"{Path(folder) / LEARNED} does not fit the learner '{config.config.learner.name}' with "
            f"{config.config.tasks.ways} ways; evaluate with the config it was trained with, {Path(folder) / CONFIG}"
        )
    encoder.load_state_dict(state, strict=False)


def model_card(run: Run, trial: Trial, space: SearchSpace, folder: Path, config: Config) -> str:
    """The model card of a trial, whose own config that is, in Markdown."""
    test = run.test_of(trial)
    sizes = (folder / "config.json").read_text(encoding="utf-8")
    preparing = CLASSES[space.modality]
    card = CARD.format(
        title=folder.name,
        space=f"model of the space `{config.space.name}`",
        learner=config.learner.name,
        steps=trial.fidelity,
        ways=config.tasks.ways,
        shots=config.tasks.shots,
        source=config.tasks.source,
        accuracy=percent(trial.metrics["accuracy"], trial.metrics["accuracy_ci95"]),
        test=percent(test["test_accuracy"], test["test_accuracy_ci95"]) if test else "not measured",
        params=int(trial.metrics["params"]),
        flops=int(trial.metrics["flops"]),
        inputs=described(space, 1, config.evaluation.flops_tokens),
        embeddings=EMBEDDINGS[space.modality, config.tasks.pooling],
        tag="image-feature-extraction" if space.modality == IMAGE else "feature-extraction",
        classes=", ".join(sorted(("AutoModel", *preparing))),
        preparing="\n".join(PREPARING[name].format(folder=folder.name) for name in preparing),
        folder=folder.name,
        own_code=", trust_remote_code=True" if '"auto_map"' in sizes else "",
        note="".join(note.format(folder=folder.name) for key, note in NOTES.items() if f'"{key}"' in sizes),
        architecture=json.dumps(dict(trial.architecture), indent=1),
    )
    loading = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("nas_meta_loading")
    if loading is None:
        return card
    # A model that transformers does not know: its space says in Python how it is loaded.
    before, _, after = re.split("(?<=```python\n)(.*?)(?=```)", card, maxsplit=1, flags=re.DOTALL)
    return before.replace("library_name: transformers", "library_name: nas-meta") + loading + after


def percent(accuracy: float, interval: float) -> str:
    """An accuracy with its 95% interval, in percent."""
    return f"{100 * accuracy:.1f} ± {100 * interval:.1f} %"


def evaluate_folder(
    folder: str | Path,
    config: ResolvedConfig,
    split: str = "meta-test",
    episodes: int = 600,
    shots: int | None = None,
) -> dict[str, Any]:
    """Accuracy of a Hugging Face encoder folder on episodes of a config's tasks, without further meta-training.

    Raises:
        ConfigError: the folder holds no model, or the split does not exist.
    """
    from safetensors.torch import load_file
    from transformers.utils import logging

    from nas_meta.models.profiling import interval95, parameters
    from nas_meta.tasks.episodes import check_shape
    from nas_meta.tasks.source import SPLITS
    from nas_meta.tasks.tokenization import load_tasks, load_tokenizer

    if split not in SPLITS:
        raise ConfigError(f"--split is '{split}'; expected one of {', '.join(SPLITS)}")
    if not (Path(folder) / "config.json").is_file():
        raise ConfigError(f"{folder} is not a Hugging Face folder: it has no config.json")
    logging.disable_progress_bar()
    if config.recipe.choices:
        raise ConfigError(
            f"{next(iter(config.recipe.choices))} is a choice of the config; an exported folder is evaluated with its "
            f"own, {Path(folder) / CONFIG}"
        )
    section = config.config.tasks
    source, space = (config.plugin(part)(config.options[part]) for part in ("tasks", "space"))
    check_source(space, source, config)
    tokenizer = None if space.modality == IMAGE else load_tokenizer(str(folder))
    tasks = prompted(config, load_tasks(source, tokenizer, section.max_tokens), tokenizer)
    check_images(space, tasks, config)
    shape = episode_shape(config, shots)
    check_shape(tasks, shape)
    evaluation = dataclasses.replace(make_evaluation(config, None, tasks, shape, cpus=0), space=space, threads=0)
    try:
        model = space.load(Path(folder))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder} cannot be loaded: {str(error).splitlines()[0]}") from error
    encoder = evaluation.encoder(model)
    if (Path(folder) / LEARNED).is_file():
        restore_learned(encoder, load_file(Path(folder) / LEARNED), config, folder)
    scores: np.ndarray = evaluation.accuracies(encoder, split, episodes)
    return {
        "model": str(folder), "split": split, "episodes": episodes, "ways": shape.ways, "shots": shape.shots,
        "queries": shape.queries, "accuracy": float(scores.mean()), "accuracy_ci95": interval95(scores),
        "params": parameters(model),
    }  # fmt: skip

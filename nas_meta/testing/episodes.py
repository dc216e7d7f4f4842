"""Tiny texts, models and episodes on which a learner can be trained in a second."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import nn

from nas_meta.core.objectives import Objective
from nas_meta.errors import TrialError
from nas_meta.evaluation.progress import EvaluationSettings
from nas_meta.evaluation.trial import Evaluation
from nas_meta.learners.base import Learner
from nas_meta.models.compute import Compute
from nas_meta.models.encoder import Encoder
from nas_meta.space.architecture import Architecture, Choice, Value
from nas_meta.space.search_space import SearchSpace
from nas_meta.tasks.episodes import EpisodeShape
from nas_meta.tasks.pool import Tasks
from nas_meta.tasks.source import Classes, SourceOptions, TaskSource

CLASSES, EXAMPLES, TYPICAL = 12, 12, 3
SHAPE = EpisodeShape(ways=3, shots=2, queries=3)
CLASS_NAMES = tuple(f"class{i:02}" for i in range(CLASSES))
WORDS = tuple(f"word{i:02}" for i in range(CLASSES * TYPICAL))
VOCABULARY = ("[PAD]", "[UNK]", "[BOS]", "[EOS]", "text", "label", ":", *CLASS_NAMES, *WORDS)


class SeparableTexts(TaskSource):
    """Texts of four words that are typical of their class, and one that is not."""

    def read(self) -> Classes:
        rng = random.Random(0)
        classes: dict[str, list[str]] = {}
        for i, name in enumerate(CLASS_NAMES):
            typical, texts = WORDS[TYPICAL * i : TYPICAL * (i + 1)], set[str]()
            while len(texts) < EXAMPLES:
                texts.add(" ".join([*rng.choices(typical, k=4), rng.choice(WORDS)]))
            classes[name] = sorted(texts)
        return classes


class TinyModels(SearchSpace):
    """A bidirectional encoder and a causal language model, both with random weights."""

    def choices(self) -> Mapping[str, Choice | Sequence[Value]]:
        return {"causal": [False, True]}

    def build(self, architecture: Architecture) -> nn.Module:
        from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM

        size: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
        size |= {"intermediate_size": 64, "vocab_size": len(VOCABULARY), "max_position_embeddings": 512}
        if architecture["causal"]:
            return LlamaForCausalLM(LlamaConfig(**size, pad_token_id=0, bos_token_id=2, eos_token_id=3))
        return BertModel(BertConfig(**size), add_pooling_layer=False)


def evaluation_of(learner: Learner, device: str = "cpu") -> Evaluation:
    """Return the evaluation of tiny models on separable texts.

    Args:
        learner: The learner under test.
        device: ``cpu`` or ``cuda``.
    """
    settings = EvaluationSettings(episodes=8)
    tasks = tasks_for(getattr(learner.options, "template", None))
    return Evaluation(
        TinyModels(), learner, tasks, SHAPE, settings, compute=Compute(device), ranked_by=Objective("accuracy")
    )


def encoder_for(learner: Learner, seed: int, device: str = "cpu") -> Encoder:
    """Build a tiny model that a learner can use: a bidirectional encoder, or else a causal language model.

    Args:
        learner: The learner under test.
        seed: Seed of the weights.
        device: ``cpu`` or ``cuda``.

    Raises:
        TrialError: The learner accepts neither.
    """
    evaluation = evaluation_of(learner, device)
    torch.manual_seed(seed)
    try:
        return evaluation.encoder(TinyModels().build(Architecture({"causal": False})))
    except TrialError:
        torch.manual_seed(seed)
        return evaluation.encoder(TinyModels().build(Architecture({"causal": True})))


@cache
def tasks_for(template: str | None) -> Tasks:
    """Return the separable texts in three splits.

    Args:
        template: Template of the prompts of a learner that writes any; None for other learners.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from nas_meta.tasks.prompts import with_prompts
    from nas_meta.tasks.tokenization import load_tasks

    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", bos_token="[BOS]", eos_token="[EOS]"
    )
    tasks = load_tasks(SeparableTexts(SourceOptions(min_examples=EXAMPLES)), tokenizer, 16)
    return tasks if template is None else with_prompts(tasks, tokenizer, [template], 16)


def rows_of(classes: Sequence[int], shots: int, start: int = 0) -> np.ndarray:
    """Return indices of examples of some classes, ``[classes, shots]``.

    Args:
        classes: Positions of the classes in the pool of meta-train.
        shots: Number of examples per class.
        start: Position of the first example in its class.
    """
    members = tasks_for(None)["meta-train"].members
    return np.stack([members[c][start : start + shots] for c in classes])

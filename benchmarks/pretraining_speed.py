"""Tokens per second of pre-training, against transformers' ``Trainer`` on the same model, batches and data.

The model has two randomly initialised layers of MiniLM's width and MiniLM's tokenizer; the data are blocks of 64 tokens
from ICD-10-CM's meta-train descriptions. Both sides use fused AdamW, warm-up, gradient clipping and one thread. They
take turns, and the clock is the CPU time of the process between two steps, because other jobs may be running.

usage: python -m benchmarks.run pretraining_speed
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks.table import Table
from nas_meta.evaluation.pretraining.loop import LOOK_EVERY, make_loss, pretrain
from nas_meta.evaluation.pretraining.options import PretrainingSection
from nas_meta.evaluation.pretraining.row_sampler import RowSampler
from nas_meta.tasks.corpus.token_store import TokenStore

STEPS, ROUNDS = 10, 3
BLOCK, BATCH = 64, 8
SIZES = {"hidden_size": 384, "num_hidden_layers": 2, "num_attention_heads": 12, "intermediate_size": 1536}


def corpus_of(cache: Path) -> tuple[TokenStore, Any]:
    """Tokenises the texts of ICD-10-CM's meta-train classes.

    Args:
        cache: folder for the token file.

    Returns:
        The tokens and the tokenizer.
    """
    from nas_meta.tasks.corpus.corpus import Corpus
    from nas_meta.tasks.corpus.token_store import tokenise_corpus
    from nas_meta.tasks.packaged_models import MINILM
    from nas_meta.tasks.sources.icd10 import ICD10
    from nas_meta.tasks.tokenization import load_tokenizer

    texts = [t for part in ICD10().load().splits["meta-train"].values() for t in part]
    tokenizer = load_tokenizer(MINILM)
    return tokenise_corpus(Corpus((lambda: texts,), "icd10"), tokenizer, cache), tokenizer


def bert(vocabulary: int) -> Any:
    """A masked language model from transformers."""
    from transformers import BertConfig, BertForMaskedLM

    torch.manual_seed(0)
    return BertForMaskedLM(BertConfig(vocab_size=vocabulary, max_position_embeddings=BLOCK, **SIZES))


def llama(vocabulary: int) -> Any:
    """A causal language model from transformers."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=vocabulary, max_position_embeddings=BLOCK, tie_word_embeddings=True, **SIZES)
    return LlamaForCausalLM(config)


def train_with_nas_meta(model: Any, corpus: TokenStore, objective: str) -> tuple[float, float]:
    """Pre-trains a model with nas-meta.

    Args:
        model: masked or causal language model.
        corpus: tokens to train on.
        objective: ``mlm`` or ``clm``.

    Returns:
        CPU seconds of the steps after the first reported loss, and the last loss.
    """
    section = PretrainingSection(objective=objective, steps=STEPS + LOOK_EVERY, block=BLOCK, batch=BATCH)
    body = model if objective == "clm" else model.bert
    progress = pretrain(body, make_loss(body, corpus, section, "mean"), corpus, section, seed=0)
    next(progress)
    started = time.process_time()
    *_, last = progress
    return time.process_time() - started, last.loss


def train_with_trainer(model: Any, corpus: TokenStore, objective: str, tokenizer: Any) -> tuple[float, float]:
    """Pre-trains a model with ``Trainer``; returns the same as :func:`train_with_nas_meta`."""
    from transformers import DataCollatorForLanguageModeling, Trainer, TrainerCallback, TrainingArguments

    rows, times, losses = RowSampler(corpus, BLOCK, True, 0), [], []
    steps = STEPS + LOOK_EVERY
    blocks = [{"input_ids": row} for step in range(steps) for row in rows.batch(step, BATCH)[0]]

    class Clock(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            times.append(time.process_time())

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            losses.append(logs.get("loss", np.nan))

    section = PretrainingSection(objective=objective)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, max_steps=steps, per_device_train_batch_size=BATCH, learning_rate=section.rate,
            warmup_steps=round(section.warmup * steps), max_grad_norm=section.clip, weight_decay=section.weight_decay,
            optim="adamw_torch_fused", lr_scheduler_type="linear", save_strategy="no", logging_steps=LOOK_EVERY,
            report_to=[], use_cpu=True, disable_tqdm=True, dataloader_num_workers=0, remove_unused_columns=False,
        )  # fmt: skip
        collator = DataCollatorForLanguageModeling(tokenizer, mlm=objective == "mlm", mlm_probability=section.masked)
        Trainer(model, arguments, data_collator=collator, train_dataset=blocks, callbacks=[Clock()]).train()
    return times[-1] - times[LOOK_EVERY - 1], losses[steps // LOOK_EVERY - 1]


def measure() -> Table:
    """Speed and loss, two rows per objective."""
    torch.set_num_threads(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        corpus, tokenizer = corpus_of(Path(folder))
        sides: dict[str, Callable[..., tuple[float, float]]] = {
            "nas-meta": lambda model, kind: train_with_nas_meta(model, corpus, kind),
            "`Trainer`": lambda model, kind: train_with_trainer(model, corpus, kind, tokenizer),
        }
        for kind, build in (("mlm", bert), ("clm", llama)):
            found: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
            for _ in range(ROUNDS):
                for name, side in sides.items():
                    found[name].append(side(build(corpus.vocabulary.size), kind))
            seconds = {name: median(s for s, _ in runs) for name, runs in found.items()}
            for name, runs in found.items():
                speed = STEPS * BATCH * BLOCK / seconds[name]
                ratio = f"{seconds['`Trainer`'] / seconds[name]:.2f}"
                spread = f"{min(s for s, _ in runs):.1f} to {max(s for s, _ in runs):.1f} s"
                rows.append([f"`{kind}`", name, f"{speed:,.0f}", f"**{ratio}**", spread, f"{runs[0][1]:.2f}"])
    return Table(
        ("objective", "program", "tokens per second", "relative to `Trainer`", f"{STEPS} steps", "loss"),
        rows,
        f"{BATCH} blocks of {BLOCK} tokens per step; medians of {ROUNDS} turns, in CPU time on one thread. Both sides "
        "report losses on the same blocks, but each in its own order and, with `mlm`, with its own random masks.",
    )

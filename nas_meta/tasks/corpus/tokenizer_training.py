"""Learning a tokenizer from a corpus, as a folder that transformers loads."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from nas_meta.tasks.cache import cache_folder
from nas_meta.tasks.corpus.corpus import Corpus
from nas_meta.tasks.corpus.token_store import corpus_hash

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

BATCH = 1000  # texts per call of the trainer's iterator
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
END = "<|endoftext|>"
LENGTH = 512  # the tokenizer's model_max_length: it warns about texts with more tokens


class TrainedTokenizer(BaseModel):
    """Options of a tokenizer that is learned from the corpus."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    train: int = Field(8000, ge=100, description="size of a vocabulary learned from the corpus, in tokens")
    kind: Literal["wordpiece", "bpe"] = Field(
        "wordpiece", description="wordpiece: WordPiece like BERT's; bpe: byte-level BPE like GPT-2's"
    )


def trained_tokenizer(corpus: Corpus, section: TrainedTokenizer, cache: Path | None = None) -> Path:
    """Learn a tokenizer from a corpus, or find it in the cache.

    ``wordpiece`` is WordPiece (Wu et al. 2016) with BERT's normalisation, lower-casing and ``[CLS] text [SEP]``
    template. ``bpe`` is byte-level BPE (Radford et al. 2019) with ``<|endoftext|>`` as its only special token.

    Args:
        corpus: Texts to learn from.
        section: Vocabulary size and kind of the tokenizer.
        cache: Root folder of the cache; :func:`cache_folder` by default.

    Returns:
        Folder of the tokenizer.

    Raises:
        DataError: The corpus contains no text, or a part of it cannot be read.
    """
    cache = cache or cache_folder()
    key = hashlib.sha256(f"{corpus_hash(corpus, cache)} {section.kind} {section.train}".encode()).hexdigest()[:32]
    folder = cache / "tokenizers" / key
    if folder.is_dir():
        return folder
    part = folder.with_name(f"{key}.{os.getpid()}.part")
    try:
        _train(corpus, section).save_pretrained(part)
        try:
            part.rename(folder)
        except OSError:
            if not folder.is_dir():  # otherwise another process was faster
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def _train(corpus: Corpus, section: TrainedTokenizer) -> PreTrainedTokenizerFast:
    """Train a tokenizer of the section's kind and wrap it for transformers."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    def batches() -> Iterator[list[str]]:
        texts = iter(corpus)
        while batch := list(islice(texts, BATCH)):
            yield batch

    if section.kind == "bpe":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=section.train, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
        )
        tokenizer.train_from_iterator(batches(), trainer)
        return PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, eos_token=END, bos_token=END, unk_token=END, pad_token=END,
            model_max_length=LENGTH,
        )  # fmt: skip
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=section.train, special_tokens=list(SPECIAL), show_progress=False)
    tokenizer.train_from_iterator(batches(), trainer)
    first, last = (tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", first), ("[SEP]", last)]
    )
    pad, unk, cls, sep, mask = SPECIAL
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=pad, unk_token=unk, cls_token=cls, sep_token=sep, mask_token=mask,
        model_max_length=LENGTH,
    )  # fmt: skip

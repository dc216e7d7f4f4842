"""A tokenizer learned from a corpus, as a folder that transformers loads."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from nas_meta.tasks.corpus.corpus import Corpus
from nas_meta.tasks.corpus.token_store import cache_folder, content_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

BATCH = 1000  # texts that are handed on at once
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
END = "<|endoftext|>"
LENGTH = 512  # tokens of a text, as far as the tokenizer has an opinion


class TrainedTokenizer(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    train: int = Field(8000, ge=100, description="tokens of a vocabulary that is learned from the corpus")
    kind: Literal["wordpiece", "bpe"] = Field(
        "wordpiece", description="WordPiece as BERT's, or byte-level BPE as GPT-2's"
    )


def trained_tokenizer(corpus: Corpus, section: TrainedTokenizer, cache: Path | None = None) -> Path:
    """The folder of a tokenizer learned from a corpus, from the cache if it is there.

    WordPiece (Wu et al. 2016) with BERT's normalisation, lower case and template; or byte-level BPE (Radford et al.
    2019) with one token, ``<|endoftext|>``, for the end and for padding.

    Raises:
        DataError: the corpus holds no text, or a part of it cannot be read.
    """
    cache = cache or cache_folder()
    key = hashlib.sha256(f"{content_of(corpus, cache)} {section.kind} {section.train}".encode()).hexdigest()[:32]
    folder = cache / "tokenizers" / key
    if folder.is_dir():
        return folder
    part = folder.with_name(f"{key}.{os.getpid()}.part")
    try:
        _trained(corpus, section).save_pretrained(part)
        try:
            part.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def _trained(corpus: Corpus, section: TrainedTokenizer) -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    def batches() -> Iterator[list[str]]:
        texts = iter(corpus)
        while some := list(islice(texts, BATCH)):
            yield some

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

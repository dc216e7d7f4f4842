"""The config section ``pretraining``: its options, their defaults, and which combinations are refused."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from nas_meta.core.paths import CorpusPaths, ModelName
from nas_meta.tasks.corpus.corpus import DEFAULT
from nas_meta.tasks.corpus.tokenizer_training import TrainedTokenizer

STEPS = 200  # default budget


class PretrainingSection(BaseModel):
    """Options of self-supervised pre-training on unlabelled text; without the section nothing is pre-trained."""

    model_config = ConfigDict(extra="forbid", validate_default=True, allow_inf_nan=False)
    of: Literal["candidates", "model"] = Field(
        "candidates",
        description="what is pre-trained: every candidate before its meta-training, or, once before the search, the "
        "model that space.model names (domain adaptation)",
    )
    objective: Literal["mlm", "clm", "simcse", "smlmt"] = Field(
        "mlm",
        description="what the model learns to predict: masked tokens (mlm, as BERT), the next token (clm, as GPT), "
        "which embeddings are views of the same text (simcse), or which word is masked, as few-shot tasks (smlmt)",
    )
    corpus: CorpusPaths = Field(
        DEFAULT, min_length=1, description="text files, folders, JSON Lines or saved datasets; or default"
    )
    field: str = Field("text", description="field that holds the text in JSON Lines and datasets")
    tokenizer: TrainedTokenizer | None = Field(
        None, description="{train: 8000} trains a tokenizer on the corpus; by default the search space's own is used"
    )
    steps: int | None = Field(None, ge=1, description=f"budget in steps; {STEPS} if no budget is given")
    tokens: float | None = Field(None, ge=1, description="budget in tokens, of which a step counts batch * block")
    minutes: float | None = Field(
        None, gt=0, description="budget in minutes; only with of: model, because it is not reproducible"
    )
    batch: int = Field(32, ge=1, description="rows per step; at least 2 for simcse, and 2 to 20 per word for smlmt")
    block: int = Field(
        128, ge=8, description="tokens per row: blocks of this length (mlm, clm), or texts cut to it (simcse, smlmt)"
    )
    lr: float | None = Field(
        None, gt=0, description="peak learning rate of AdamW; by default 5e-4, or 5e-5 for a pretrained model"
    )
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the budget in which the learning rate rises from zero")
    decay: Literal["none", "linear", "cosine"] = Field("linear", description="how the learning rate falls afterwards")
    weight_decay: float = Field(0.01, ge=0, description="weight decay of AdamW; biases and norms do not decay")
    clip: float = Field(1.0, gt=0, description="gradient norm above which the gradient of a step is scaled down")
    masked: float = Field(0.15, gt=0, lt=1, description="mlm: share of the tokens selected for prediction")
    whole_words: bool = Field(False, description="mlm: select all tokens of a word together")
    ways: int = Field(5, ge=2, description="smlmt: words per task; they share the rows of a step")
    temperature: float = Field(0.05, gt=0, description="simcse: temperature of the cosine similarities")
    inherit: bool | ModelName = Field(
        False,
        description="true: a candidate starts from the most similar one that this run has pre-trained; the name of a "
        "model (a folder, a hub name or starter:minilm): the first candidates also start, from that model",
    )
    keep: int = Field(50, ge=1, description="number of candidates whose pre-trained weights stay in the run directory")
    checkpoint_every: int = Field(100, ge=1, description="steps between two checkpoints; only for a single model")

    @model_validator(mode="after")
    def _one_budget(self) -> PretrainingSection:
        given = [name for name in ("steps", "tokens", "minutes") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"expected one budget, but {' and '.join(given)} are given")
        if self.minutes is not None and self.of == "candidates":
            raise ValueError("a budget in minutes is not reproducible; expected steps or tokens, or of: model")
        if self.inherit and self.of == "model":
            raise ValueError("inherit applies to candidates, but of is model; expected only one of the two")
        if self.objective == "smlmt" and not 2 * self.ways <= self.batch <= 20 * self.ways:
            raise ValueError(
                f"batch is {self.batch}, but smlmt needs 2 to 20 texts for each of its {self.ways} words; "
                f"expected batch: {2 * self.ways} to {20 * self.ways}"
            )
        if self.objective == "simcse" and self.batch < 2:
            raise ValueError("batch is 1, but simcse compares the texts of a batch; expected batch: 2 or more")
        return self

    @property
    def total(self) -> int | None:
        """The budget in steps; None for a budget in minutes."""
        if self.minutes is not None:
            return None
        if self.tokens is not None:
            return max(1, round(self.tokens / (self.batch * self.block)))
        return self.steps or STEPS

    @property
    def rate(self) -> float:
        """The peak learning rate."""
        return self.lr or (5e-4 if self.of == "candidates" else 5e-5)

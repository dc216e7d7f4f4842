"""The section ``pretraining`` of a config."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from nas_meta.tasks.corpus.corpus import DEFAULT
from nas_meta.tasks.corpus.tokenizer_training import TrainedTokenizer

STEPS = 200  # where no budget is given


class PretrainingSection(BaseModel):
    """Self-supervised training on unlabelled text; where the section is left out there is none."""

    model_config = ConfigDict(extra="forbid", validate_default=True, allow_inf_nan=False)
    of: Literal["candidates", "model"] = Field(
        "candidates",
        description="each candidate before its meta-training, or once, before the search, the model that space.model "
        "names (domain adaptation)",
    )
    objective: Literal["mlm", "clm", "simcse", "smlmt"] = Field(
        "mlm",
        description="masked words (BERT), the next token (GPT), two views of a text (SimCSE), or few-shot tasks of "
        "masked words (SMLMT)",
    )
    corpus: str | list[str] = Field(
        DEFAULT, min_length=1, description="text files, folders, JSON Lines, folders of datasets; or default"
    )
    field: str = Field("text", description="where a text stands in JSON Lines and datasets")
    tokenizer: TrainedTokenizer | None = Field(
        None, description="{train: 8000} learns one from the corpus; by default the space's own"
    )
    steps: int | None = Field(None, ge=1, description=f"the budget in steps; {STEPS} where no budget is given")
    tokens: float | None = Field(None, ge=1, description="or in tokens that are seen")
    minutes: float | None = Field(None, gt=0, description="or in minutes; not of candidates, which must be repeatable")
    batch: int = Field(32, ge=1, description="rows in a step; of simcse texts, at least two")
    block: int = Field(128, ge=8, description="tokens of a row")
    lr: float | None = Field(
        None, gt=0, description="highest learning rate of AdamW; by default 5e-4, and 5e-5 of a pretrained model"
    )
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the budget in which the learning rate rises from zero")
    decay: Literal["none", "linear", "cosine"] = Field("linear", description="how the learning rate falls afterwards")
    weight_decay: float = Field(0.01, ge=0, description="of all but biases and norms")
    clip: float = Field(1.0, gt=0, description="largest norm of the gradient of a step")
    masked: float = Field(0.15, gt=0, lt=1, description="mlm: share of the tokens that are to be told")
    whole_words: bool = Field(False, description="mlm: all tokens of a word, or none")
    ways: int = Field(5, ge=2, description="smlmt: words of a task, which share the rows of a step")
    temperature: float = Field(0.05, gt=0, description="simcse: of the similarities")
    inherit: bool | str = Field(
        False,
        description="candidates start from the nearest one that this run has pre-trained, where shapes match; a name "
        "(a folder, a hub name, starter:minilm): the first ones from that model",
    )
    keep: int = Field(50, ge=1, description="pre-trained weights of so many candidates stay in the run directory")
    checkpoint_every: int = Field(100, ge=1, description="steps between two checkpoints of a model's pre-training")

    @model_validator(mode="after")
    def _one_budget(self) -> PretrainingSection:
        given = [name for name in ("steps", "tokens", "minutes") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"expected one budget, but {' and '.join(given)} are given")
        if self.minutes is not None and self.of == "candidates":
            raise ValueError("minutes cannot be repeated; expected steps or tokens, or of: model")
        if self.inherit and self.of == "model":
            raise ValueError("inherit is for candidates, but of is model; expected one of the two")
        if self.objective == "smlmt" and not 2 * self.ways <= self.batch <= 20 * self.ways:
            raise ValueError(
                f"smlmt has {self.ways} words in a task; expected batch: {2 * self.ways} to {20 * self.ways}"
            )
        if self.objective == "simcse" and self.batch < 2:
            raise ValueError("simcse tells each text from the others of its batch; expected batch: 2 or more")
        return self

    @property
    def total(self) -> int | None:
        """The budget in steps; None where it is one of time."""
        if self.minutes is not None:
            return None
        if self.tokens is not None:
            return max(1, round(self.tokens / (self.batch * self.block)))
        return self.steps or STEPS

    @property
    def rate(self) -> float:
        """The highest learning rate."""
        return self.lr or (5e-4 if self.of == "candidates" else 5e-5)

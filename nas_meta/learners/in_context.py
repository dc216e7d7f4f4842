"""In-context learning: a causal language model reads the support set and says which label comes next.

Brown et al. 2020, "Language Models are Few-Shot Learners": the examples stand in the prompt, no weight moves, and each
class is scored by the (mean or summed) log-probability of its name behind the query. With ``calibration: contextual``
these probabilities p are divided by p_cf, those behind inputs without content: softmax(W p + b) with W = diag(p_cf)⁻¹
and b = 0 (Zhao et al. 2021, "Calibrate Before Use", section 5). With ``steps`` the model is meta-trained for this: the
loss of an episode is that of the query's label given the examples, -log P(y | x_1, y_1, ..., x_k, y_k, x), in the mean
over tokens (Min et al. 2022, "MetaICL", section 3).
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Literal

import numpy as np
import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from nas_meta.errors import TrialError
from nas_meta.learners.base import Learner, LearnerOptions
from nas_meta.models.causal_lm import LanguageModel, label_log_probabilities, language_model
from nas_meta.models.causality import is_causal
from nas_meta.models.compute import allow_checkpointing, checkpointed
from nas_meta.models.encoder import Encoder
from nas_meta.tasks.episodes import Episode
from nas_meta.tasks.pool import Pool, Prompts
from nas_meta.tasks.prompts import parts_of


class InContextOptions(LearnerOptions):
    """Options of in-context learning."""

    steps: int = Field(0, ge=0, description="meta-training steps in context (MetaICL); 0 prompts the model as it is")
    template: str = Field(
        "text: {text}\nlabel: {label}\n\n", description="an example of a prompt; of a query, the part up to its label"
    )
    shots_in_prompt: int | None = Field(
        None, ge=0, description="support examples of each class in the prompt; by default all, 0 is zero-shot"
    )
    score: Literal["mean", "sum"] = Field("mean", description="a label's log-probability: per token, or in all")
    calibration: Literal["none", "contextual"] = Field(
        "none", description="contextual: relative to the probabilities behind inputs without content"
    )
    order_seed: int = Field(0, ge=0, description="of the order of a prompt's examples; every episode has its own order")

    @field_validator("template")
    @classmethod
    def _has_text_and_label(cls, template: str) -> str:
        parts_of(template)
        return template

    @model_validator(mode="after")
    def _has_no_embeddings(self) -> InContextOptions:
        if self.training.acts_on_embeddings:
            raise ValueError(
                "noise in the words, mixup, adversarial and distill act on embeddings of texts, of which in-context "
                "computes none; expected training without them"
            )
        return self


class InContext(Learner):
    """In-context learning with verbalised labels; zero-shot with ``shots_in_prompt: 0``."""

    Options = InContextOptions

    def equip(self, model: nn.Module) -> None:
        lm = language_model(model)
        if lm is None or not is_causal(lm.body):
            raise TrialError(
                f"in-context reads labels off a causal language model, but the space builds a {type(model).__name__}, "
                "which has no such head; expected a space such as decoder-subnet"
            )

    def meta_loss(self, encoder: Encoder, pool: Pool, episode: Episode) -> Tensor:
        """Cross-entropy of the tokens of every query's label, in the mean over all of them."""
        prompts, own = self._prompts(pool), [[label] for label in self._labels(pool, episode)]
        labels = [own[i] for i in episode.labels]
        said = self._said(encoder, pool, episode, [prompts.texts[i] for i in episode.query.ravel()], labels)
        return -said.sum() / sum(len(label) for (label,) in labels)

    def classify(self, encoder: Encoder, pool: Pool, episode: Episode) -> Tensor:
        prompts, labels = self._prompts(pool), self._labels(pool, episode)
        queries = [prompts.texts[i] for i in episode.query.ravel()]
        if self.options.calibration == "contextual":
            queries += [prompts.content_free[i] for i in range(len(prompts.content_free))]
        with torch.inference_mode():
            said = self._said(encoder, pool, episode, queries, [labels] * len(queries)).view(len(queries), -1)
            if self.options.score == "mean":
                said = said / torch.tensor([len(label) for label in labels], device=said.device)
            if self.options.calibration == "none":
                return said
            p = said.log_softmax(1)
            queried, without = p.split([episode.query.size, len(prompts.content_free)])
            return queried - (without.logsumexp(0) - math.log(len(without)))

    def _said(
        self, encoder: Encoder, pool: Pool, episode: Episode, queries: list[np.ndarray], labels: list[list[np.ndarray]]
    ) -> Tensor:
        """The log-probability of every label behind every query and the episode's examples."""
        lm = language_model(encoder.model)
        assert lm is not None
        longest = max(len(q) + max(map(len, own)) for q, own in zip(queries, labels, strict=True))
        examples = self.examples(pool, episode, lm, longest)
        again = encoder.compute.gradient_checkpointing and torch.is_grad_enabled()
        with encoder.compute.autocast(), checkpointed(allow_checkpointing(lm.body)) if again else nullcontext():
            # Layers that are computed again keep no keys and values.
            return label_log_probabilities(lm, examples, queries, labels, shared=not again)

    def examples(self, pool: Pool, episode: Episode, lm: LanguageModel, longest: int) -> np.ndarray:
        """``[P]``, the tokens of a prompt in front of its query, which with its label has at most ``longest``.

        The same number of examples of each class, in an order of the episode's own. Where the model has too few
        positions for all of them, each class gives up its last example, until the rest fits.

        Raises:
            TrialError: not even one of each class fits.
        """
        prompts, asked = self._prompts(pool), self.options.shots_in_prompt
        shots = most = min(episode.support.shape[1], episode.support.shape[1] if asked is None else asked)
        while True:
            order = np.random.default_rng([self.options.order_seed, *episode.indices]).permutation(
                shots * len(episode.support)
            )
            chosen = episode.support[:, :shots].ravel()[order]
            pieces = [prompts.start]
            for i in chosen:
                pieces += [prompts.texts[i], prompts.ends[pool.labels[i]]]
            tokens = np.concatenate(pieces)
            if lm.positions is None or len(tokens) + longest <= lm.positions:
                return tokens
            if shots <= 1:
                of = f"one example of each of {len(episode.support)} classes" if most else "a query"
                raise TrialError(
                    f"a prompt with {of} has {len(tokens) + longest} tokens, but {type(lm.body).__name__} has "
                    f"{lm.positions} positions; lower tasks.max_tokens or tasks.ways, or set learner.shots_in_prompt: 0"
                )
            shots -= 1

    def _labels(self, pool: Pool, episode: Episode) -> list[np.ndarray]:
        """The tokens of the name of each class of an episode."""
        return [self._prompts(pool).labels[pool.labels[row[0]]] for row in episode.support]

    def _prompts(self, pool: Pool) -> Prompts:
        if self.options.template not in pool.prompts:
            raise TrialError(
                "the tasks hold no prompts for learner.template; expected those of nas_meta.tasks.prompts.with_prompts"
            )
        return pool.prompts[self.options.template]

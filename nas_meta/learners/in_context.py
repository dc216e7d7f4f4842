"""In-context learning: a causal language model reads the support set in its prompt and predicts the label that follows.

The support examples are in the prompt, no weight changes, and each class is scored by the mean or summed
log-probability of its name after the query (Brown et al. 2020, "Language Models are Few-Shot Learners"). With
``calibration: contextual`` these probabilities p are divided by p_cf, the probabilities after content-free inputs:
softmax(W p + b) with W = diag(p_cf)⁻¹ and b = 0 (Zhao et al. 2021, "Calibrate Before Use", section 5). With ``steps``
above 0 the model is meta-trained for this: the loss of an episode is -log P(y | x_1, y_1, ..., x_k, y_k, x) of the
query's label given the examples, averaged over tokens (Min et al. 2022, "MetaICL", section 3).
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

    steps: int = Field(
        0, ge=0, description="number of meta-training steps in context (MetaICL); 0 prompts the model without training"
    )
    template: str = Field(
        "text: {text}\nlabel: {label}\n\n",
        description="format of one example in the prompt, {text} before {label}; a query ends where its label begins",
    )
    shots_in_prompt: int | None = Field(
        None, ge=0, description="support examples per class in the prompt; by default all of them, 0 is zero-shot"
    )
    score: Literal["mean", "sum"] = Field(
        "mean", description="score of a label: mean or sum of the log-probabilities of its tokens"
    )
    calibration: Literal["none", "contextual"] = Field(
        "none", description="contextual divides label probabilities by their values after content-free inputs"
    )
    order_seed: int = Field(0, ge=0, description="seed for the order of the examples in the prompt of each episode")

    @field_validator("template")
    @classmethod
    def _has_text_and_label(cls, template: str) -> str:
        parts_of(template)
        return template

    @model_validator(mode="after")
    def _has_no_embeddings(self) -> InContextOptions:
        if self.training.acts_on_embeddings:
            raise ValueError(
                "word_dropout, word_swap, synonyms, adversarial and distill act on text embeddings, which "
                "in-context does not compute; expected learner.training without them"
            )
        return self


class InContext(Learner):
    """In-context learning: scores class names as continuations of a prompt; ``shots_in_prompt: 0`` is zero-shot."""

    Options = InContextOptions

    def equip(self, model: nn.Module) -> None:
        lm = language_model(model)
        if lm is None or not is_causal(lm.body):
            raise TrialError(
                f"in-context needs a causal language model, but the space builds a {type(model).__name__}, which has "
                "no causal language-modelling head; expected a space such as decoder-subnet"
            )

    def meta_loss(self, encoder: Encoder, pool: Pool, episode: Episode) -> Tensor:
        """Compute the mean cross-entropy over all tokens of the labels of all query examples."""
        prompts, candidates = self._prompts(pool), [[label] for label in self._labels(pool, episode)]
        labels = [candidates[i] for i in episode.labels]
        queries = [prompts.texts[i] for i in episode.query.ravel()]
        log_probabilities = self._log_probabilities(encoder, pool, episode, queries, labels)
        return -log_probabilities.sum() / sum(len(label) for (label,) in labels)

    def classify(self, encoder: Encoder, pool: Pool, episode: Episode) -> Tensor:
        prompts, labels = self._prompts(pool), self._labels(pool, episode)
        queries = [prompts.texts[i] for i in episode.query.ravel()]
        if self.options.calibration == "contextual":
            queries += [prompts.content_free[i] for i in range(len(prompts.content_free))]
        with torch.inference_mode():
            scores = self._log_probabilities(encoder, pool, episode, queries, [labels] * len(queries))
            scores = scores.view(len(queries), -1)
            if self.options.score == "mean":
                scores = scores / torch.tensor([len(label) for label in labels], device=scores.device)
            if self.options.calibration == "none":
                return scores
            log_p, log_p_cf = scores.log_softmax(1).split([episode.query.size, len(prompts.content_free)])
            return log_p - (log_p_cf.logsumexp(0) - math.log(len(log_p_cf)))

    def _log_probabilities(
        self, encoder: Encoder, pool: Pool, episode: Episode, queries: list[np.ndarray], labels: list[list[np.ndarray]]
    ) -> Tensor:
        """Compute the log-probability of each label of each query in turn, after the episode's examples."""
        lm = language_model(encoder.model)
        assert lm is not None
        longest = max(len(q) + max(map(len, candidates)) for q, candidates in zip(queries, labels, strict=True))
        examples = self.examples(pool, episode, lm, longest)
        recompute = encoder.compute.gradient_checkpointing and torch.is_grad_enabled()
        with encoder.compute.autocast(), checkpointed(allow_checkpointing(lm.body)) if recompute else nullcontext():
            # Checkpointed layers keep no keys and values that queries could share.
            return label_log_probabilities(lm, examples, queries, labels, shared=not recompute)

    def examples(self, pool: Pool, episode: Episode, lm: LanguageModel, longest: int) -> np.ndarray:
        """Return the tokens of the examples in a prompt.

        Every class has the same number of examples; the order depends on the episode and on ``order_seed``. If the
        model has too few positions, one example of every class is dropped until the prompt fits.

        Args:
            pool: The examples that the episode's indices refer to.
            episode: The episode.
            lm: The language model.
            longest: Tokens of the longest query with its longest label.

        Returns:
            ``[P]`` token ids; empty for zero-shot, except for a token that begins every text.

        Raises:
            TrialError: One example per class, or for zero-shot a query, does not fit.
        """
        prompts, limit = self._prompts(pool), self.options.shots_in_prompt
        shots = most = min(episode.support.shape[1], episode.support.shape[1] if limit is None else limit)
        while True:
            order = np.random.default_rng([self.options.order_seed, *episode.order_key]).permutation(
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
                content = f"one example of each of {len(episode.support)} classes" if most else "a query"
                raise TrialError(
                    f"a prompt with {content} has {len(tokens) + longest} tokens, but {type(lm.body).__name__} has "
                    f"{lm.positions} positions; lower tasks.max_tokens or tasks.ways, or set learner.shots_in_prompt: 0"
                )
            shots -= 1

    def _labels(self, pool: Pool, episode: Episode) -> list[np.ndarray]:
        """Return the tokens of the name of each class of an episode."""
        return [self._prompts(pool).labels[pool.labels[row[0]]] for row in episode.support]

    def _prompts(self, pool: Pool) -> Prompts:
        """Return the pool's texts and classes in the template."""
        if self.options.template not in pool.prompts:
            raise TrialError(
                "the tasks have no prompts for learner.template; expected tasks from "
                "nas_meta.tasks.prompts.with_prompts"
            )
        return pool.prompts[self.options.template]

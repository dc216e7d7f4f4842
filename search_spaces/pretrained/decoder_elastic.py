"""Supernet of ``decoder-subnet``: all sub-networks of a causal language model in one model with shared weights."""

from __future__ import annotations

from nas_meta import Architecture
from search_spaces.decoder_slicing import widths_of
from search_spaces.pretrained.elastic_model import ElasticModel, Widths


class ElasticDecoder(ElasticModel):
    """A pretrained causal language model whose layers and units can be switched off between forward passes."""

    def widths(self, architecture: Architecture) -> Widths:
        return widths_of(architecture)

"""The import path of the encoder for plugins written against version 0.1; the code is in :mod:`nas_meta.models`."""

from nas_meta.models.checks import check_model as check_model
from nas_meta.models.checks import check_pooling as check_pooling
from nas_meta.models.encoder import Encoder as Encoder
from nas_meta.models.pooling import POOLINGS as POOLINGS

"""Two towers for images with texts: an image encoder and a text encoder, searched together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from nas_meta import Architecture, PluginOptions, SearchSpace
from nas_meta.core.guard import plugin_call
from nas_meta.errors import ConfigError
from nas_meta.space.composite import ComposedSpace, SubSpace
from nas_meta.tasks.examples import IMAGE, IMAGE_TEXT, MODALITIES, TEXT
from nas_meta.tasks.pool import Tasks

if TYPE_CHECKING:
    from torch import nn

TAKES = {"image": IMAGE, "text": TEXT}


class TowerOptions(PluginOptions):
    """Options of ``tower``."""

    image: SubSpace = Field(
        "vit", description="the search space of the image encoder: a name, or name: and its options"
    )
    text: SubSpace = Field("bert-subnet", description="likewise that of the text encoder")
    width: int = Field(64, ge=1, description="length of each encoder's projected embedding")
    join: Literal["concatenate", "sum"] = Field("concatenate", description="how the two become one embedding")


class Tower(ComposedSpace):
    """An image encoder and a text encoder of two search spaces, each projected, the two joined into one embedding.

    Parameters and FLOPs are counted where both spaces count them and have ``width(architecture)``, the length of an
    embedding.
    """

    Options = TowerOptions
    modality = IMAGE_TEXT

    def __init__(self, options: TowerOptions | None = None):
        super().__init__(options)
        for part, space in self.spaces.items():
            if space.modality != TAKES[part]:
                raise ConfigError(
                    f"space.{part} is a search space that takes {MODALITIES.get(space.modality, space.modality)}; "
                    f"expected one that takes {MODALITIES[TAKES[part]]}"
                )
        self.image_shape = self.spaces["image"].image_shape

    def prepare(self, tasks: Tasks, seed: int) -> None:
        for part, space in self.spaces.items():
            with plugin_call(space, "prepare"):
                space.prepare(tasks.part(TAKES[part]), seed)

    def counts(self, architecture: Architecture, tokens: int) -> Mapping[str, float]:
        parts = super().counts(architecture, tokens)
        if not parts or not all(hasattr(space, "width") for space in self.spaces.values()):
            return {}
        width = self.options.width
        inward = sum(space.width(self.part(architecture, part)) for part, space in self.spaces.items())
        # Two projections with biases and a LayerNorm behind each.
        own = {"params": inward * width + 6 * width, "flops": 2 * inward * width}
        return {metric: parts[metric] + own[metric] for metric in own if metric in parts}

    def build(self, architecture: Architecture) -> nn.Module:
        from search_spaces.tower.tower_model import TowerConfig, TowerModel

        towers = {part: self.build_part(architecture, part) for part in self.spaces}
        widths = {f"{part}_width": embedding_width(self.spaces[part], tower) for part, tower in towers.items()}
        return TowerModel(TowerConfig(**widths, width=self.options.width, join=self.options.join), **towers)

    def save(self, model: nn.Module, architecture: Architecture, folder: Path) -> None:
        """A folder for each tower, as its own space writes it, and beside them the projections and the code.

        ``AutoModel.from_pretrained(folder, trust_remote_code=True)`` needs no nas-meta.
        """
        for part, space in self.spaces.items():
            (folder / part).mkdir(parents=True)
            space.save(getattr(model, part), self.part(architecture, part), folder / part)
        model.save_joint(folder)

    def load(self, folder: Path) -> nn.Module:
        """The model by the classes that are installed: a folder's own code is not run."""
        from search_spaces.tower.tower_model import JOINT, TowerConfig, TowerModel

        if TowerConfig.get_config_dict(folder)[0].get("model_type") != TowerConfig.model_type:
            raise ValueError(f"it is no model of two towers; expected model_type {TowerConfig.model_type}")
        towers = {part: space.load(folder / part) for part, space in self.spaces.items()}
        return TowerModel.joined(TowerConfig.from_pretrained(folder), **towers, weights=folder / JOINT)


def embedding_width(space: SearchSpace, model: nn.Module) -> int:
    """The length of an embedding of a space's model."""
    from nas_meta.models.encoder import Encoder
    from nas_meta.models.inputs import example_inputs

    return Encoder(model, example=example_inputs(space, 1, 1)).width

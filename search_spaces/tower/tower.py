"""Search space ``tower``: an image encoder and a text encoder, searched together for images with texts."""

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

TOWER_MODALITIES = {"image": IMAGE, "text": TEXT}


class TowerOptions(PluginOptions):
    """Options of the search space ``tower``."""

    image: SubSpace = Field(
        "vit", description="search space of the image encoder: its name, or a mapping with name and options"
    )
    text: SubSpace = Field(
        "bert-subnet", description="search space of the text encoder: its name, or a mapping with name and options"
    )
    width: int = Field(64, ge=1, description="width of each encoder's projected embedding")
    join: Literal["concatenate", "sum"] = Field(
        "concatenate", description="how the two projected embeddings are joined into one"
    )


class Tower(ComposedSpace):
    """An image encoder and a text encoder from two search spaces, joined into one embedding.

    The embedding of each encoder is projected to a common width; then both are concatenated or added. Parameters and
    FLOPs are counted if both spaces count them and have a method ``width(architecture)``, the width of an embedding.

    Args:
        options: The two search spaces and how they are joined; the defaults of ``TowerOptions`` if None.

    Raises:
        ConfigError: A space takes the wrong kind of input.
    """

    Options = TowerOptions
    modality = IMAGE_TEXT

    def __init__(self, options: TowerOptions | None = None):
        super().__init__(options)
        for part, space in self.spaces.items():
            if space.modality != TOWER_MODALITIES[part]:
                raise ConfigError(
                    f"space.{part} is a search space that takes {MODALITIES.get(space.modality, space.modality)}; "
                    f"expected one that takes {MODALITIES[TOWER_MODALITIES[part]]}"
                )
        self.image_shape = self.spaces["image"].image_shape

    def prepare(self, tasks: Tasks, seed: int) -> None:
        for part, space in self.spaces.items():
            with plugin_call(space, "prepare"):
                space.prepare(tasks.part(TOWER_MODALITIES[part]), seed)

    def counts(self, architecture: Architecture, tokens: int) -> Mapping[str, float]:
        parts = super().counts(architecture, tokens)
        if not parts or not all(hasattr(space, "width") for space in self.spaces.values()):
            return {}
        width = self.options.width
        inputs = sum(space.width(self.part(architecture, part)) for part, space in self.spaces.items())
        # Two projections: each has biases and is followed by a LayerNorm.
        joint = {"params": inputs * width + 6 * width, "flops": 2 * inputs * width}
        return {metric: parts[metric] + joint[metric] for metric in joint if metric in parts}

    def build(self, architecture: Architecture) -> nn.Module:
        from search_spaces.tower.tower_model import TowerConfig, TowerModel

        towers = {part: self.build_part(architecture, part) for part in self.spaces}
        widths = {f"{part}_width": embedding_width(self.spaces[part], tower) for part, tower in towers.items()}
        return TowerModel(TowerConfig(**widths, width=self.options.width, join=self.options.join), **towers)

    def save(self, model: nn.Module, architecture: Architecture, folder: Path) -> None:
        """Write a folder for each tower, in the format of its space, plus the projections and the model code.

        ``AutoModel.from_pretrained(folder, trust_remote_code=True)`` loads the result without nas-meta.
        """
        for part, space in self.spaces.items():
            (folder / part).mkdir(parents=True)
            space.save(getattr(model, part), self.part(architecture, part), folder / part)
        model.save_joint(folder)

    def load(self, folder: Path) -> nn.Module:
        """Load the model with the installed classes; code in the folder is not run.

        Raises:
            ValueError: The folder does not contain a two-tower model.
        """
        from search_spaces.tower.tower_model import JOINT, TowerConfig, TowerModel

        if TowerConfig.get_config_dict(folder)[0].get("model_type") != TowerConfig.model_type:
            raise ValueError(f"it is not a two-tower model; expected model_type {TowerConfig.model_type}")
        towers = {part: space.load(folder / part) for part, space in self.spaces.items()}
        return TowerModel.joined(TowerConfig.from_pretrained(folder), **towers, weights=folder / JOINT)


def embedding_width(space: SearchSpace, model: nn.Module) -> int:
    """Measure the embedding width of a model.

    Args:
        space: The search space that built the model.
        model: The model.

    Returns:
        The width of one embedding.
    """
    from nas_meta.models.encoder import Encoder
    from nas_meta.models.inputs import example_inputs

    return Encoder(model, example=example_inputs(space, 1, 1)).width

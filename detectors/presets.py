"""Presets: settings of a detector under a name, each with its source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

#: The preset of a training that names none.
PAPER = "paper"
REPO = "repo"
TABLE4 = "table4"
QUICK = "quick"


@final
@dataclass(frozen=True, kw_only=True)
class Preset:
    """Settings of a detector, beside the defaults of its configuration.

    Attributes:
        source: where the settings come from, as a sentence.
        settings: values by parameter.
        by_category: further values by parameter, for the category of a data set that they are meant for.
    """

    source: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    by_category: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def of_category(self, category: str) -> dict[str, Any]:
        """Return the values by parameter that are meant for a category alone; none where it is not listed."""
        return dict(self.by_category.get(category, {}))


def of_table_4(side_px: int) -> Preset:
    """The preset of a run on the RGB images of MVTec 3D-AD, by Table 4 of Zheng et al. (2022, arXiv 2205.14852).

    The table says backbone and input size; the backbone is each method's default. Frames are resized as a whole, since
    the pixels of Table 6 are all those of an image.

    Args:
        side_px: height and width of the input, in pixels.
    """
    return Preset(
        source="Zheng et al. (2022), Table 4: their runs on the RGB images of MVTec 3D-AD; all else as in the paper.",
        settings={"resize_px": side_px, "crop_px": side_px},
    )

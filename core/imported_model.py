"""What an imported model takes and gives, which its file does not say: the JSON file of ``lineproof import onnx``."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, final

from .errors import UsageError
from .size import Size, size_text
from .spec import Fit, Preprocessing
from .tiles import Tiles

_LARGEST = {"0..1": 1.0, "0..255": 255.0}
_CHANNELS = {"rgb": 3, "bgr": 3, "mono": 1}


@final
@dataclass(frozen=True, kw_only=True)
class ImportedModel:
    """What an imported model takes and gives; what matters has no default, so that nothing is guessed.

    A frame is resized as a whole, cropped at its centre, scaled to ``value_range``, and ``(value - mean) / std`` is
    what the model takes. Where there are tiles, that is done to each of them. Its map covers the whole of its input.

    Attributes:
        frame_height_px: height of the camera frame.
        frame_width_px: width of the camera frame.
        frame_channels: 3 (RGB) or 1 (mono; repeated to three channels for a model that takes three).
        fit: how an image of another size is brought to the frame; "none" refuses it.
        bit_depth: bits that the camera used in 16-bit images, 8 to 16; null takes all 16.
        tiles: how the frame is cut into tiles, each of which the model takes as an image; null looks at the whole.
        resize_px: height and width that the frame, or each tile, is resized to, bilinear with antialiasing; null for
            no resize.
        crop_px: height and width of the centre crop after that, which is what the model takes; null for no crop, as
            tiles need.
        value_range: "0..1" or "0..255": what black and white are before mean and std.
        mean: mean per channel that is subtracted, in units of value_range and in the model's order of channels.
        std: standard deviation per channel that is divided by, likewise.
        channel_order: "rgb", "bgr" or "mono": the order of channels that the model takes.
        layout: "NCHW" or "NHWC": the order of axes that the model takes.
        input: name of the model's input.
        score: name of the output with the score of each image, larger is more anomalous; null where there is none.
        anomaly_map: name of the output with the anomaly map, larger is more anomalous; null where there is none.
        score_from_map: how the score is made where the model gives none: "max", the highest value of its map, or K,
            the mean of the K highest. They are those of the model's own map, before it is enlarged.

    Raises:
        UsageError: a value is out of its range, or contradicts another one.
    """

    frame_height_px: int
    frame_width_px: int
    frame_channels: Literal[1, 3]
    fit: Fit = "none"
    bit_depth: int | None = None
    tiles: Tiles | None = None
    resize_px: Size | None
    crop_px: Size | None
    value_range: Literal["0..1", "0..255"]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channel_order: Literal["rgb", "bgr", "mono"]
    layout: Literal["NCHW", "NHWC"]
    input: str
    score: str | None
    anomaly_map: str | None
    score_from_map: Literal["max"] | int | None = None

    def __post_init__(self) -> None:
        self._check_sizes()
        self._check_channels()
        self._check_outputs()
        # It checks that the crop fits into the resized frame, and tiles into the frame.
        _ = self.preprocessing

    def _check_sizes(self) -> None:
        frame = self.frame_shape[:2]
        for name, size in (("The frame", frame), ("resize_px", self.resize_px), ("crop_px", self.crop_px)):
            if size is not None and min(size) < 1:
                raise UsageError(f"{name} is {size[0]}x{size[1]} (height x width); expected 1 or more on each side.")
        if self.tiles and self.input_px != self.resized_px:
            raise UsageError(
                f"tiles and a centre crop (crop_px) from {size_text(self.resized_px)} to {size_text(self.input_px)} "
                f"leave stripes between tiles that nobody sees. Crop nothing: crop_px null, and resize_px "
                f"{list(self.input_px)}."
            )

    def _check_channels(self) -> None:
        num = _CHANNELS[self.channel_order]
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != num:
                raise UsageError(
                    f"{name} holds {len(values)} values; expected {num}, one per channel of channel_order "
                    f"{self.channel_order!r}."
                )
        if not all(value > 0 and math.isfinite(value) for value in self.std):
            raise UsageError(f"std is {list(self.std)}; expected values above 0. Write 1 where nothing is divided.")
        if num == 1 and self.frame_channels == 3:
            raise UsageError(
                "channel_order is 'mono' and frame_channels is 3: which grey an RGB frame has is not defined here. "
                "Let the camera give mono frames (frame_channels 1)."
            )

    def _check_outputs(self) -> None:
        if self.score is None and self.anomaly_map is None:
            raise UsageError("score and anomaly_map are both null; expected the name of one output at least.")
        if self.score is not None and self.score == self.anomaly_map:
            raise UsageError(f"score and anomaly_map are both {self.score!r}; expected two outputs, or null for one.")
        if self.score is not None and self.score_from_map is not None:
            raise UsageError(
                f"score is {self.score!r} and score_from_map {self.score_from_map!r}: the score would be made twice. "
                "Leave one of them null."
            )
        if self.score is None and self.score_from_map is None:
            raise UsageError(
                'score is null; expected score_from_map to say how it is made of the map: "max", or K for the mean of '
                "the K highest values."
            )
        if isinstance(self.score_from_map, int) and self.score_from_map < 1:
            raise UsageError(f"score_from_map is {self.score_from_map}; expected 1 or more values of the map.")

    @property
    def num_channels(self) -> int:
        """Number of channels that the model takes."""
        return _CHANNELS[self.channel_order]

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of a frame."""
        return self.frame_height_px, self.frame_width_px, self.frame_channels

    @property
    def num_tiles(self) -> int:
        """How many images of a frame the model takes: its tiles, or the one that is the whole."""
        return self.tiles.num(self.frame_shape[:2]) if self.tiles else 1

    @property
    def resized_px(self) -> Size:
        """Height and width after the resize."""
        return self.resize_px or (self.tiles.size if self.tiles else self.frame_shape[:2])

    @property
    def input_px(self) -> Size:
        """Height and width of what the model takes."""
        return self.crop_px or self.resized_px

    @property
    def largest_value(self) -> float:
        """What white is before mean and std: 1 or 255."""
        return _LARGEST[self.value_range]

    @property
    def preprocessing(self) -> Preprocessing:
        """The same as bundles say it: mean and standard deviation on RGB in [0, 1]."""
        mean, std = (_on_rgb(values, self) for values in (self.mean, self.std))
        spec = Preprocessing.of(
            self.frame_shape,
            self.resized_px,
            self.input_px,
            normalisation=(mean, std),
            fit=self.fit,
            bit_depth=self.bit_depth,
        )
        return replace(spec, tiles=self.tiles)

    def input_shape(self) -> tuple[int, int, int]:
        """Sizes of the model's input after the batch, in its layout."""
        height, width = self.input_px
        shape = (self.num_channels, height, width)
        return shape if self.layout == "NCHW" else (height, width, self.num_channels)

    def score_words(self) -> str:
        """Where the score comes from, in words."""
        if self.score is not None:
            words = f"output {self.score}"
        elif self.score_from_map == "max":
            words = f"the highest value of output {self.anomaly_map}"
        else:
            words = f"the mean of the {self.score_from_map} highest values of output {self.anomaly_map}"
        if self.tiles is None:
            return words
        return f"{words}, the largest of the frame's {self.num_tiles} tiles of {self.tiles.words()}"

    def input_words(self) -> str:
        """What the model takes, in words."""
        return f"{self.channel_order.upper()} {size_text(self.input_px)} {self.layout} in {self.value_range}"


def _on_rgb(values: tuple[float, ...], model: ImportedModel) -> tuple[float, float, float]:
    """Values per channel of a model as values on RGB in [0, 1]."""
    scaled = [value / model.largest_value for value in values]
    red, green, blue = scaled * 3 if len(scaled) == 1 else scaled
    return (blue, green, red) if model.channel_order == "bgr" else (red, green, blue)

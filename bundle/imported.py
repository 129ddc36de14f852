"""The record of where an imported detector came from, in the run's record and in the manifest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, final, get_args

import numpy as np
from numpy.typing import NDArray

from ..core.errors import BadInputError
from ..core.prediction import Prediction

#: In what units a bundle gives scores: the detector's own, or anomalib's, from 0 to 1 with the threshold at 0.5.
ScoreScale = Literal["native", "anomalib"]
#: Share of the range of scores by which an imported threshold is moved, see ``ImportRecord.threshold``.
_MOVED = 1e-5
SCORE_SCALES: tuple[ScoreScale, ...] = get_args(ScoreScale)


@final
@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """The three numbers with which anomalib normalises scores: ``clamp((x - threshold) / (high - low) + 0.5, 0, 1)``.

    Attributes:
        threshold: score that becomes 0.5.
        low: lowest score of the validation images.
        high: highest one.
    """

    threshold: float
    low: float
    high: float

    def apply(self, values: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Scores, of any shape, on that scale: float32 in [0, 1], in anomalib's own arithmetic and its order."""
        threshold, low, high = (np.float32(number) for number in (self.threshold, self.low, self.high))
        normalised = (np.asarray(values, np.float32) - threshold) / (high - low) + np.float32(0.5)
        return np.asarray(np.clip(normalised, np.float32(0.0), np.float32(1.0)))


@final
@dataclass(frozen=True, kw_only=True)
class ImportRecord:
    """What an imported detector brought with it.

    Attributes:
        library: library that trained it, such as ``anomalib``.
        library_version: version of that library as far as the file tells it; ``""`` where it does not.
        model: name of the method there.
        file: name of the file, without its folder.
        sha256: hash of its bytes, hexadecimal.
        mean: mean of its normalisation per RGB channel, values in [0, 1].
        std: standard deviation of its normalisation, likewise.
        image: how it normalises scores of images; None where the file holds no such numbers.
        pixel: how it normalises anomaly maps, likewise.
        image_sensitivity: share by which its threshold of normalised scores is lowered: it is 1 - sensitivity.
        pixel_sensitivity: the same of the map.
        score_scale: units in which the bundle's graph gives scores and maps.
        has_threshold: whether the file holds a threshold of image scores; where not, that of ``image`` is the middle
            of its range and decides nothing.
        is_inclusive: whether a score that equals the threshold is NG there, as in anomalib before 2.0.
        good_split: split of the data set given at the import whose good images made the golden frames: ``validation``,
            ``test`` or ``train``.
    """

    library: str
    library_version: str
    model: str
    file: str
    sha256: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    image: Normalisation | None = None
    pixel: Normalisation | None = None
    image_sensitivity: float = 0.5
    pixel_sensitivity: float = 0.5
    score_scale: ScoreScale = "native"
    has_threshold: bool = True
    is_inclusive: bool = False
    good_split: str = ""

    @property
    def threshold(self) -> float | None:
        """The library's threshold in units of the bundle's scores, a little moved; None where the file holds none.

        anomalib takes a part's own score as the threshold, and calls anomalous what is above it, so that this part is
        good there; releases before 2 call it anomalous. In other arithmetic its score may come out a last digit higher
        or lower: the threshold is moved away from it by 1e-5 of the range of scores, several times what engines differ
        by.
        """
        if self.image is None or not self.has_threshold:
            return None
        if self.score_scale == "anomalib":
            return self.normalised_threshold
        return self.image.threshold + (self.normalised_threshold - 0.5) * (self.image.high - self.image.low)

    @property
    def normalised_threshold(self) -> float:
        """The same threshold in units of normalised scores, where it is 1 - sensitivity."""
        return 1.0 - self.image_sensitivity + (-_MOVED if self.is_inclusive else _MOVED)

    def normalised(self, prediction: Prediction) -> Prediction:
        """Scores and maps of the bundle on the library's scale, float32 in [0, 1], in the order of its arithmetic.

        Args:
            prediction: what the bundle's graph gave.

        Raises:
            BadInputError: the file does not say what that scale is.
        """
        self.check_normalisation()
        if self.score_scale != "native":
            return prediction
        score, anomaly_map = (
            item.apply(values) if item else values
            for values, item in ((prediction.score, self.image), (prediction.anomaly_map, self.pixel))
        )
        return Prediction(score, anomaly_map)

    @property
    def threshold_caveat(self) -> str:
        """What the threshold of its bundle was set on, in a sentence; "" where there is nothing to say of it."""
        if self.has_threshold and self.image:
            return (
                f"{self.library}'s own threshold was set on the images of its validation, by default the test images: "
                "accuracy at it may be too good, and where none of them was defective it is the lowest score of a good "
                "part. Set one of your own on good parts that training had no part in: lineproof calibrate."
            )
        return f"{self.file} holds no threshold. {self.split_caveat}" if self.split_caveat else ""

    @property
    def split_caveat(self) -> str:
        """What it means that a threshold was set on these good images, in a sentence; "" where it means nothing."""
        words = {
            "test": "good test images: accuracy on them is too good.",
            "train": "good training images, which the detector may have been fitted to: it rejects more parts on the "
            "line than its figures say.",
        }
        set_on = words.get(self.good_split)
        return f"This one was set on {set_on}" if set_on else ""

    def check_scale(self) -> None:
        """Raise BadInputError where scores shall be on the library's scale and the file does not say what that is."""
        if self.score_scale != "native":
            self.check_normalisation()

    def check_normalisation(self) -> None:
        """Raise BadInputError where the file does not say how the library normalises scores and maps."""
        for what, item in (("image scores", self.image), ("anomaly maps", self.pixel)):
            if item is None or not item.high > item.low:
                seen = "does not say how it normalises" if item is None else "has one value only in the range of"
                raise BadInputError(
                    f"{self.file} {seen} {what}; expected a threshold, and a lowest and a highest value of validation "
                    "images. Import it with --score-scale native, or run anomalib's validation and save it again."
                )

    def sentence(self) -> str:
        """Where the detector came from, for people, in one line."""
        version = f" {self.library_version}" if self.library_version else ""
        units = "its own units" if self.score_scale == "native" else f"units of {self.library} (0 to 1)"
        return (
            f"Imported from {self.library}{version}: {self.model} of {self.file} (sha256 {self.sha256[:16]}…); scores "
            f"in {units}."
        )

"""The base class of every kind of input; a kind adds how it is decoded, resized, padded and shown."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Literal, TypeVar, final

import numpy as np
from numpy.typing import NDArray

from ...core.errors import BadInputError, UsageError
from ...core.geometry import nearest_pixels
from ...core.inputs import InputSpec
from ...core.size import Size
from ...core.spec import FrameRule, Frames, TensorSpec
from ..decoding.conversions import Conversions, ImageFacts
from ..masks import read_mask, upright_shape
from ..records import Sample
from .fitting import centre, check_fits, margins

#: What people are shown of a frame: an image; of a scan its colours, or its depth as grey.
View = Literal["image", "rgb", "depth"]

Spec_co = TypeVar("Spec_co", bound=InputSpec | FrameRule, covariant=True)


@dataclass(frozen=True)
class AbstractInput(ABC, Generic[Spec_co]):
    """Frames of one specification, from the file to what the graph takes.

    A frame is one array (H, W, C), several are one array (N, H, W, C): images uint8, everything else float32, whose
    last three channels hold RGB from 0 to 255 where there is RGB. Training, golden frames, thresholds, verify,
    evaluate, calibrate, run and the galleries read frames here, so that a file has one score whoever asks.

    Attributes:
        spec: specification of the frames: size, fit, and what else the kind needs.
    """

    spec: Spec_co

    @property
    @abstractmethod
    def dtype(self) -> str:
        """NumPy name of a frame's element type."""

    @property
    @abstractmethod
    def orders(self) -> tuple[str, ...]:
        """Names of the orders of channels that frames may have; the first is the graph's own."""

    @abstractmethod
    def _decode(self, path: Path) -> tuple[Frames, ImageFacts | None]:
        """Read a file, and those that belong to it, at its own size; with facts about its colours, if any."""

    @abstractmethod
    def _stretch(self, image: Frames) -> Frames:
        """Resize (h, w, C) to the frame."""

    @abstractmethod
    def _pad(self, image: Frames, widths: tuple[tuple[int, int], ...]) -> Frames:
        """Surround (h, w, C) by so many pixels before and behind along each axis."""

    @property
    def views(self) -> tuple[View, ...]:
        """What people can be shown of a frame, the default first."""
        return ("image",)

    @abstractmethod
    def as_rgb(self, frame: Frames, view: View | None = None) -> NDArray[np.uint8]:
        """A frame for people: (H, W, C) → uint8 (H, W, 3); None takes the default view."""

    def view_words(self, view: View) -> str:
        """What a view shows, for a caption."""
        return view

    @abstractmethod
    def _distorted(self, patch: Frames) -> Frames:
        """A piece of a frame as no good part has it."""

    @property
    def frame_size(self) -> Size:
        """Height and width of a frame in pixels."""
        return self.spec.frame_shape[:2]

    @property
    def frames(self) -> TensorSpec:
        """Several frames as they are read, (N, H, W, C); ``prepare`` makes the graph's input of them."""
        return TensorSpec("frames", self.dtype, ("N", *self.spec.frame_shape))

    def conversions(self) -> Conversions:
        """An empty account of what decoding does to the colours of files."""
        return Conversions(channels=3)

    @final
    def read(self, path: Path | str, *, conversions: Conversions | None = None) -> Frames:
        """Read a file as the frame that a bundle takes.

        Args:
            path: the file; of a scan, either its cloud or its image, see ``data.inputs.scan``.
            conversions: account to which the conversion of this file's colours is added; None keeps no account.

        Returns:
            (H, W, C) of ``dtype``, contiguous and writable.

        Raises:
            BadInputError: the file cannot be decoded or brought to the frame by its fit, or shows nothing that could
                be judged.
        """
        image, facts = self._decode(Path(path))
        try:
            frame = self.fit(image)
            self.check_seen(frame)
        except BadInputError as error:
            raise BadInputError(f"{path}: {error}") from None
        if conversions is not None and facts is not None:
            conversions.add(facts)
        return frame

    @final
    def decode(self, path: Path | str) -> Frames:
        """Read a file at its own size: (h, w, C) of ``dtype``.

        Raises:
            BadInputError: it cannot be decoded.
        """
        return self._decode(Path(path))[0]

    @final
    def fit(self, image: Frames) -> Frames:
        """Bring what was decoded, or came from a camera, to the frame.

        Args:
            image: (h, w, C) of ``dtype``.

        Returns:
            (H, W, C); the image itself where it has the frame's size.

        Raises:
            BadInputError: the fit does not take that size.
        """
        size, frame = _size_of(image), self.frame_size
        check_fits(size, frame, fit=self.spec.fit)
        if size == frame:
            return image
        if self.spec.fit == "stretch":
            return self._stretch(image)
        if self.spec.fit == "pad":
            return self._pad(image, (*margins(size, frame), (0, 0)))
        return np.ascontiguousarray(image[centre(size, frame)])

    @final
    def fit_mask(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Bring a mask to the frame as ``fit`` brings its image.

        Args:
            mask: bool (h, w), at its image's size, True where anomalous.

        Returns:
            bool (H, W). Stretched: each pixel takes the mask at its centre. A padded border is False.

        Raises:
            BadInputError: the fit does not take that size.
        """
        size, frame = _size_of(mask), self.frame_size
        check_fits(size, frame, fit=self.spec.fit)
        if size == frame:
            return mask
        if self.spec.fit == "stretch":
            return np.asarray(nearest_resize(mask, frame))
        if self.spec.fit == "pad":
            return np.pad(mask, margins(size, frame))
        return np.ascontiguousarray(mask[centre(size, frame)])

    @final
    def read_mask(self, sample: Sample) -> NDArray[np.bool_] | None:
        """The ground truth of a sample on its frame, see ``data.masks.read_mask``.

        Returns:
            bool (H, W), True where anomalous; None where the sample has no mask.

        Raises:
            BadInputError: a mask cannot be read, or is not of its image's size.
        """
        is_known = self.spec.fit == "none" or not sample.mask_paths
        # What cannot be read raises on being decoded.
        known = self.frame_size if is_known else upright_shape(sample.path)
        size = known or _size_of(self.decode(sample.path))
        mask = read_mask(sample, expected_shape=size)
        return None if mask is None else self.fit_mask(mask)

    @final
    def check(self, frames: Frames) -> None:
        """Raise BadInputError unless frames (N, H, W, C) have the dtype and shape of this input, and finite values."""
        self.frames.check(frames, advice=self.spec.advice)
        if frames.dtype.kind == "f" and not np.isfinite(frames).all():
            first = int(np.flatnonzero(~np.isfinite(frames).all(axis=(1, 2, 3)))[0])
            raise BadInputError(
                f"frames hold NaN or infinity, first in frame {first}; expected finite values. Write 0 where "
                "nothing was measured."
            )
        for frame in frames:
            self.check_seen(frame)

    def check_seen(self, frame: Frames) -> None:
        """Raise BadInputError where a frame (H, W, C) shows nothing that could be judged; images always show it."""

    def frame_of(self, xyz: NDArray[np.floating] | None, rgb: NDArray[np.uint8] | None) -> Frames:
        """Return the frame of a scan in memory; inputs of scans alone have one.

        Args:
            xyz: points, see ``AbstractScanInput.frame_of``.
            rgb: colours beside them, or None.

        Raises:
            UsageError: the input takes images.
        """
        del xyz, rgb
        raise UsageError("The bundle takes images: give a frame alone, without xyz and rgb.")

    @final
    def check_order(self, order: str | None) -> str:
        """The order of channels that ``order`` names; None is the graph's own.

        Raises:
            UsageError: frames of this input cannot have that order.
        """
        if order is not None and order not in self.orders:
            raise UsageError(
                f"order (--order) is {order!r}; this bundle takes {self.orders[0]} frames: expected "
                f"{' or '.join(self.orders)}."
            )
        return order or self.orders[0]

    @final
    def in_own_order(self, frames: Frames, *, order: str) -> Frames:
        """Frames in one of ``orders`` as the graph takes them: red and blue are exchanged where they must be."""
        if order == self.orders[0]:
            return frames
        turned = frames.copy()
        turned[..., -3:] = frames[..., :-4:-1]
        return turned

    @final
    def check_view(self, view: str | None) -> View:
        """The view that a word names; None is the default.

        Raises:
            UsageError: frames of this input cannot be shown so.
        """
        for known in self.views:
            if view in (None, known):
                return known
        raise UsageError(f"view (--view) is {view!r}; frames of this bundle can be shown as {' or '.join(self.views)}.")

    def prepare(self, frames: Frames) -> Frames:
        """Checked frames as the graph takes them: what the host computes, nothing for most kinds.

        Args:
            frames: (N, H, W, C) as ``check`` takes them.

        Returns:
            What ``spec.frames`` says.
        """
        return frames

    @final
    def marked(self, frame: Frames, *, seed: int) -> Frames:
        """The frame with a distorted patch of itself elsewhere: no defect of the product, but clearly abnormal.

        Args:
            frame: (H, W, C) of ``dtype``.
            seed: seed of the two places; the same seed marks the same pixels.
        """
        height, width = frame.shape[0] // 6, frame.shape[1] // 6
        rng = np.random.default_rng(seed)
        rows, columns = rng.integers(0, frame.shape[0] - height, 2), rng.integers(0, frame.shape[1] - width, 2)
        copy = frame.copy()
        patch = frame[rows[0] : rows[0] + height, columns[0] : columns[0] + width]
        copy[rows[1] : rows[1] + height, columns[1] : columns[1] + width] = self._distorted(patch)
        return copy


def nearest_resize(image: Frames | NDArray[np.bool_], size: Size) -> NDArray[np.uint8 | np.float32 | np.bool_]:
    """Each pixel takes the value under its centre: (h, w, …) → (*size, …), a copy."""
    rows, columns = (nearest_pixels(*pair) for pair in zip(size, image.shape[:2], strict=True))
    return np.asarray(image[np.ix_(rows, columns)])


def _size_of(image: Frames | NDArray[np.bool_]) -> Size:
    return image.shape[0], image.shape[1]

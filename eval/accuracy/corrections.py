"""Corrections of the ground truth: images to relabel, masks to replace, images to leave out.

The file is JSON::

    {
      "corrections_version": 1,
      "corrections": {
        "test/good/012.png": {"label": "defective", "mask": "masks/012.png", "why": "scratch at the head"},
        "test/scratch/003.png": {"label": "good", "why": "dust, gone after cleaning"},
        "test/crack/007.png": {"mask": "masks/007.png", "why": "the second crack was not drawn"},
        "test/colour/001.png": {"ignore": true, "why": "inspectors disagree"}
      }
    }

Images are named as in the outputs: relative to the category's folder. Masks are relative to the JSON file, at the
size of the image, above 0 where anomalous. An image called defective without a mask has unknown pixels.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, final

import numpy as np
from numpy.typing import NDArray

from ...core.errors import BadInputError
from ...data.decoding.decode import decode_mask
from ..masks import pack_mask
from .outputs import Outputs

_KEYS = frozenset({"label", "mask", "ignore", "why"})


@final
@dataclass(frozen=True, kw_only=True)
class Correction:
    """Correction of the ground truth of one image.

    Attributes:
        label: the right label; None leaves the label as it is.
        mask: file with the right mask; None leaves the mask as it is, unless the label changes.
        is_ignored: whether the image is left out.
        why: the reason, for people.
    """

    label: Literal["good", "defective"] | None = None
    mask: Path | None = None
    is_ignored: bool = False
    why: str = ""


def read_corrections(path: Path) -> dict[str, Correction]:
    """Read a file of corrections, by the image that each is about; the module's docstring shows the format.

    Raises:
        BadInputError: the file cannot be read or has another format; the message names the entry.
    """
    try:
        raw = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise BadInputError(
            f"{path}: the corrections cannot be read ({error}); expected a JSON file. docs/badcases.md shows one."
        ) from None
    if not isinstance(raw, dict) or raw.get("corrections_version") != 1 or not isinstance(raw.get("corrections"), dict):
        raise BadInputError(
            f'{path}: expected {{"corrections_version": 1, "corrections": {{"test/good/000.png": …}}}}; '
            "docs/badcases.md shows one."
        )
    return {file: _read(entry, f"{path}: {file}", path.parent) for file, entry in raw["corrections"].items()}


def _read(entry: Any, where: str, folder: Path) -> Correction:
    if not isinstance(entry, dict) or not set(entry) <= _KEYS or not set(entry) - {"why"}:
        raise BadInputError(f"{where}: the entry is {entry!r}; expected an object with label, mask or ignore, and why.")
    label, mask, is_ignored = entry.get("label"), entry.get("mask"), entry.get("ignore", False)
    if label not in (None, "good", "defective") or not isinstance(is_ignored, bool):
        raise BadInputError(
            f'{where}: label is {label!r} and ignore is {is_ignored!r}; expected "good" or "defective", and a boolean.'
        )
    if mask is not None and (label == "good" or is_ignored or not (folder / str(mask)).is_file()):
        seen = "needs no mask" if label == "good" or is_ignored else f"mask {folder / str(mask)} does not exist"
        raise BadInputError(f"{where}: {seen}. Give a mask file for a defective image only.")
    return Correction(
        label=label,
        mask=None if mask is None else folder / str(mask),
        is_ignored=is_ignored,
        why=str(entry.get("why", "")),
    )


def correct(outputs: Outputs, corrections: Mapping[str, Correction]) -> Outputs:
    """The outputs with the corrected ground truth; scores and maps stay.

    Args:
        outputs: scores, maps and truth of the images.
        corrections: file, as the outputs name it → correction.

    Raises:
        BadInputError: an image is not among the outputs, a good image gets a mask but no label, or a mask has another
            size than the frames.
    """
    places = {file: index for index, file in enumerate(outputs.files)}
    unknown = sorted(set(corrections) - set(places))
    if unknown:
        raise BadInputError(
            f"{len(unknown)} of {len(corrections)} corrected images are not among these {len(outputs)}: "
            f"{', '.join(unknown[:5])}. Images are named like {outputs.files[0]}."
        )
    label, has_mask, mask = outputs.label.copy(), outputs.has_mask.copy(), np.array(outputs.packed_mask)
    defects, is_used = list(outputs.defects), np.ones(len(outputs), np.bool_)
    for file, item in corrections.items():
        at = places[file]
        is_used[at] = not item.is_ignored
        if item.label is not None:
            changed = label[at] != (item.label == "defective")
            label[at] = item.label == "defective"
            defects[at] = "good" if item.label == "good" else (defects[at] if not changed else "corrected")
            mask[at], has_mask[at] = (0, item.label == "good") if changed else (mask[at], has_mask[at])
        if item.mask is not None:
            if not label[at]:
                raise BadInputError(f'{file}: the image is labelled good and gets a mask; add "label": "defective".')
            mask[at], has_mask[at] = _mask(item.mask, outputs), True
    changed_outputs = dataclasses.replace(
        outputs, defects=tuple(defects), label=label, has_mask=has_mask, packed_mask=mask
    )
    return changed_outputs if is_used.all() else changed_outputs.take(np.flatnonzero(is_used))


def _mask(path: Path, outputs: Outputs) -> NDArray[np.uint8]:
    spec = outputs.source.preprocessing
    return pack_mask(decode_mask(path, expected_shape=(spec.frame_height_px, spec.frame_width_px)))

"""The causes for which a file that anomalib exported disagrees with its checkpoint, each isolated by its own run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
from numpy.typing import NDArray

from ...bundle.imported import ImportRecord
from ...core.errors import BadInputError, EnvironmentMissingError
from ...core.progress import Progress
from ...core.words import counted
from ...runtime.exported import ExportedFile, OpenVinoFile
from ...runtime.original import Outputs
from .diagnosis import Finding

#: A score this near to the threshold, on anomalib's scale, is decided by rounding.
_TIE = 1e-4
#: Scores that agree so far, on anomalib's scale, are the same; two formulas for a distance differ by less.
_SAME = 2e-3
#: A threshold that rejects so large a share of the good images is none to inspect by.
_TOO_MANY = 0.25

Scores = NDArray[np.float64]
#: Number of an image → the image, float32 (3, H, W) in [0, 1].
Images = Callable[[int], NDArray[np.float32]]


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """What every cause is looked for in.

    Attributes:
        imported: thresholds and scale of the checkpoint.
        labels: 1 for each defective image, int64 (N,).
        reference: normalised scores of the checkpoint's model, float64 (N,).
        raw: its scores before normalisation.
        names: name of each image.
        own_size: images at their own size.
        resized: images resized with antialias to the model's size.
    """

    imported: ImportRecord
    labels: NDArray[np.int64]
    reference: Scores
    raw: Scores
    names: tuple[str, ...]
    own_size: Images
    resized: Images

    @property
    def limit(self) -> float:
        """The threshold of normalised scores, as anomalib computes it."""
        return float(np.float32(1.0) - np.float32(self.imported.image_sensitivity))

    @property
    def verdicts(self) -> NDArray[np.bool_]:
        """True for each image that the checkpoint's model calls anomalous."""
        return self.reference > self.limit


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Answers:
    """What a file gave for all images: scores float64 (N,), and verdicts bool (N,), its own where it gives some."""

    scores: Scores
    verdicts: NDArray[np.bool_]
    has_labels: bool


def is_free_size(file: ExportedFile) -> bool:
    """Whether a file takes images of any size, so that it resizes them itself."""
    return file.shape[2] is None or file.shape[3] is None


def run_file(file: ExportedFile, case: Case, images: Images, stage: str, progress: Progress) -> Answers:
    """Run a file on all images, one at a time.

    Raises:
        BadInputError: it cannot be run on them, or gives no score.
    """
    scores, labels = [], []
    for index in range(len(case.names)):
        outputs = file.run(_batch_of(images(index), file))
        scores.append(_first(outputs, "pred_score"))
        labels.append(_first(outputs, "pred_label") if "pred_label" in outputs else None)
        progress(stage, index + 1, len(case.names))
    values = np.array(scores, np.float64)
    has_labels = labels[0] is not None
    verdicts = np.array(labels, bool) if has_labels else values > case.limit
    return Answers(scores=values, verdicts=verdicts, has_labels=has_labels)


def _batch_of(image: NDArray[np.float32], file: ExportedFile) -> NDArray[np.float32]:
    """One image as the file takes it: as often as its frozen batch is large."""
    return np.ascontiguousarray(np.broadcast_to(image[None], (file.shape[0] or 1, *image.shape)))


def _first(outputs: Outputs, name: str) -> float:
    if name not in outputs:
        raise BadInputError(
            f"The exported file has no output {name}; it has {', '.join(outputs)}. Expected a file of the export of "
            "anomalib 2.x."
        )
    return float(outputs[name].reshape(-1)[0])


def antialias(case: Case, seen: Answers, outside: Answers, *, is_free: bool) -> Finding:
    """Whether the file resizes otherwise than training did.

    Args:
        case: what it is looked for in.
        seen: the file's answers on images at their own size.
        outside: its answers on images resized with antialias before it.
        is_free: whether the file takes images of any size.
    """
    if not is_free:
        return Finding(
            cause="antialias",
            is_present=False,
            num_verdicts=None,
            evidence="The file takes images of one size only: who calls it resizes them. They were given resized with "
            "antialias, as in training.",
        )
    cured = (seen.verdicts != case.verdicts) & (outside.verdicts == case.verdicts)
    error, rest = (float(np.abs(item.scores - case.reference).max()) for item in (seen, outside))
    before, after = (int((item.verdicts != case.verdicts).sum()) for item in (seen, outside))
    is_present = bool(cured.any()) or error > max(_SAME, 2.0 * rest)
    return Finding(
        cause="antialias",
        is_present=is_present,
        num_verdicts=int(cured.sum()),
        evidence=f"Images at their own size: scores off by up to {error:.4g}, "
        f"{counted(before, 'verdict differs', 'verdicts differ')}. Resized with "
        f"antialias before the file: {rest:.4g}, {after}.",
        cure="The file resizes without the antialias that training had. Resize images yourself with antialias, or take "
        "a bundle, whose graph does."
        if is_present
        else "",
    )


def frozen_batch(file: ExportedFile, case: Case) -> Finding:
    """Whether the file takes one number of images only."""
    frozen = file.shape[0]
    if frozen is None:
        return Finding(
            cause="batch", is_present=False, num_verdicts=None, evidence="The file takes any number of images at once."
        )
    image, refusal = case.resized(0)[None], "It runs on one image all the same."
    if frozen != 1:
        try:
            file.run(image)
        except BadInputError as error:
            refusal = str(error)
    return Finding(
        cause="batch",
        is_present=frozen != 1,
        num_verdicts=None,
        evidence=f"The file declares a batch of {frozen}. {refusal if frozen != 1 else ''}".rstrip(),
        cure="Every call must hold so many images; here each was given as often." if frozen != 1 else "",
    )


def arithmetic(exported: Path, case: Case, images: Images, progress: Progress) -> Finding:
    """Whether OpenVINO's own choice of arithmetic changes verdicts on this CPU."""
    try:
        default, exact = (OpenVinoFile(exported, compute_dtype=dtype) for dtype in (None, "f32"))
        chosen, wide = (
            run_file(item, case, images, f"OpenVINO, {item.arithmetic}", progress) for item in (default, exact)
        )
    except (EnvironmentMissingError, BadInputError) as error:
        return Finding(cause="arithmetic", is_present=False, num_verdicts=None, evidence=f"Not looked for: {error}")
    num, off = int((chosen.verdicts != wide.verdicts).sum()), float(np.abs(chosen.scores - wide.scores).max())
    is_present = default.arithmetic != exact.arithmetic and (num > 0 or off > _SAME)
    return Finding(
        cause="arithmetic",
        is_present=is_present,
        num_verdicts=num,
        evidence=f"OpenVINO computes in {default.arithmetic} here unless told otherwise: scores off by up to {off:.4g} "
        f"from {exact.arithmetic}, {counted(num, 'verdict differs', 'verdicts differ')}.",
        cure='Compile it with INFERENCE_PRECISION_HINT "f32".' if is_present else "",
    )


def ties(case: Case) -> Finding:
    """Whether a part's own score is the threshold."""
    near = np.abs(case.reference - case.limit) <= _TIE
    names = [name for name, is_near in zip(case.names, near, strict=True) if is_near]
    if not names:
        evidence = f"No score lies within {_TIE:g} of the threshold."
        return Finding(cause="tie", is_present=False, num_verdicts=0, evidence=evidence)
    return Finding(
        cause="tie",
        is_present=True,
        num_verdicts=len(names),
        evidence=f"{', '.join(names[:3])}: the score lies within {_TIE:g} of the threshold. anomalib takes a part's "
        "own score as its threshold, and rounding decides about that part.",
        cure="Set a threshold between scores: lineproof set-threshold, or calibrate.",
    )


def scale(case: Case, outside: Answers) -> Finding:
    """Whether the file gives raw scores where normalised ones are expected."""
    to_normalised, to_raw = (float(np.abs(outside.scores - item).max()) for item in (case.reference, case.raw))
    is_raw = to_raw < to_normalised and to_normalised > _SAME
    num = int(((outside.scores > case.limit) != case.verdicts).sum())
    return Finding(
        cause="scale",
        is_present=is_raw,
        num_verdicts=num if is_raw else 0,
        evidence=f"Its scores are {'raw' if is_raw else 'normalised'} ones: off by {to_normalised:.4g} from the "
        f"checkpoint's normalised scores, by {to_raw:.4g} from its raw ones.",
        cure=f"{case.limit:g} is no threshold for them; the checkpoint's is {_native(case.imported):.6g}."
        if is_raw
        else "",
    )


def _native(imported: ImportRecord) -> float:
    return imported.image.threshold if imported.image else float("nan")


def threshold(case: Case, outside: Answers) -> Finding:
    """Whether the file judges by another threshold than the checkpoint, or by none."""
    if not outside.has_labels:
        return Finding(
            cause="threshold",
            is_present=True,
            num_verdicts=None,
            evidence="The file gives no verdict of its own (no output pred_label): the threshold is lost in it.",
            cure=f"Compare pred_score with {case.limit:g}, and tell apart what is above.",
        )
    accepted, rejected = outside.scores[~outside.verdicts], outside.scores[outside.verdicts]
    low, high = accepted.max(initial=-np.inf), rejected.min(initial=np.inf)
    num = int((outside.verdicts != (outside.scores > case.limit)).sum())
    between = f"between {low:.6g} and {high:.6g}"
    return Finding(
        cause="threshold",
        is_present=num > 0,
        num_verdicts=num,
        evidence=f"Its own verdicts change {between}; the checkpoint's threshold of normalised scores is "
        f"{case.limit:g}. It stands in an unnamed constant of the file.",
        cure="The file was exported with another threshold. Export it again, or import the checkpoint." if num else "",
    )


def unexplained(case: Case, outside: Answers, *, is_raw: bool) -> Finding:
    """Whether the file disagrees also on images resized as in training, in float32: then it is another model.

    Args:
        case: what it is looked for in.
        outside: the file's answers on images resized with antialias before it, in ONNX Runtime.
        is_raw: whether its scores are raw ones, see ``scale``.
    """
    error = float(np.abs(outside.scores - (case.raw if is_raw else case.reference)).max())
    is_near = np.abs(case.reference - case.limit) <= _SAME
    num = int(((outside.verdicts != case.verdicts) & ~is_near).sum())
    is_present = error > _SAME and not is_raw
    return Finding(
        cause="another model",
        is_present=is_present,
        num_verdicts=num,
        evidence=f"On images resized as in training, in ONNX Runtime, scores are off by up to {error:.4g} and "
        f"{counted(num, 'verdict differs', 'verdicts differ')} away from the threshold.",
        cure="None of the causes above explains that: the file was exported from another checkpoint, or computes "
        "otherwise. Export it again, or import the checkpoint."
        if is_present
        else "",
    )


def calibration(case: Case) -> Finding:
    """Whether the checkpoint's own threshold rejects nearly all good parts."""
    good = case.reference[case.labels == 0]
    num = int((good > case.limit).sum())
    is_present = len(good) > 0 and num >= _TOO_MANY * len(good)
    cure = (
        "anomalib's threshold maximises F1 on its validation set, and is the lowest good score where that holds no "
        "defects. Set one on good parts: lineproof calibrate."
    )
    return Finding(
        cause="calibration",
        is_present=is_present,
        num_verdicts=num,
        evidence=f"At the checkpoint's own threshold {num} of {len(good)} good images are called anomalous, in the "
        "training's own arithmetic too.",
        cure=cure if is_present else "",
    )

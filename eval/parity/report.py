"""Parity report: verdicts and numbers of an engine beside those of the reference."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

from ...bundle.record import ParityState
from ...core.errors import LineproofError, ParityError
from ...core.used import UsedShare
from ...core.words import counted
from ...data.notes import NO_DATA, DataNotes
from ...metrics.operating import no_class_lines
from ...metrics.statistics import Difference, McNemar
from ..masks import RESOLUTIONS, Resolution
from ..predictions import Skipped, json_number
from .paired import Pair

_SHOWN = 5


@final
@dataclass(frozen=True, kw_only=True)
class FrameVerdict:
    """Verdicts of the reference and of the engine on one frame.

    Attributes:
        file: name of the image in the data set, or of the golden frame.
        origin: ``"golden"`` or ``"data"``.
        reference_score: score of the reference; None where it is NaN or infinite.
        engine_score: score of the engine; None where it is NaN or infinite.
        reference_verdict: verdict of the reference: ``"OK"``, ``"NG"``, or ``"ERR"`` where the score is not finite.
        engine_verdict: verdict of the engine: ``"OK"``, ``"NG"``, or ``"ERR"`` where the score is not finite.
        margin: reference score minus threshold, in units of the score; None where the score is not finite.
        is_tie: whether the reference score lies so near to the threshold that the reference itself decides nothing.
    """

    file: str
    origin: str
    reference_score: float | None
    engine_score: float | None
    reference_verdict: str
    engine_verdict: str
    margin: float | None
    is_tie: bool

    def __str__(self) -> str:
        reference = _with_score(self.reference_verdict, self.reference_score)
        engine = _with_score(self.engine_verdict, self.engine_score)
        margin = "" if self.margin is None else f", {abs(self.margin):.3g} {'above' if self.margin > 0 else 'below'}"
        return f"{self.file}: {reference}{margin and margin + ' the threshold,'} became {engine}"


@final
@dataclass(frozen=True)
class Margin:
    """The frame whose reference score lies nearest to the threshold.

    Attributes:
        file: name of the frame.
        margin: |reference score − threshold|, in units of the score.
    """

    file: str
    margin: float


@final
@dataclass(frozen=True, kw_only=True)
class ParityReport:
    """Whether an engine gives the reference's verdicts on the frames that both ran.

    Attributes:
        bundle: name of the bundle.
        model_sha256: SHA-256 of the graph, in hexadecimal.
        decision: digest of model, preprocessing and thresholds, see ``Manifest.decision``.
        state: ``passed``; ``failed``, where ``failures`` says why; or ``undecided``: no failure, but the share of ties
            is so large that equal verdicts prove nothing.
        engine: name of the engine under test.
        proof_name: name under which the manifest keeps the state, see ``runtime.engine.proof_name``.
        allow_fallback: whether the engine was allowed to fall back to another device; the report then proves nothing.
        precision: precision of the graph, ``"fp32"`` or ``"fp16"``.
        compute_dtype: arithmetic requested of the engine, ``"f32"`` or ``"bf16"``.
        reference: ``"golden"`` (outputs stored at export) or, where a data set was given as well, the engine that
            gave the reference on it.
        num_frames: number of frames compared.
        num_golden: number of golden frames among them.
        threshold: threshold of both verdicts, in units of the score: a frame is NG where its score is above.
        threshold_engine: name of the engine on whose scores that threshold was calibrated.
        verdict_flips: every frame on which the verdicts differ; those that are no ties are failures.
        ties: frames whose reference score lies within the score tolerance of the threshold: there the reference
            itself decides nothing.
        score_max_abs_error: largest |engine − reference| of the scores; None where a score is not finite.
        map_max_abs_error: largest |engine − reference| over all pixels of the maps; None where a value is not finite.
        score_range: largest minus smallest reference score of these frames; None where none is finite.
        map_range: largest minus smallest value of the reference maps of these frames; None where no map is finite.
        score_spread: standard deviation of scores of parts that are alike: of held-out good images, or of the
            defective frames where there are labels and theirs is smaller.
        score_tolerance: largest error allowed at the threshold, in units of the score; farther from it more is allowed,
            see ``Tolerance``.
        map_tolerance: largest error allowed, in units of the map.
        rank_correlation: Spearman's rank correlation of the scores; None where it is undefined.
        smallest_margin: the frame whose reference score lies nearest to the threshold; None where no score is finite.
        image_auroc: image AUROC of both on the data set, where it has both classes.
        pixel_auroc: pixel AUROC of both on the data set, where it has masks.
        aupro: AUPRO of both on the data set up to a false-positive rate of 0.3, where it has masks.
        pixel_resolution: resolution at which maps and masks were compared for these two.
        mcnemar: paired test of the verdicts on the data set's frames; left is the reference, right the engine.
        image_auroc_difference: engine minus reference on them, with a paired bootstrap interval.
        worst_frames: up to ten frames whose maps differ most, the worst first: (file, largest |engine − reference|).
        skipped_frames: images that could not be compared, and why.
        used: number of images of the data set that were compared, and the reasons for the others; 0 of 0 without one.
        num_defective: number of images compared that are labelled defective.
        failures: why the engine failed, one sentence each; empty where it passed.
        engine_details: version, device and settings, as the engine describes itself.
        environment: hardware and software on which this ran.
        conversions: what was done to the data set's images to make frames of them, in sentences.
        threshold_note: what a second fit of the detector means for this threshold, in a sentence; "" where there was
            none.
        part_note: one sentence on the difference between this data set and the one that the bundle was trained on, see
            ``check_same_part``; "" where there is none.
        data: description of the data set.
        library: library that trained an imported detector, where it gave the reference; such a report tells of the
            import and proves no engine. "" where an engine of ours did.
    """

    bundle: str
    model_sha256: str
    decision: str
    state: ParityState
    engine: str
    proof_name: str
    allow_fallback: bool
    precision: str
    compute_dtype: str
    reference: str
    num_frames: int
    num_golden: int
    threshold: float
    threshold_engine: str
    verdict_flips: tuple[FrameVerdict, ...]
    ties: tuple[FrameVerdict, ...]
    score_max_abs_error: float | None
    map_max_abs_error: float | None
    score_range: float | None
    map_range: float | None
    score_spread: float
    score_tolerance: float
    map_tolerance: float
    rank_correlation: float | None
    smallest_margin: Margin | None
    image_auroc: Pair
    pixel_auroc: Pair
    aupro: Pair
    pixel_resolution: Resolution
    mcnemar: McNemar | None
    image_auroc_difference: Difference | None
    worst_frames: tuple[tuple[str, float], ...]
    skipped_frames: tuple[Skipped, ...]
    used: UsedShare
    num_defective: int
    failures: tuple[str, ...]
    engine_details: dict[str, Any]
    environment: dict[str, Any]
    conversions: tuple[str, ...] = ()
    threshold_note: str = ""
    part_note: str = ""
    data: DataNotes = NO_DATA
    library: str = ""

    def __post_init__(self) -> None:
        if not self.environment:
            raise LineproofError(
                "A parity report was made without the environment it ran on; expected core.environment's description."
            )

    @property
    def notices(self) -> tuple[str, ...]:
        """What a person should know about the data set's images, in sentences."""
        return (*([self.part_note] if self.part_note else []), *self.conversions)

    @property
    def passed(self) -> bool:
        """Whether the engine is proved: nothing failed, and the verdicts decide."""
        return self.state == "passed"

    @property
    def tie_share(self) -> float:
        """Share of the frames that are ties, 0 to 1."""
        return len(self.ties) / self.num_frames if self.num_frames else 0.0

    def check(self, *, accept_undecided: bool = False) -> None:
        """Raise ParityError unless the engine is proved.

        Args:
            accept_undecided: whether an undecided report is accepted.

        Raises:
            ParityError: the engine failed, or the report is undecided and that is not accepted.
        """
        if self.passed or (accept_undecided and self.state == "undecided"):
            return
        if self.state == "undecided":
            raise ParityError(
                f"{self.proof_name} gives the reference's verdicts on bundle {self.bundle}, but {len(self.ties)} of "
                f"{self.num_frames} frames are ties, which proves nothing. Verify with --data on more parts, set a "
                "threshold that lies apart from the scores of good parts, or accept it with --accept-undecided."
            )
        more = len(self.failures) - 3
        raise ParityError(
            f"{self.proof_name} does not give the reference's answers on bundle {self.bundle}: "
            + " ".join(self.failures[:3])
            + (f" And {more} more." if more > 0 else "")
            + " Do not put this engine on the line; choose another engine or precision, or export again."
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; numbers that are not finite are None."""
        plain = dataclasses.asdict(self)
        plain["skipped_frames"] = [item.to_dict() for item in self.skipped_frames]
        plain.update({"used": self.used.to_dict(), "data": self.data.to_dict()})
        plain.update({name: list(plain[name]) for name in ("verdict_flips", "ties", "failures", "conversions")})
        return {"passed": self.passed, "tie_share": self.tie_share, **plain}

    def summary_lines(self, *, lists_all: bool = False) -> tuple[str, ...]:
        """The result for people, a line each; ``lists_all`` names every image that was not used."""
        verdict = {"passed": "passed", "failed": "FAILED", "undecided": "UNDECIDED"}[self.state]
        lines = [
            *self._first_lines(lists_all=lists_all),
            f"Parity {verdict}: {self.bundle} on {self.proof_name} ({self.precision}) against {self._against()}.",
        ]
        lines.extend(self.failures)
        if self.state == "undecided":
            lines.append(
                f"{len(self.ties)} of {self.num_frames} frames ({self.tie_share:.0%}) lie within the score tolerance "
                "of the threshold: equal verdicts on the others do not prove that the engine decides as the reference."
            )
        return (*lines, *self._verdict_lines(), *self._number_lines())

    def _first_lines(self, *, lists_all: bool) -> list[str]:
        """Warnings about the data set: a class without images, and images that were not used."""
        if not self.used.num_total:
            return []
        num_good = self.used.num_used - self.num_defective
        lacking = no_class_lines(num_good=num_good, num_defective=self.num_defective)
        return [*lacking, *self.used.lines(lists_all=lists_all)]

    def _against(self) -> str:
        stored = f"the reference outputs stored in the bundle on {counted(self.num_golden, 'golden frame')}"
        num_data = self.num_frames - self.num_golden
        return (
            stored if self.reference == "golden" else f"{stored}, and {self.reference} on {counted(num_data, 'image')}"
        )

    def _verdict_lines(self) -> list[str]:
        same = self.num_frames - len(self.verdict_flips)
        lines = [
            f"Verdicts: {same} of {self.num_frames} as the reference's, at threshold {self.threshold:.6g} "
            f"(on the scores of {self.threshold_engine}).",
            *([self.threshold_note] if self.threshold_note else []),
            *(f"  {flip}{' (a tie)' if flip.is_tie else ''}" for flip in self.verdict_flips),
        ]
        if self.ties:
            lines.append(
                f"Ties: {counted(len(self.ties), 'frame')} ({self.tie_share:.1%}) within the score tolerance of the "
                f"threshold: {list_files([tie.file for tie in self.ties])}."
            )
        if self.smallest_margin:
            margin = self.smallest_margin
            lines.append(f"Nearest to the threshold: {margin.file}, {margin.margin:.3g} away.")
        return lines

    def _number_lines(self) -> list[str]:
        spread = f"on {self.library}'s scale" if self.library else f"spread of good scores {self.score_spread:.3g}"
        lines = [
            f"Largest error: score {_number(self.score_max_abs_error)} (allowed at the threshold: "
            f"{self.score_tolerance:.3g}; {spread}), "
            f"map {_number(self.map_max_abs_error)} (allowed {self.map_tolerance:.3g})."
        ]
        if self.rank_correlation is not None:
            lines.append(f"Rank correlation of the scores: {self.rank_correlation:.6f}.")
        named = (("Image AUROC", self.image_auroc), ("Pixel AUROC", self.pixel_auroc), ("AUPRO", self.aupro))
        lines.extend(pair.sentence(name) for name, pair in named if self.used.num_total)
        if self.aupro != Pair():
            lines.append(f"Pixel figures {RESOLUTIONS[self.pixel_resolution]}.")
        if self.mcnemar:
            test = self.mcnemar
            lines.append(
                f"McNemar on {counted(test.num_frames, 'image')}: reference alone right {test.only_left_right}, "
                f"engine alone {test.only_right_right}, p = {test.p_value:.3g}; at 95 % at most "
                f"{test.flip_rate_bound:.2%} "
                "of such images get another verdict."
            )
        if self.image_auroc_difference:
            lines.append(self.image_auroc_difference.sentence("Image AUROC (left reference, right engine)"))
        return lines


def list_files(files: Sequence[str]) -> str:
    """The first files of a list, and the number of the others."""
    more = len(files) - _SHOWN
    return ", ".join(files[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _number(value: float | None) -> str:
    return "none" if json_number(value) is None else f"{value:.6g}"


def _with_score(verdict: str, score: float | None) -> str:
    return f"{verdict} ({_number(score)})"

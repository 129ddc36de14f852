"""Proofs: keeps parity reports in their bundle, and picks the engine that gives the reference."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import final

from ...bundle.reports import file_report, not_kept_warning
from ...bundle.store import PROOF, REFERENCE, Bundle, now
from ...core.errors import EnvironmentMissingError, LineproofError, ParityError
from ...core.threshold import ORIGINAL_ENGINE
from ...runtime.engine import availability, is_harness, is_reference, reference_engine
from ...runtime.original_engine import has_original
from ...runtime.ranking import fits, is_here, is_proved, rank_engines
from .report import ParityReport


@final
@dataclass(frozen=True, kw_only=True)
class Recorded:
    """A bundle after its parity report was recorded.

    Attributes:
        bundle: the bundle as it is on disk afterwards; unchanged where it could not be written.
        warning: why the report was not kept, or proves nothing, and what to do; "" where it was kept as a proof.
    """

    bundle: Bundle
    warning: str


def record_parity(bundle: Bundle, report: ParityReport, *, folder: Path | None = None) -> Recorded:
    """Append a report to proof.json, and write its state into the manifest.

    A report belongs to the decision that it was made on. Where the bundle decides otherwise meanwhile (a threshold was
    set, the bundle was exchanged), the report is kept as one about the old decision, and the manifest says nothing new.
    The manifest never says more than proof.json shows, also where this is killed in between. The null engine is a check
    of the harness and not of the bundle: its report is not kept. A run that was allowed to fall back proves nothing
    about its engine: its report is kept, the engine stays as it was. So is a report against the library that a detector
    was imported from: it tells of the import.

    Args:
        bundle: the bundle that was verified; its manifest is read from disk again.
        report: the report to keep.
        folder: another folder for proof.json, for a bundle that cannot be written to; the manifest stays as it is.

    Returns:
        The bundle and a warning. A place that cannot be written to is no error, so that the report is not lost.
    """
    if is_harness(report.engine):
        return Recorded(bundle=bundle, warning="")
    if folder is not None or report.library:
        return Recorded(bundle=bundle, warning=file_report(bundle, PROOF, report.to_dict(), record=folder))
    try:
        return _record_in_bundle(bundle, report)
    except (OSError, LineproofError) as error:
        return Recorded(bundle=bundle, warning=not_kept_warning(error))


def _record_in_bundle(bundle: Bundle, report: ParityReport) -> Recorded:
    proof, written = report.to_dict(), report.decision
    warning = ""
    with bundle.transaction() as change:
        current = change.manifest.decision
        marked = change.manifest.with_parity(report.proof_name, report.state, time=now())
        if current != written:
            warning = (
                f"The bundle's decision changed while this ran ({written[:12]}… became {current[:12]}…): the report is "
                f"kept as one about the old decision, and {report.engine} stays unverified. Verify again."
            )
        elif report.allow_fallback:
            warning = "A fallback was allowed: the report is kept, and it is no proof of the engine."
        elif not report.passed:
            # First the manifest: a kill in between must not leave an older "passed" standing.
            change.write(marked)
        change.append_report(PROOF, proof)
        if not warning and report.passed:
            change.write(marked)
        return Recorded(bundle=Bundle(bundle.path, change.manifest), warning=warning)


def pick_reference(bundle: Bundle, reference: str | None, *, engine: str) -> tuple[str, str]:
    """The engine that gives the reference on a data set.

    Args:
        bundle: the bundle to verify; its manifest says which engines are proved.
        reference: name of an engine; None for the original of an imported bundle, else for PyTorch, or where that
            cannot run for the first proved engine.
        engine: the engine under test, which cannot be its own reference.

    Returns:
        The name of the engine, and a sentence where it stands in for PyTorch or is not proved itself, else "".

    Raises:
        ParityError: the engine named by ``reference`` failed its own last verify.
        EnvironmentMissingError: ``reference`` is None, PyTorch cannot run here and no other engine is proved.
    """
    if reference is not None:
        return reference, _reference_notice(bundle, reference)
    if has_original(bundle):
        return ORIGINAL_ENGINE, ""
    state = availability(reference_engine())
    if state.is_available and REFERENCE in bundle.manifest.files:
        return state.name, ""
    why = f"it holds no {REFERENCE}" if state.is_available else state.found
    if bundle.manifest.is_of_file:
        why = "the bundle was imported with --no-reference"
    others = rank_engines(bundle, lambda _bundle, name: name != engine, is_proved, fits, is_here)
    if others:
        return (
            others[0],
            f"The reference on the data set is {others[0]}, which is proved for this bundle: PyTorch cannot run "
            f"({why}).",
        )
    raise EnvironmentMissingError(
        f"No reference for a data set can run: PyTorch cannot ({why}), and no other engine than {engine} is proved for "
        "this bundle and available here. Verify another engine on the golden frames first, install PyTorch, or leave "
        "the data set (--data) out: the golden frames need no reference engine."
    )


def _reference_notice(bundle: Bundle, reference: str) -> str:
    """A sentence where the reference is not proved itself; "" for PyTorch, which needs no proof."""
    if reference == ORIGINAL_ENGINE:
        return ""
    state = bundle.manifest.parity_of(reference)
    if state == "failed":
        raise ParityError(
            f"The reference {reference} failed its own last verify on {bundle.path}: what agrees with it proves "
            "nothing, and what differs from it may be right. Name another one, or leave out --reference."
        )
    if is_reference(reference) or state == "passed":
        return ""
    return (
        f"The reference {reference} is not proved itself ({state}): verify it first, "
        f"lineproof verify --engine {reference}."
    )

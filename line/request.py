"""An inspection as it is asked for: which images, by which bundle and engine, and where the verdicts go."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from ..bundle.store import Bundle
from ..core.errors import UsageError
from ..core.progress import Progress, silent
from ..core.threshold import check_threshold
from ..core.words import counted
from ..runtime.engine import EngineOptions
from ..runtime.ranking import AUTO
from .filing import Filing, check_out
from .images import find_images, to_judge
from .inspect_files import Inspection, Painter, Show, decision_of, inspect_files, never, not_judged_yet
from .inspector import Line, open_line
from .sinks.base import Outlet, open_sinks


@final
@dataclass(frozen=True, kw_only=True)
class InspectionRequest:
    """Images to inspect, what decides their verdicts, and where these go.

    Attributes:
        bundle: folder of the bundle.
        paths: image files, and folders of images.
        engine: name of an engine, or ``"auto"``.
        options: options of the engine.
        threshold: threshold to judge by, in units of the score; None for the bundle's.
        order: order of the channels in the files: ``"rgb"``, ``"bgr"`` or ``"mono"``; None for the bundle's own.
        out: results folder; None files nothing.
        sinks: places that take every verdict as well, each as ``"KIND=PLACE"``.
        append: whether results may be added to those that ``out`` holds.
        skip_judged: whether images are left out that have a verdict in ``out`` and have not changed since.
        allow_failed: whether an engine runs although its last verify on this bundle failed.
        require_proof: whether an engine is refused whose verdicts are not proved.

    Raises:
        UsageError: the threshold is not finite, ``append`` is set without ``out``, or ``skip_judged`` without
            ``append``.
    """

    bundle: Path
    paths: tuple[Path, ...]
    engine: str = AUTO
    options: EngineOptions = field(default_factory=EngineOptions)
    threshold: float | None = None
    order: str | None = None
    out: Path | None = None
    sinks: tuple[str, ...] = ()
    append: bool = False
    skip_judged: bool = False
    allow_failed: bool = False
    require_proof: bool = False

    def __post_init__(self) -> None:
        if self.threshold is not None:
            check_threshold(self.threshold)
        if self.append and self.out is None:
            raise UsageError(
                "append (--append) was given without out (--out); it goes on in a folder of results: name that with "
                "--out."
            )
        if self.skip_judged and not self.append:
            raise UsageError(
                "skip_judged (--skip-judged) was given without append (--append); it leaves out the images that have a "
                "verdict in --out: give both, or neither."
            )


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class OpenInspection:
    """An inspection that has all it needs: what could be refused was accepted, and no image is judged yet.

    Attributes:
        line: open line.
        files: paths of the image files to judge.
        num_skipped: number of files left out because they were judged before.
        filing: open results folder; None files nothing.
        sinks: open sinks.
        paint: draws the overlays that are filed; None files none.
        warn: called with a sentence when filing or a sink stops.
    """

    line: Line
    files: tuple[str, ...]
    num_skipped: int
    filing: Filing | None
    sinks: tuple[Outlet, ...]
    paint: Painter | None
    warn: Callable[[str], None]

    def inspect(
        self, *, show: Show, should_stop: Callable[[], bool] = never, progress: Progress = silent
    ) -> Inspection:
        """Judge the files one by one, see ``inspect_files``.

        Args:
            show: called with each verdict.
            should_stop: asked between two files whether to stop.
            progress: called after each file.
        """
        return inspect_files(
            self.line,
            self.files,
            show=show,
            filing=self.filing,
            paint=self.paint,
            sinks=self.sinks,
            num_skipped=self.num_skipped,
            should_stop=should_stop,
            warn=self.warn,
            progress=progress,
        )


@contextmanager
def open_inspection(
    request: InspectionRequest,
    *,
    painter: Callable[[Bundle], Painter] | None = None,
    note: Callable[[str], None] = lambda _: None,
    warn: Callable[[str], None] = lambda _: None,
) -> Iterator[OpenInspection]:
    """Find the images, and open the sinks, the line and the results folder; all are closed at the end.

    Opening is apart from judging, since a caller stops the two differently: an engine that is being opened can be cut
    off, an image that is being judged should first get its verdict.

    Args:
        request: what is inspected, by what, and where the verdicts go.
        painter: makes the function that draws the overlays of a bundle; None files none.
        note: called with each sentence that is worth knowing: what was left out, and what was mended.
        warn: called with each sentence that a reader of the verdicts must know.

    Raises:
        BadInputError: there is no image, or the results folder may not take these results.
        BundleError: the folder is not a bundle, or the bundle was altered.
        BusyError: another run is writing to the results folder.
        EnvironmentMissingError: the engine cannot run here.
        OSError: a place cannot be read, created or opened.
        ParityError: the engine failed ``verify``, or is not proved, and the request does not accept that.
        UsageError: there is no such engine or sink, or the bundle cannot take this order.
    """
    out = request.out
    if out:
        check_out(out, append=request.append)
    images = find_images(request.paths, out=out)
    _say(images.notes, note)
    with ExitStack() as stack:
        sinks = stack.enter_context(open_sinks(request.sinks))
        line = stack.enter_context(
            open_line(
                request.bundle, engine=request.engine, options=request.options, threshold=request.threshold,
                allow_failed=request.allow_failed, require_proof=request.require_proof, order=request.order,
            )
        )  # fmt: skip
        _say(line.warnings(), warn)
        paint = painter(line.bundle) if painter and out else None
        filing = stack.enter_context(Filing(out, decision_of(line), append=request.append)) if out else None
        _say(filing.notes if filing else (), note)
        reads = line.input.spec.reads
        found, left_out = to_judge(images.files, reads)
        _say(left_out, note)
        files = not_judged_yet(found, out, reads) if out and request.skip_judged else found
        num_skipped = len(found) - len(files)
        if num_skipped:
            note(f"{num_skipped} of {counted(len(found), 'file')} skipped: judged before, and not changed since.")
        yield OpenInspection(
            line=line,
            files=files,
            num_skipped=num_skipped,
            filing=filing,
            sinks=sinks,
            paint=paint,
            warn=warn,
        )


def _say(sentences: Sequence[str], listener: Callable[[str], None]) -> None:
    for sentence in sentences:
        listener(sentence)

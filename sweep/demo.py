"""The demo: the whole chain on the built-in sample, ending in an HTML page with images."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..bundle.place import bundle_records
from ..bundle.store import Bundle
from ..core.errors import EnvironmentMissingError
from ..core.progress import Progress, silent
from ..data.dataset import Dataset, Sample, open_dataset
from ..detectors.training.from_folder import built_in_sample, train_on_sample
from ..eval.parity.proof import record_parity
from ..eval.parity.report import ParityReport
from ..eval.parity.verify import verify
from ..host.environment import describe_environment
from ..host.extras import install
from ..line.inspector import open_line
from ..metrics.operating import RunOperation
from ..profiles.profiler import profile_many
from ..profiles.report import ProfileComparison
from ..profiles.timing import Schedule
from ..report.overlays import contour, draw, map_limits
from ..report.page import Page
from ..runtime.engine import availability, cpu_engines
from .chain import ExportRequest, export_and_prove
from .export_result import ExportResult

DEMO_DETECTORS = ("fastflow", "padim", "patchcore")
_NUM_IMAGES = 6


@dataclass(frozen=True, kw_only=True)
class DemoStep:
    """One detector, carried through the chain.

    Attributes:
        name: name of the detector.
        proof: result of the export, with the TensorRT-RTX build and the verification on golden frames.
        parity: one report per engine, on the sample's test images.
        profile: profiles of the engines, side by side.
        seconds: time of the whole step in s.
    """

    name: str
    proof: ExportResult
    parity: tuple[ParityReport, ...]
    profile: ProfileComparison
    seconds: float

    @property
    def operation(self) -> RunOperation:
        """Operating table of the threshold on the sample's test images."""
        return self.proof.operation or RunOperation(reason="the bundle was not exported from a run.")


@dataclass(frozen=True)
class Demo:
    """Result of the demo.

    Attributes:
        steps: one step per detector.
        page: path of the HTML page.
        seconds: time of all steps in s.
    """

    steps: tuple[DemoStep, ...]
    page: Path
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether every engine gave the reference's verdicts."""
        return all(report.passed for step in self.steps for report in step.parity)

    def check(self) -> None:
        """Check that every engine gave the reference's verdicts.

        Raises:
            ParityError: an engine did not; the message names it.
        """
        for step in self.steps:
            for report in step.parity:
                report.check()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "passed": self.passed,
            "page": str(self.page),
            "seconds": self.seconds,
            "detectors": [
                {
                    "detector": step.name,
                    "seconds": step.seconds,
                    "export": step.proof.to_dict(),
                    "parity": [report.to_dict() for report in step.parity],
                    "profile": step.profile.to_dict(),
                }
                for step in self.steps
            ],
        }

    def summary_lines(self) -> tuple[str, ...]:
        """The result for people, a line each."""
        lines = [f"{step.name}: {line}" for step in self.steps for line in step.operation.warnings()]
        for step in self.steps:
            gate = step.proof.gate
            built = f"built for {', '.join(gate.targets)}" if gate else "not installed"
            lines.append(f"{step.name}: {step.proof.bundle.path}, TensorRT-RTX {built}, {step.seconds:.0f} s")
            lines += [f"  {report.summary_lines()[0]}" for report in step.parity]
            lines += step.operation.summary_lines()
        verdict = "Every verdict is the reference's." if self.passed else "PARITY FAILED."
        return (*lines, verdict, f"{self.seconds:.0f} s in all. Open {self.page}")


def run_demo(out: Path, *, detectors: Sequence[str] = DEMO_DETECTORS, progress: Progress = silent) -> Demo:
    """Train, export, verify and profile each detector on the built-in sample.

    Args:
        out: folder for the sample, the runs, the bundles and the page.
        detectors: names of the detectors.
        progress: called about every step.

    Raises:
        EnvironmentMissingError: no CPU engine is installed.
    """
    engines = tuple(name for name in cpu_engines() if availability(name).is_available)
    if not engines:
        raise EnvironmentMissingError(
            f"The demo needs one of {', '.join(cpu_engines())}. Install one: {install('cpu')}, or "
            f"{install('openvino')}."
        )
    began = time.perf_counter()
    page = Page("lineproof demo", "From good images to a proved, profiled engine, on the built-in sample.")
    page.lines([f"{key}: {value}" for key, value in describe_environment().items() if key != "packages"])
    steps = []
    for name in detectors:
        step = _carry(name, out, engines=engines, progress=progress)
        _show(page, step, _sample(name, out))
        steps.append(step)
    demo = Demo(tuple(steps), out / "demo.html", time.perf_counter() - began)
    page.write(demo.page)
    return demo


def _carry(name: str, out: Path, *, engines: Sequence[str], progress: Progress) -> DemoStep:
    began = time.perf_counter()

    def tell(stage: str, done: int, total: int, detail: str = "", /) -> None:
        progress(f"{name}: {stage}", done, total, detail)

    sample = built_in_sample(name)
    run = train_on_sample(name, progress=tell, folder=out / f"sample{sample.suffix}", run=out / "runs" / name)
    place = out / f"{sample.category}-{name}.bundle"
    # What an earlier demo left there may go, what somebody added to it may not.
    is_own = set(bundle_records(place)) <= {"proofs", "profiles"}
    request = ExportRequest(source=str(run), out=place, is_replacing=is_own)
    proof = export_and_prove(request, progress=tell)
    dataset = _sample(name, out)
    bundle, parity = verify_each(proof.bundle, engines, dataset=dataset, progress=tell)
    proof = replace(proof, bundle=bundle)
    schedule = Schedule(num_runs=30, num_warmup=5)
    profile = profile_many(bundle, engines, batches=(1,), schedule=schedule, num_cold_starts=1, progress=tell)
    return DemoStep(name=name, proof=proof, parity=parity, profile=profile, seconds=time.perf_counter() - began)


def _sample(name: str, out: Path) -> Dataset:
    sample = built_in_sample(name)
    return open_dataset(out / f"sample{sample.suffix}", category=sample.category)


def verify_each(
    bundle: Bundle, engines: Sequence[str], *, dataset: Dataset, progress: Progress = silent
) -> tuple[Bundle, tuple[ParityReport, ...]]:
    """Verify one engine after the other on a data set's test images, and file every report in the bundle.

    Args:
        bundle: bundle to verify.
        engines: names of the engines.
        dataset: data set whose test images are compared.
        progress: called about every step.

    Returns:
        The bundle as it is on disk afterwards, with its proofs, and one report per engine.
    """
    reports = []
    for engine in engines:
        reports.append(verify(bundle, engine=engine, dataset=dataset, batch=8, progress=progress))
        bundle = record_parity(bundle, reports[-1]).bundle
    return bundle, tuple(reports)


def _show(page: Page, step: DemoStep, dataset: Dataset) -> None:
    """Add the section of one detector to the page."""
    page.heading(step.name)
    for report in step.parity:
        page.verdict(report.summary_lines()[0], is_good=report.passed)
    first = step.parity[0]
    rows = [
        ("image AUROC", first.image_auroc.reference, first.image_auroc.engine),
        ("pixel AUROC", first.pixel_auroc.reference, first.pixel_auroc.engine),
        ("AUPRO", first.aupro.reference, first.aupro.engine),
    ]
    page.table(("accuracy", "PyTorch", first.engine), [(n, _figure(a), _figure(b)) for n, a, b in rows])
    page.lines(step.proof.summary_lines())
    page.lines([line for report in step.profile.reports for line in report.summary_lines()])
    page.images(_images(step.proof.bundle, dataset, first.engine))


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _images(bundle: Bundle, dataset: Dataset, engine: str) -> list[tuple[np.ndarray[Any, Any], str]]:
    """Heat map and true outline of the first good part and of one part per defect, each with its verdict as caption."""
    limits = map_limits(bundle)
    images = []
    with open_line(bundle.path, engine=engine) as line:
        for sample in _one_of_each(dataset.test):
            frame = line.input.read(sample.path)
            verdict = line.inspect(frame)
            drawn = draw(frame, verdict, bundle=bundle, limits=limits)
            mask = line.input.read_mask(sample)
            if mask is not None:
                drawn = contour(drawn, mask, colour=(0, 255, 255))
            images.append((drawn, f"{sample.defect}/{sample.path.name}: {verdict.verdict}, {verdict.score:.3f}"))
    return images


def _one_of_each(samples: Sequence[Sample]) -> list[Sample]:
    first: dict[str, Sample] = {}
    for sample in samples:
        first.setdefault(sample.defect, sample)
    return sorted(first.values(), key=lambda sample: sample.label)[: _NUM_IMAGES + 1]

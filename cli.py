"""The command line: parse, call one function, print, exit status."""

from __future__ import annotations

import sys
from collections.abc import Callable
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any

if __name__ == "__main__":  # run as a script from the root: hand over to the installed package
    sys.path = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]
    import lineproof.cli

    lineproof.cli.main()

import typer
from typer import Argument, Option

app = typer.Typer(
    help="Carries a trained anomaly detector from PyTorch to the inspection line and proves that it did not change.",
    epilog="Exit status: 0 done, 1 error, 2 usage, 3 environment missing, 4 parity failed, 5 deadline missed.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Text = str | None
Number = int | None
Place = Path | None
Texts = list[str]
BundleArg = Annotated[Place, Argument(help="Bundle; the newest *.bundle here where left out.")]
Category = Annotated[Text, Option(help="Category of the data set.")]
EngineName = Annotated[str, Option(help="Engine, or auto for the first available; `lineproof doctor` lists them.")]
Expected = Annotated[Text, Option("--precision", help="Refuse a bundle of another precision.")]
Rejects = Annotated[str, Option(help="Share of good parts that may be rejected: 1% or 0.01.")]
TestData = Annotated[Place, Option("--data", help="Data set whose test pictures are run.")]
OwnCategory = Annotated[Text, Option("--category", help="Category; the bundle's own where left out.")]
BatchSize = Annotated[int, Option("--batch", help="Frames per call.")]
OtherThreshold = Annotated[float | None, Option("--threshold", help="Judge by this one instead of the bundle's.")]
Corrections = Annotated[Place, Option("--corrections", help="JSON file of labels and masks to replace or ignore.")]
FprLimit = Annotated[float, Option("--fpr-limit", help="End of the AUPRO integral.")]
Report = Annotated[Place, Option(help="Write the result as an HTML page as well.")]
_COMMON = {
    "as_json": (bool, Option("--json", help="Print one JSON object."), False),
    "quiet": (bool, Option("--quiet", "-q", help="No progress on stderr."), False),
    "verbose": (bool, Option("--verbose", "-v", help="Show the traceback of an error."), False),
}
_ENGINE = {
    "device": (int, Option(help="Index of the GPU."), 0),
    "threads": (int, Option(help="Threads of a CPU engine; 0 for its own default."), 0),
    "compute_dtype": (str, Option(help="f32, or bf16 (openvino only, and only when asked)."), "f32"),
    "allow_fallback": (bool, Option("--allow-fallback", help="Accept a device other than asked."), False),
}


def command(*, takes_engine: bool = False) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a command: the options that all commands share are added, and reach it as one ``ui``."""
    shared = _COMMON | (_ENGINE if takes_engine else {})

    def register(function: Callable[..., None]) -> Callable[..., None]:
        own = list(signature(function, eval_str=True).parameters.values())[1:]
        by_name = Parameter.KEYWORD_ONLY
        parameters = [item.replace(kind=by_name) for item in own]
        parameters += [Parameter(n, by_name, default=d, annotation=Annotated[t, o]) for n, (t, o, d) in shared.items()]

        def call(**given: Any) -> None:
            from .workflows.console import Ui

            function(Ui({name: given.pop(name) for name in shared}), **given)

        call.__doc__ = function.__doc__
        call.__annotations__ = {item.name: item.annotation for item in parameters}
        vars(call)["__signature__"] = Signature(parameters)
        return app.command(name=function.__name__)(call)

    return register


@command()
def train(
    ui: Any,
    detector: Annotated[str, Argument(help="Detector; `lineproof models` lists them.")],
    data: Annotated[Path, Option(help="Data set: MVTec AD, MVTec 3D-AD, or good/ bad/ masks/.")],
    category: Category = None,
    backbone: Annotated[Text, Option(help="timm network; the paper's where left out.")] = None,
    weights: Annotated[Text, Option(help="imagenet, a .safetensors or .pth file, or a package.")] = None,
    image_size: Annotated[Number, Option(help="Side after the resize; not cropped unless --crop says so.")] = None,
    crop: Annotated[Number, Option(help="Side of the centre crop.")] = None,
    epochs: Annotated[Number, Option(help="Largest number of epochs.")] = None,
    settings: Annotated[Texts, Option("--set", help="KEY=VALUE of the detector; may be repeated.")] = [],  # noqa: B006
    holdout: Annotated[float, Option(help="Share of the good images held out.")] = 0.2,
    seed: Annotated[int, Option(help="The same seed gives the same weights on a CPU.")] = 0,
    device: Annotated[str, Option(help="cpu or cuda.")] = "cpu",
    time_limit: Annotated[float, Option(help="Minutes after which no new epoch starts; 0 for none.")] = 0.0,
    out: Annotated[Place, Option(help="Run folder; an unfinished run there goes on.")] = None,
) -> None:
    """Train a detector on good images."""
    from .workflows.find import parse_settings
    from .workflows.training import train_detector

    sizes = {"resize_px": image_size, "crop_px": crop or image_size}
    chosen = {"backbone": backbone, "weights": weights, "epochs": epochs, **sizes, **parse_settings(settings)}
    options = {"holdout": holdout, "seed": seed, "device": device, "time_limit_s": 60.0 * time_limit}
    with ui.progress() as progress:
        found = train_detector(
            detector, data, category=category, settings=chosen, out=out, options=options, progress=progress
        )
    ui.show(found)


@command()
def export(
    ui: Any,
    source: Annotated[str, Argument(help="Detector (its newest run), a run folder, or a bundle to build a plan for.")],
    checkpoint: Annotated[Place, Option(help="Run folder to export.")] = None,
    frame: Annotated[Text, Option(help="Camera frame HEIGHTxWIDTH, or HEIGHTxWIDTHx1 for mono.")] = None,
    batch: Annotated[str, Option(help="Largest batch, or smallest:usual:largest.")] = "1:1:8",
    precision: Annotated[str, Option(help="fp32 or fp16, written into the graph.")] = "fp32",
    engine: Annotated[str, Option(help="onnx, openvino, trt or trt-rtx.")] = "onnx",
    target: Annotated[Texts, Option(help="GPU to build a trt-rtx plan for: sm_89; may be repeated.")] = [],  # noqa: B006
    max_false_reject: Rejects = "1%",
    sample: Annotated[bool, Option("--sample", help="Train on the built-in sample first.")] = False,
    reference: Annotated[bool, Option(help="Carry the PyTorch weights in the bundle.")] = True,
    verify: Annotated[bool, Option(help="Verify the bundle on its golden frames.")] = True,
    out: Annotated[Place, Option(help="Folder of the bundle.")] = None,
) -> None:
    """Export a trained detector to a bundle, and prove it."""
    from .workflows.find import parse_batches, parse_frame, parse_share
    from .workflows.training import ExportRequest, export_and_prove

    options = {
        "frame": parse_frame(frame) if frame else None,
        "max_batch": parse_batches(batch)[-1],
        "precision": precision,
        "max_false_reject": parse_share(max_false_reject),
        "has_reference": reference,
    }
    request = ExportRequest(source, checkpoint, sample, out, engine, tuple(target), verify)
    with ui.progress() as progress:
        proof = export_and_prove(request, options=options, progress=progress)
    ui.show(proof)
    proof.check()


@command(takes_engine=True)
def calibrate(
    ui: Any,
    data: Annotated[Path, Option(help="Folder of good pictures, a training run, or a set with a validation split.")],
    bundle: BundleArg = None,
    category: Category = None,
    engine: EngineName = "auto",
    max_false_reject: Rejects = "1%",
) -> None:
    """Set the threshold of one engine from held-out good parts."""
    from .workflows.calibration import calibrate_on
    from .workflows.find import open_named, parse_share

    share = parse_share(max_false_reject)
    with ui.progress() as progress:
        found = calibrate_on(
            open_named(bundle), data, category=category, engine=engine, max_false_reject=share, options=ui.engine(),
            progress=progress,
        )  # fmt: skip
    ui.show(found)


@command(takes_engine=True)
def verify(
    ui: Any,
    bundle: BundleArg = None,
    engine: EngineName = "auto",
    data: Annotated[Place, Option(help="Data set whose test pictures are compared as well.")] = None,
    category: Category = None,
    reference: Annotated[str, Option(help="Engine that gives the reference on --data.")] = "torch",
    precision: Expected = None,
    batch: BatchSize = 1,
    report: Report = None,
) -> None:
    """Prove that an engine gives the reference's verdicts."""
    from .data.dataset import open_dataset
    from .eval.parity import check
    from .eval.verify import verify as compare
    from .workflows.find import open_named

    dataset = open_dataset(data, category=category) if data else None
    with ui.progress() as progress:
        found = compare(
            open_named(bundle, precision=precision), engine=engine, options=ui.engine(), dataset=dataset,
            reference=reference, batch=batch, progress=progress,
        )  # fmt: skip
    ui.show(found, report=report, passed=found.passed)
    check(found)


@command(takes_engine=True)
def profile(
    ui: Any,
    bundle: BundleArg = None,
    engine: Annotated[Texts, Option(help="Engine; repeat it to compare several side by side.")] = ["auto"],  # noqa: B006
    batch: Annotated[str, Option(help="Batch sizes: 1, or 1:4:8.")] = "1",
    runs: Annotated[int, Option(help="Timed calls per batch size.")] = 200,
    warmup: Annotated[int, Option(help="Untimed calls before them.")] = 20,
    cold_starts: Annotated[int, Option(help="Fresh processes timed from start to first verdict.")] = 1,
    deadline_ms: Annotated[float | None, Option(help="Takt time; a slower call is exit 5.")] = None,
    precision: Expected = None,
    samples: Annotated[bool, Option("--samples", help="Put every timed call into the JSON.")] = False,
    table: Annotated[Text, Option(help="3: the paper's, with every bundle here on every engine here.")] = None,
    report: Report = None,
) -> None:
    """Measure latency, throughput, memory, cold start and parameters."""
    from .workflows.find import open_named, parse_batches
    from .workflows.measure import Effort, measure, measure_table

    effort = Effort(parse_batches(batch), runs, warmup, cold_starts, deadline_ms, samples)
    with ui.progress() as progress:
        how = {"effort": effort, "options": ui.engine(), "progress": progress}
        found: Any
        if table:
            found = measure_table(table, [bundle] if bundle else [], engine, precision=precision, **how)
        else:
            found = measure(open_named(bundle, precision=precision), engine, **how)
    ui.show(found, report=report)
    found.check()


@command(takes_engine=True)
def run(
    ui: Any,
    bundle: Annotated[Path, Argument(help="Bundle.")],
    paths: Annotated[list[Path], Argument(help="Images, or folders of images.")],
    engine: EngineName = "auto",
    threshold: Annotated[float | None, Option(help="Instead of the bundle's.")] = None,
    out: Annotated[Place, Option(help="Folder for verdicts.jsonl and overlays/.")] = None,
    allow_failed: Annotated[bool, Option("--allow-failed", help="Run a bundle whose parity failed.")] = False,
) -> None:
    """Inspect images: verdicts as JSON lines, heat maps as overlays."""
    from .workflows.inspection import inspect_files, open_line

    with (
        ui.progress() as progress,
        open_line(bundle, engine=engine, options=ui.engine(), threshold=threshold, allow_failed=allow_failed) as line,
    ):
        found = inspect_files(line, paths, out=out, progress=progress)
    ui.say(found.sentences(), found.to_dict())
    found.check()


@command(takes_engine=True)
def evaluate(
    ui: Any,
    targets: Annotated[list[Path], Argument(help="Bundles, or files of saved outputs.")],
    data: TestData = None,
    category: OwnCategory = None,
    engine: EngineName = "auto",
    batch: BatchSize = 1,
    threshold: OtherThreshold = None,
    corrections: Corrections = None,
    fpr_limit: FprLimit = 0.3,
    table: Annotated[Text, Option(help="Table of the paper to fill: 1, 2, 5 or 6.")] = None,
    table_file: Annotated[Place, Option(help="Write that table: a .md or .csv file.")] = None,
    save_outputs: Annotated[Place, Option(help="Keep scores and maps: .npz file, or a folder for several.")] = None,
    report: Report = None,
) -> None:
    """Measure accuracy on a data set, beside the paper's tables."""
    from .workflows.evaluation import Choice, check_table_file
    from .workflows.evaluation import evaluate as measure_all

    check_table_file(table_file, table)
    choice = Choice(data, category, engine, ui.engine(), batch, threshold, corrections, fpr_limit)
    with ui.progress() as progress:
        found = measure_all(targets, choice, table=table, save=save_outputs, progress=progress)
    if table_file:
        found.write_table(table_file)
    ui.show(found, report=report)


@command(takes_engine=True)
def compare(
    ui: Any,
    left: Annotated[Path, Argument(help="Bundle, or file of saved outputs.")],
    right: Annotated[Path, Argument(help="The same; may be the left bundle on another engine.")],
    data: TestData = None,
    category: OwnCategory = None,
    engine: Annotated[Texts, Option(help="Engine of both sides; given twice, of left and right.")] = ["auto"],  # noqa: B006
    batch: BatchSize = 1,
    fpr_limit: FprLimit = 0.3,
    resamples: Annotated[int, Option(help="Sets of pictures drawn for the intervals.")] = 1000,
    seed: Annotated[int, Option(help="Of that draw.")] = 0,
    report: Report = None,
) -> None:
    """Say what two engines or two bundles differ in, with statistics."""
    from .eval.statistics import Resampling
    from .workflows.compare import compare as compare_sides
    from .workflows.compare import one_each
    from .workflows.evaluation import Choice

    engines, how = one_each(engine), Resampling(resamples, seed, fpr_limit)
    first, second = (Choice(data, category, name, ui.engine(), batch) for name in engines)
    with ui.progress() as progress:
        found = compare_sides(left, right, (first, second), how=how, report=report, progress=progress)
    ui.show(found)


@command(takes_engine=True)
def badcases(
    ui: Any,
    target: Annotated[Path, Argument(help="Bundle, or file of saved outputs.")],
    data: TestData = None,
    category: OwnCategory = None,
    engine: EngineName = "auto",
    batch: BatchSize = 1,
    threshold: OtherThreshold = None,
    corrections: Corrections = None,
    fpr_limit: FprLimit = 0.3,
    top: Annotated[int, Option(help="At most so many of each kind.")] = 20,
    out: Annotated[Path, Option(help="Page to write.")] = Path("badcases.html"),
) -> None:
    """Show false accepts, false rejects and hot spots outside the masks."""
    from .workflows.evaluation import Choice
    from .workflows.gallery import show_bad_cases

    choice = Choice(data, category, engine, ui.engine(), batch, threshold, corrections, fpr_limit)
    with ui.progress() as progress:
        found = show_bad_cases(target, choice, top=top, out=out, progress=progress)
    ui.show(found)


@command()
def inspect(ui: Any, bundle: BundleArg = None) -> None:
    """Say what a bundle holds."""
    from .workflows.describe import describe_bundle

    ui.show(describe_bundle(bundle))


@command()
def doctor(ui: Any) -> None:
    """Say which engines work here, and what would make the others work."""
    from .workflows.describe import examine

    ui.show(examine())


@command()
def models(ui: Any, detector: Annotated[Text, Argument(help="Detector whose parameters to show.")] = None) -> None:
    """List the detectors, or the parameters of one."""
    from .workflows.describe import describe_detectors

    ui.show(describe_detectors(detector))


@command()
def sample(
    ui: Any,
    directory: Annotated[Path, Argument(help="Folder to write.")],
    seed: Annotated[int, Option(help="The same seed draws the same pictures.")] = 0,
) -> None:
    """Write the built-in sample: an object and a texture, six kinds of defect each."""
    from .data.sample import write_sample

    with ui.progress() as progress:
        categories = write_sample(directory, seed=seed, progress=progress)
    ui.say([str(directory / name) for name in categories], {"directory": str(directory), "categories": categories})


@command()
def demo(
    ui: Any,
    out: Annotated[Path, Option(help="Folder for everything.")] = Path("lineproof-demo"),
    detector: Annotated[Texts, Option(help="Detector; may be repeated.")] = [],  # noqa: B006
) -> None:
    """Train, export, verify and profile on the built-in sample, ending in a page with pictures."""
    from .workflows.demo import DEMO_DETECTORS, run_demo

    with ui.progress() as progress:
        found = run_demo(out, detectors=detector or DEMO_DETECTORS, progress=progress)
    ui.show(found)
    found.check()


def main() -> None:
    """Run the command line; every error ends in a message on stderr and its exit status."""
    from .workflows.status import run_app

    run_app(app)

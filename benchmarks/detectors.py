"""Trains, exports, verifies and profiles every detector, and writes docs/detectors.md from the figures.

    python benchmarks/detectors.py WORK [NAME …] [--hazelnut DIR] [--screw MVTEC] [--minutes M] [--set KEY=VALUE …]
    python benchmarks/detectors.py --render

Quick settings (``quick_settings`` of each detector) on both categories of the built-in sample, which for detectors of
scans is that of ``sample --3d``; on a hazelnut set and on MVTec AD's screw where their folders are given. The figures
go into docs/detectors.json, one entry per detector, so that single ones can be measured again; the page is rendered
from it and never written by hand.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[1] / "docs"
DATA, PAGE = DOCS / "detectors.json", DOCS / "detectors.md"
ENGINES = ("ort-cpu", "openvino")
_SETS = ("hazelnut", "screw")


def main() -> int:
    """Measure the detectors named, or all, and render the page; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", nargs="?", type=Path, help="folder for sample, runs and bundles")
    parser.add_argument("names", nargs="*", help="detectors; all where left out")
    parser.add_argument("--hazelnut", type=Path, help="folder of a hazelnut set")
    parser.add_argument("--screw", type=Path, help="folder of MVTec AD")
    parser.add_argument("--minutes", type=float, default=3.0, help="limit of each training")
    parser.add_argument("--threads", type=int, default=0, help="threads of the engines; 0 for their default")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="beside the quick settings")
    parser.add_argument("--render", action="store_true", help="only render the page")
    arguments = parser.parse_args()
    if not arguments.render:
        if arguments.work is None:
            parser.error("name a folder to work in, or --render")
        measure_all(arguments)
    PAGE.write_text(render(json.loads(DATA.read_text())))
    return 0


def measure_all(arguments: argparse.Namespace) -> None:
    """Measure one detector after the other; each result is written at once."""
    from lineproof.detectors.table import DETECTORS

    arguments.work.mkdir(parents=True, exist_ok=True)
    for name in arguments.names or sorted(DETECTORS):
        measure(name, arguments)


def measure(name: str, arguments: argparse.Namespace) -> None:
    """Measure one detector: everything on the sample, accuracy alone on the other sets."""
    from lineproof.core.registry import resolve
    from lineproof.data.records import subfolders
    from lineproof.detectors.table import DETECTORS
    from lineproof.detectors.training.from_folder import built_in_sample
    from lineproof.host.environment import describe_environment

    built_in = built_in_sample(name)
    folder = arguments.work / f"sample{built_in.suffix}"
    if not folder.is_dir():
        built_in.write(folder)
    sample = {item.name: carry(name, folder, item.name, arguments) for item in subfolders(folder)}
    localises = resolve(DETECTORS, name, kind="detector").localises
    keep(name, environment=describe_environment(), num_threads=arguments.threads, localises=localises, sample=sample)
    takes_images = built_in.suffix == ""
    if arguments.hazelnut and takes_images:
        keep(name, hazelnut=accuracy(name, arguments.hazelnut, None, arguments))
    if arguments.screw and takes_images:
        keep(name, screw=accuracy(name, arguments.screw, "screw", arguments))


def keep(name: str, **figures: Any) -> None:
    """Write figures of a detector into the file, beside its older ones."""
    known = json.loads(DATA.read_text()) if DATA.exists() else {}
    known[name] = {**known.get(name, {}), **figures}
    DATA.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n")
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {name}: {', '.join(figures)}\n")


def carry(name: str, data: Path, category: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train, export in both precisions, build, verify on every engine and profile; return the figures."""
    from lineproof.data.dataset import open_dataset
    from lineproof.eval.parity.verify import verify
    from lineproof.export.options import ExportOptions
    from lineproof.profiles.profiler import profile_many
    from lineproof.profiles.timing import Schedule
    from lineproof.runtime.engine import EngineOptions
    from lineproof.sweep.chain import ExportRequest, export_and_prove

    run, figures = train(name, data, category, arguments)
    dataset = open_dataset(data, category=category)
    options = EngineOptions(num_threads=arguments.threads)
    for precision in ("fp32", "fp16"):
        out = arguments.work / f"{category}-{name}-{precision}.bundle"
        request = ExportRequest(source=str(run), out=out, is_replacing=True, accept_undecided=True)
        proof = export_and_prove(request, options=ExportOptions(precision=precision))
        figures[f"rtx_{precision}"] = proof.gate is not None and proof.gate.passed
        for engine in ENGINES:
            report = verify(proof.bundle, engine=engine, options=options, dataset=dataset, batch=4)
            figures[f"{engine}_{precision}"] = {
                "state": report.state,
                "num_flips": len(report.verdict_flips),
                "num_ties": len(report.ties),
                "num_frames": report.num_frames,
                "score_error": report.score_max_abs_error / max(report.score_spread, 1e-30),
                "score_tolerance": report.score_tolerance / max(report.score_spread, 1e-30),
                "image_auroc": report.image_auroc.engine,
                "pixel_auroc": report.pixel_auroc.engine,
            }
        if precision == "fp32":
            schedule = Schedule(num_runs=30, num_warmup=5)
            profiles = profile_many(
                proof.bundle, ENGINES, options=options, schedule=schedule, num_cold_starts=0
            ).reports
            figures["fps"] = {item.engine: item.batches[0].fps for item in profiles}
            counted = proof.bundle.manifest.figures
            figures["figures"] = dataclasses.asdict(counted)
    return figures


def train(name: str, data: Path, category: str | None, arguments: argparse.Namespace) -> tuple[Path, dict[str, Any]]:
    """Train with the quick preset, or reuse a finished run; return the run folder and the figures of its training."""
    from lineproof.bundle.runs.folder import is_finished, read_record
    from lineproof.core.size import size_text
    from lineproof.detectors.training.from_folder import train_detector
    from lineproof.detectors.training.options import TrainOptions

    run = arguments.work / "runs" / "-".join(part for part in (name, data.name, category) if part)
    changes = dict(item.split("=", 1) for item in arguments.set)
    if not is_finished(run):
        began = time.process_time()
        train_detector(
            name,
            data,
            category=category,
            settings=changes,
            out=run,
            preset="quick",
            # Hazelnuts were cut out with a row more or less.
            options=TrainOptions(time_limit_s=60.0 * arguments.minutes, fit="stretch"),
        )
        (run / "seconds.txt").write_text(f"{time.process_time() - began:.1f}")
    seconds = float((run / "seconds.txt").read_text())
    parameters = read_record(run).detector.parameters
    return run, {
        "train_seconds": seconds,
        "size_px": size_text(parameters["crop_px"]),
        "backbone": parameters.get("backbone", ""),
        "set": {key: value for key, value in changes.items() if key != "weights"},
    }


def accuracy(name: str, data: Path, category: str | None, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train and export; return the accuracy of the exported graph."""
    from lineproof.eval.accuracy.evaluate import evaluate
    from lineproof.eval.accuracy.request import EvaluationRequest
    from lineproof.runtime.engine import EngineOptions
    from lineproof.sweep.chain import ExportRequest, export_and_prove

    run, figures = train(name, data, category, arguments)
    out = arguments.work / f"{category or data.name}-{name}.bundle"
    export_and_prove(ExportRequest(source=str(run), out=out, is_verified=False, is_replacing=True))
    options = EngineOptions(num_threads=arguments.threads)
    request = EvaluationRequest(data=data, category=category, engine="ort-cpu", options=options, batch=4)
    (item,) = evaluate([out], request).items
    values = {metric: item.accuracy.value(metric) for metric in ("image_auroc", "pixel_auroc", "aupro")}
    return {**figures, **values, "resolution": "image"}


def render(entries: dict[str, Any]) -> str:
    """Return the page with one row per detector."""
    from lineproof.detectors.table import DETECTORS

    header = (
        "detector", "trained (CPU s)", "size, backbone", "ort-cpu", "openvino", "RTX build", "fp16",
        "extra M", "constants MB", "GFLOPs", "FPS ort-cpu / openvino", "sample flange (bracket)", "sample weave (bun)",
        "hazelnut", "screw", "screw, published",
    )  # fmt: skip
    rows = [header, tuple("---" for _ in header), *(_row(name, entry) for name, entry in sorted(entries.items()))]
    missing = [name for name in sorted(DETECTORS) if name not in entries]
    beside = "".join(_beside(name, entry) for name, entry in sorted(entries.items()))
    others = sorted({entry["verdicts_on"] for entry in entries.values() if "verdicts_on" in entry})
    elsewhere = f"; verdicts and the sample's accuracy of rows measured anew: {', '.join(others)}" if others else ""
    earlier = [name for name, entry in sorted(entries.items()) if _is_earlier(entry["sample"])]
    beside += (
        f"\nMeasured before, with tolerances that were shares of the golden frames' range and pixels at the map's\n"
        f"resolution: {', '.join(earlier)}.\n"
        if earlier
        else ""
    )
    left = f"\nNot measured yet: {', '.join(missing)}.\n" if missing else ""
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    before = [
        name
        for name, entry in sorted(entries.items())
        if any("resolution" not in entry[key] for key in _SETS if key in entry)
    ]
    older = f" (hazelnut and screw of {', '.join(before)}: measured before, at the map's)" if before else ""
    return f"""# Detectors

Every detector carried the whole way by `python benchmarks/detectors.py`, which wrote this page from
[detectors.json](detectors.json). Quick settings: small images, a small backbone, minutes of training; they were
chosen with the sample's test figures in sight, so accuracy on the sample is optimistic, and none of these numbers says
what a method reaches with its paper's settings. Engines: verdict flips against the PyTorch reference, of all test
images of both categories of the sample (for detectors of scans those of `sample --3d`) and the golden frames, in
fp32; `fp16` likewise on both engines. At the threshold a score may be off by 1 % of the spread (standard deviation) of
held-out good scores in fp32, by 10 % in fp16.
Accuracy: image / pixel AUROC in percent of the exported graph, pixels at the image's resolution{older}; published: with
full settings, Tables 1 and 2 of Zheng et al. as printed; where they differ from a method's own paper, that one beside
them. FPS at batch 1, sample images. FPS and training: {_machines(entries)}{elsewhere}.
A tie is an image whose reference score lies within the tolerance of the threshold. **failed**: a score or a map is
farther from the reference's than the tolerance of its precision, or the verdict on an image that is no tie differs;
**undecided**: more than 5 % ties, so that equal verdicts prove nothing.

{table}
{beside}{left}
{_guesses()}"""


def _guesses() -> str:
    """Return the section about parameters that no source settles, as their docstrings say."""
    from lineproof.core.size import value_text
    from lineproof.detectors.listing import describe_detectors
    from lineproof.detectors.table import DETECTORS

    listings = {name: describe_detectors(name) for name in sorted(DETECTORS)}
    rows = "\n".join(
        f"| {name} | `{key}` | {value_text(listing.parameters[key])} | {text} |"
        for name, listing in listings.items()
        for key, text in listing.guesses.items()
    )
    return f"""## What is a guess

Neither a paper nor code of its authors settles these parameters; `--set` changes each of them. What is a guess without
a parameter stands at the head of the detector's file. `lineproof models DETECTOR` marks the same parameters.

| detector | parameter | default | description |
| --- | --- | --- | --- |
{rows}
"""


def _beside(name: str, entry: dict[str, Any]) -> str:
    changed = next(iter(entry["sample"].values())).get("set", {})
    listed = ", ".join(f"{key} = {value}" for key, value in changed.items())
    return f"\nBeside its quick settings {name} was given {listed}.\n" if changed else ""


def _row(name: str, entry: dict[str, Any]) -> tuple[str, ...]:
    sample = entry["sample"]
    first = next(iter(sample.values()))
    figures = first["figures"]
    return (
        name,
        f"{max(item['train_seconds'] for item in sample.values()):.0f}",
        f"{_size(first['size_px'])}, {first['backbone'] or 'none'}",
        *(_flips(sample, [f"{engine}_fp32"]) for engine in ENGINES),
        "passed" if all(item[f"rtx_{p}"] for item in sample.values() for p in ("fp32", "fp16")) else "**refused**",
        _flips(sample, [f"{engine}_fp16" for engine in ENGINES]),
        f"{figures['extra_parameters'] / 1e6:.2f}",
        f"{figures['constants_bytes'] / 1e6:.1f}",
        f"{sum(figures['flops'].values()) / 1e9:.2f}",
        " / ".join(f"{first['fps'][engine]:.1f}" for engine in ENGINES),
        *(_accuracy(item["ort-cpu_fp32"], localises=entry["localises"]) for item in sample.values()),
        *(_accuracy(entry[key], localises=entry["localises"]) if key in entry else "-" for key in _SETS),
        " / ".join(_published(name, table) for table in ("1", "2")),
    )


def _machines(entries: dict[str, Any]) -> str:
    """Name the processors and threads that figures were measured on, with the detectors where there are several."""
    places: dict[str, list[str]] = {}
    for name, entry in sorted(entries.items()):
        count = entry["num_threads"] or entry["environment"]["num_cores"]
        place = f"{count} {'thread' if count == 1 else 'threads'} of {entry['environment']['cpu']}"
        places.setdefault(place, []).append(name)
    if len(places) == 1:
        return next(iter(places))
    return "; ".join(f"{', '.join(names)}: {place}" for place, names in places.items())


def _size(size_px: Any) -> str:
    """Return the side of a square, or height and width, in pixels."""
    sides = size_px if isinstance(size_px, list) else str(size_px).split("x")
    return "x".join(map(str, dict.fromkeys(sides)))


def _published(name: str, table: str) -> str:
    """Return the figure for screw in a table of Zheng et al. (2022), and other sources' where they differ."""
    from lineproof.report.published import published

    published_table = published()["tables"][table]
    value = published_table["paper"].get(name, {}).get("categories", {}).get("screw")
    if value is None:
        return "-"
    others = [(item["source"], item["categories"]["screw"]) for item in published_table["other"].get(name, ())]
    differ = [f"{source}: {other:.1f}" for source, other in others if f"{other:.1f}" != f"{value:.1f}"]
    return f"{value:.1f}" + (f" ({', '.join(differ)})" if differ else "")


def _flips(sample: dict[str, Any], keys: list[str]) -> str:
    """Return the verdict flips over all categories and these entries, and whether verification passed."""
    reports = [item[key] for item in sample.values() for key in keys]
    flips, frames = (sum(item[what] for item in reports) for what in ("num_flips", "num_frames"))
    ties = sum(item["num_ties"] for item in reports)
    text = f"{flips} of {frames}" + (f", {ties} ties" if ties else "")
    states = {item.get("state", "passed" if item.get("passed") else "failed") for item in reports}
    worst = next((state for state in ("failed", "undecided") if state in states), "")
    return f"**{worst}**: {text}" if worst else text


def _is_earlier(sample: dict[str, Any]) -> bool:
    return "state" not in next(iter(sample.values()))[f"{ENGINES[0]}_fp32"]


def _accuracy(values: dict[str, Any], *, localises: bool) -> str:
    pair = (values["image_auroc"], values["pixel_auroc"] if localises else None)
    return " / ".join("-" if value is None else f"{100 * value:.1f}" for value in pair)


if __name__ == "__main__":
    sys.exit(main())

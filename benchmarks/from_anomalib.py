"""What changes where a checkpoint of anomalib is deployed by lineproof instead of by anomalib's own export.

    python benchmarks/from_anomalib.py CHECKPOINTS --python PATH --data DIR [--category NAME] [--out FILE.json]
    python benchmarks/from_anomalib.py --render

CHECKPOINTS holds NAME/model.ckpt and, where anomalib exported it, NAME/export/weights/onnx/model.onnx; PATH is the
Python of an environment with anomalib 2.7 and openvino. For each checkpoint: it is imported, exported and verified
against Engine.predict (``lineproof verify --against anomalib``), the exported file is diagnosed, and both are timed on
the same frame in memory, in blocks that take turns, after a warm-up, medians of 40 runs. ``--render`` writes the tables
of docs/from-anomalib.md from the figures.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE, FIGURES = DOCS / "from-anomalib.md", DOCS / "from-anomalib.json"
ENGINES = ("ort-cpu", "openvino")
NUM_BLOCKS, RUNS_PER_BLOCK = 4, 10
#: Inferencers of anomalib, by what a table calls them.
THEIRS = {
    "torch": "TorchInferencer",
    "openvino": "OpenVINOInferencer as it comes",
    "openvino f32": "OpenVINOInferencer told to compute in f32",
}

#: Runs in anomalib's environment: answers each line ``KIND NUM`` with NUM times in ms, or with an error.
WORKER = """
import json, os, sys, time, warnings, logging
warnings.filterwarnings("ignore")
logging.disable(logging.CRITICAL)
os.environ["TRUST_REMOTE_CODE"] = "1"
answers, sys.stdout = sys.stdout, sys.stderr
sys.path.insert(0, os.path.dirname(sys.argv[5]))
import numpy as np
import torch
import predict_script
predict_script.without_downloads()
from anomalib import models
from anomalib.deploy import ExportType, OpenVINOInferencer, TorchInferencer
checkpoint, name, onnx, frame_file, _ = sys.argv[1:6]
frame = np.load(frame_file)
opened = {}

def get(kind):
    if kind not in opened:
        if kind == "torch":
            model = getattr(models, name).load_from_checkpoint(checkpoint, map_location="cpu")
            file = model.to_torch(export_root="exported")
            opened[kind] = TorchInferencer(path=file, device="cpu")
        else:
            config = {"INFERENCE_PRECISION_HINT": "f32"} if kind.endswith("f32") else None
            opened[kind] = OpenVINOInferencer(path=onnx, device="CPU", config=config)
    return opened[kind]

def once(kind):
    inferencer = get(kind)
    start = time.perf_counter_ns()
    if kind == "torch":
        image = torch.from_numpy(frame).permute(2, 0, 1).float() / 255
        inferencer.predict(image)
    else:
        inferencer.predict(frame)
    return (time.perf_counter_ns() - start) / 1e6

for line in sys.stdin:
    kind, num = line.rsplit(" ", 1)
    try:
        answer = {"ms": [once(kind) for _ in range(int(num))]}
    except Exception as error:
        answer = {"error": f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"}
    answers.write(json.dumps(answer) + "\\n")
    answers.flush()
"""


def main() -> None:
    """Measure and write the figures, or render the page from them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="?", type=Path)
    parser.add_argument("--python", type=Path, help="Python of an environment with anomalib")
    parser.add_argument("--data", type=Path, help="data set, such as a folder of MVTec AD")
    parser.add_argument("--category")
    parser.add_argument("--parts", nargs="*", default=["verdicts", "times"], help="what to measure of them")
    parser.add_argument("--only", nargs="*", help="names of checkpoints; all where left out")
    parser.add_argument("--out", type=Path, default=FIGURES)
    parser.add_argument("--render", action="store_true", help="write the page from the figures, and measure nothing")
    given = parser.parse_args()
    if not given.render:
        if not (given.checkpoints and given.python and given.data):
            parser.error("CHECKPOINTS, --python and --data are needed to measure")
        measure_all(given)
    PAGE.write_text(render(PAGE.read_text(), json.loads(given.out.read_text())))


def measure_all(given: argparse.Namespace) -> None:
    """Measure every checkpoint, and write the figures after each."""
    found = json.loads(given.out.read_text()) if given.out.is_file() else {"models": {}}
    for checkpoint in sorted(given.checkpoints.glob("*/model.ckpt")):
        if given.only and checkpoint.parent.name not in given.only:
            continue
        print(f"{checkpoint.parent.name} …", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            former = found["models"].get(checkpoint.parent.name, {})
            found["models"][checkpoint.parent.name] = {**former, **measure(checkpoint, Path(folder), given)}
        from lineproof.host.environment import describe_environment

        given.out.write_text(json.dumps({**found, "environment": describe_environment()}, indent=1) + "\n")


def measure(checkpoint: Path, work: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Figures of one checkpoint."""
    from lineproof.data.dataset import check_contents, open_dataset
    from lineproof.eval.parity.foreign import ForeignReference, verify_against
    from lineproof.export.bundle import export_bundle
    from lineproof.importers.anomalib.run import import_anomalib

    dataset = check_contents(open_dataset(given.data, category=given.category), "image")
    result = import_anomalib(checkpoint, dataset=dataset, out=work / "run")
    bundle = export_bundle(result.run, work / "a.bundle")
    reference = ForeignReference(checkpoint=checkpoint, python=given.python)
    exported = checkpoint.parent / "export" / "weights" / "onnx" / "model.onnx"
    figures: dict[str, Any] = {
        "model": bundle.manifest.imported.model,
        "frame": bundle.manifest.preprocessing.frame_shape,
    }
    if "times" in given.parts:
        figures["ms"] = timed(bundle, exported, given.python, work, checkpoint)
    if "verdicts" not in given.parts:
        return figures
    parity = {}
    for engine in ENGINES:
        report = verify_against(bundle, engine=engine, dataset=dataset, reference=reference)
        parity[engine] = {
            "state": report.state,
            "num_images": report.num_frames - report.num_golden,
            "flips": len(report.verdict_flips),
            "ties": len(report.ties),
            "score_error": report.score_max_abs_error,
            "map_error": report.map_max_abs_error,
            "reference": report.reference,
        }
    return {**figures, "parity": parity, "exported": diagnosed(checkpoint, exported, dataset)}


def diagnosed(checkpoint: Path, exported: Path, dataset: Any) -> dict[str, Any] | None:
    """What the exported file gives, and why; None where anomalib exported none."""
    from lineproof.importers.anomalib.diagnose import diagnose_anomalib

    if not exported.is_file():
        return None
    found = diagnose_anomalib(checkpoint, exported=exported, dataset=dataset)
    return {
        "num_images": found.num_images,
        "num_good": found.num_images - found.num_defective,
        "differ": len(found.differ),
        "score_error": found.score_error,
        "good_rejected": list(found.good_rejected),
        "causes": {
            item.cause: {"is_present": item.is_present, "num_verdicts": item.num_verdicts} for item in found.findings
        },
    }


def timed(bundle: Any, exported: Path, python: Path, work: Path, checkpoint: Path) -> dict[str, Any]:
    """Median time in ms from one frame in memory to score and map, by who does it, in blocks that take turns."""
    import numpy as np

    from lineproof.importers.anomalib import predict_script
    from lineproof.runtime.engine import EngineOptions, open_engine

    frame = bundle.golden().frames[:1]
    np.save(work / "frame.npy", frame[0])
    words = [python, "-W", "ignore", "-c", WORKER, checkpoint, bundle.manifest.imported.model, exported]
    words += [work / "frame.npy", predict_script.__file__]
    times: dict[str, list[float]] = {}
    errors: dict[str, str] = {}
    engines = {name: open_engine(bundle, name, options=EngineOptions()) for name in ENGINES}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    process: Any = subprocess.Popen(list(map(str, words)), cwd=work, text=True, **pipes)

    def theirs(kind: str) -> Callable[[int], list[float]]:
        def run(num: int) -> list[float]:
            process.stdin.write(f"{kind} {num}\n")
            process.stdin.flush()
            answer = json.loads(process.stdout.readline())
            if "error" in answer:
                errors[kind] = answer["error"]
            return answer.get("ms", [])

        return run

    sides = {f"lineproof {name}": ours(engine, frame) for name, engine in engines.items()}
    sides |= {f"anomalib {kind}": theirs(kind) for kind in THEIRS}
    with process:
        for run in sides.values():
            run(3)
        for _ in range(NUM_BLOCKS):
            for name, run in sides.items():
                # What the last one left spinning shall not be counted to the next.
                time.sleep(0.3)
                times.setdefault(name, []).extend(run(RUNS_PER_BLOCK))
        process.stdin.close()
    for engine in engines.values():
        engine.close()
    medians = {name: median(values) for name, values in times.items() if values}
    return {"p50": medians, "runs": NUM_BLOCKS * RUNS_PER_BLOCK, "errors": errors}


def ours(engine: Any, frame: Any) -> Callable[[int], list[float]]:
    """A function that times an engine of ours so often."""
    from lineproof.runtime.engine import predict

    def run(num: int) -> list[float]:
        found = []
        for _ in range(num):
            start = time.perf_counter_ns()
            predict(engine, frame)
            found.append((time.perf_counter_ns() - start) / 1e6)
        return found

    return run


def render(page: str, figures: dict[str, Any]) -> str:
    """The page with its tables made anew between the markers."""
    for name, lines in (("verdicts", verdict_lines(figures)), ("times", time_lines(figures))):
        start, end = f"<!-- {name} -->\n", f"<!-- end {name} -->"
        before, _, rest = page.partition(start)
        page = f"{before}{start}" + "\n".join(lines) + f"\n{end}{rest.partition(end)[2]}"
    return page


def verdict_lines(figures: dict[str, Any]) -> list[str]:
    """Table of verdicts before and after."""
    lines = [
        "| checkpoint | good images rejected: Engine.predict | its exported ONNX | other verdicts, ONNX | other "
        "verdicts, bundle on ONNX Runtime, OpenVINO | ties | largest error of a score: ONNX | bundle |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for item in figures["models"].values():
        if "parity" not in item:
            continue
        exported, parity = item["exported"], item["parity"]
        first = parity[ENGINES[0]]
        flips = ", ".join(f"{entry['flips']} of {entry['num_images']}" for entry in parity.values())
        worst = max(entry["score_error"] for entry in parity.values())
        before = ["not exported"] * 4
        if exported:
            good = [f"{num} of {exported['num_good']}" for num in exported["good_rejected"]]
            before = [*good, f"**{exported['differ']}** of {exported['num_images']}", f"{exported['score_error']:.2g}"]
        lines.append(
            f"| {item['model']} | {before[0]} | {before[1]} | {before[2]} | {flips} | {first['ties']} | {before[3]} | "
            f"{worst:.1g} |"
        )
    return lines


def time_lines(figures: dict[str, Any]) -> list[str]:
    """Table of times, and their ratios."""
    kinds = list(THEIRS)
    lines = [
        f"| checkpoint | bundle, ONNX Runtime | bundle, OpenVINO f32 | {' | '.join(THEIRS[kind] for kind in kinds)} | "
        "fastest of anomalib's in f32 / fastest of ours |",
        f"| --- | --- | --- |{' --- |' * len(kinds)} --- |",
    ]
    for item in figures["models"].values():
        if "ms" not in item:
            continue
        p50, errors = item["ms"]["p50"], item["ms"]["errors"]
        mine = [p50[f"lineproof {engine}"] for engine in ENGINES]
        theirs = {kind: p50.get(f"anomalib {kind}") for kind in kinds}
        cells = [f"{ms:.1f} ms" if ms else f"fails ({errors[kind].partition(':')[0]})" for kind, ms in theirs.items()]
        exact = [theirs[kind] for kind in ("torch", "openvino f32") if theirs[kind]]
        ratio = f"{min(exact) / min(mine):.2f}" if exact else "none runs"
        lines.append(f"| {item['model']} | {mine[0]:.1f} ms | {mine[1]:.1f} ms | {' | '.join(cells)} | {ratio} |")
    return lines


if __name__ == "__main__":
    sys.exit(main())

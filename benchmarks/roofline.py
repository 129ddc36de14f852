"""Where the time of a bundle goes on a CPU, and how near each part of it is to what this machine can do.

    python benchmarks/roofline.py BUNDLE … [--runs 30] [--out FILE.json]

One thread, batch 1, the golden frames. ort-cpu and openvino take turns (``lineproof.profiles``); then each library's
own profiler says where the time of its run goes: each layer's median, summed over the stages of the graph. The peak is
that of a matrix product in float32, the bandwidth that of a copy of a gigabyte (read and written), the best of a few
before each bundle, on one thread in the same run. Bytes are what the layers of ONNX Runtime read and write; OpenVINO
fuses more of them, and what a cache holds is faster than the copy, so that a stage may lie above this roof. A stage
whose bytes would take longer than its operations is bound by memory, else by arithmetic; ``of roof`` is the share of
the longer of both times in what was measured.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path
from statistics import median
from typing import Any

ENGINES = ("ort-cpu", "openvino")
STAGES = ("preprocess", "backbone", "head", "post")
_Layer = tuple[str, str, str]
_SIDE, _COPIED_BYTES, _REPEATS = 2048, 1 << 30, 7


def main() -> None:
    """Measure the machine, then each bundle, and print a table of its stages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--out", type=Path, help="file of the figures")
    given = parser.parse_args()
    peak = bandwidth = 0.0
    bundles = {}
    for path in given.bundles:
        # Between bundles, since other work on the machine comes and goes.
        peak, bandwidth = max(peak, peak_gflops()), max(bandwidth, bandwidth_gb())
        bundles[path.name] = measure(path, given.runs)
    print(f"One thread: {peak:.0f} GFLOP/s in a matrix product, {bandwidth:.1f} GB/s in a copy.")
    for bundle, measured in bundles.items():
        times = (
            f"{name} {ms:.2f} ms, {measured['gflop'] / ms * 1e3:.1f} GFLOP/s" for name, ms in measured["p50_ms"].items()
        )
        print(f"\n{bundle}: {measured['gflop']:.3f} GFLOP, {', '.join(times)}")
        for name, (stage, row) in itertools.product(ENGINES, measured["stages"].items()):
            print(f"  {name:9} {stage:11} {line(row, row['ms'][name], peak, bandwidth)}; {tops(row['layers'][name])}")
    found = {"peak_gflops": peak, "bandwidth_gb_s": bandwidth, "runs": given.runs, "bundles": bundles}
    if given.out:
        given.out.write_text(json.dumps(found, indent=1) + "\n")


def line(row: dict[str, Any], ms: float, peak: float, bandwidth: float) -> str:
    """One stage in words."""
    arithmetic_ms, memory_ms = row["gflop"] / peak * 1e3, row["gb"] / bandwidth * 1e3
    bound = "memory" if memory_ms > arithmetic_ms else "arithmetic"
    share = max(arithmetic_ms, memory_ms) / ms if ms else 0.0
    rate = f"{row['gflop'] / ms * 1e3:6.1f} GFLOP/s" if ms else ""
    return f"{ms:8.2f} ms, {row['gflop']:6.3f} GFLOP, {row['gb'] * 1e3:6.1f} MB, {rate}, {share:4.0%} of roof ({bound})"


def tops(layers: dict[str, float]) -> str:
    """The kinds of layers that take most of a stage, with their ms."""
    most = sorted(layers.items(), key=lambda item: -item[1])[:3]
    return ", ".join(f"{kind} {ms:.2f}" for kind, ms in most)


def peak_gflops() -> float:
    """GFLOP/s of a matrix product in float32 on one thread."""
    import torch

    torch.set_num_threads(1)
    left = torch.randn(_SIDE, _SIDE)
    return 2 * _SIDE**3 / _least_s(lambda: left @ left) / 1e9


def bandwidth_gb() -> float:
    """GB/s that a copy reads and writes together."""
    import numpy as np

    source = np.ones(_COPIED_BYTES // 8)
    target = np.empty_like(source)
    return 2 * _COPIED_BYTES / _least_s(lambda: np.copyto(target, source)) / 1e9


def _least_s(call: Any) -> float:
    times = []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return min(times)


def measure(path: Path, num_runs: int) -> dict[str, Any]:
    """Median time of a call per engine, and of each stage its time, operations, bytes and kinds of layers."""
    from lineproof.bundle.store import open_bundle
    from lineproof.profiles.profiler import profile_many
    from lineproof.profiles.timing import Schedule
    from lineproof.runtime.engine import EngineOptions

    bundle = open_bundle(path)
    schedule = Schedule(num_runs=num_runs, num_warmup=3)
    options = EngineOptions(num_threads=1)
    compared = profile_many(bundle, ENGINES, options=options, schedule=schedule, num_cold_starts=0, record=False)
    p50 = {report.engine: report.batches[0].latency.p50 for report in compared.reports}
    frames = bundle.golden().frames[:1]
    ort, bytes_of = ort_layers(bundle, frames, num_runs)
    layers = {"ort-cpu": ort, "openvino": openvino_layers(bundle, frames, num_runs)}
    stages = {
        stage: {
            "gflop": flops / 1e9,
            "gb": bytes_of[stage] / 1e9,
            "ms": {name: sum(layers[name][stage].values()) for name in ENGINES},
            "layers": {name: dict(layers[name][stage]) for name in ENGINES},
        }
        for stage, flops in bundle.manifest.figures.flops.items()
    }
    return {"p50_ms": p50, "gflop": sum(bundle.manifest.figures.flops.values()) / 1e9, "stages": stages}


class _Stages:
    """The stage of each layer, in the order in which they run; one that a library renamed belongs to that before it."""

    def __init__(self) -> None:
        self._last = STAGES[0]

    def of(self, name: str) -> str:
        self._last = stage if (stage := name.split("/", 1)[0]) in STAGES else self._last
        return self._last


def ort_layers(bundle: Any, frames: Any, num_runs: int) -> tuple[dict[str, Counter[str]], Counter[str]]:
    """ONNX Runtime's profile: ms of a run by stage and operator, and the bytes that the layers of a stage move."""
    import onnxruntime as ort

    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.enable_profiling, options.profile_file_prefix = True, str(Path(folder) / "ort")
        session = ort.InferenceSession(str(bundle.model_path), options, providers=["CPUExecutionProvider"])
        for _ in range(num_runs):
            session.run(None, {bundle.manifest.inputs[0].name: frames})
        events = json.loads(Path(session.end_profiling()).read_text())
    runs, moved, stages = defaultdict[_Layer, list[float]](list), Counter[str](), _Stages()
    for event in sorted(events, key=lambda event: event.get("ts", 0)):
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            stage, detail = stages.of(event["name"]), event["args"]
            runs[stage, detail["op_name"], event["name"]].append(event["dur"] / 1e3)
            sizes = (detail.get(key, 0) for key in ("activation_size", "parameter_size", "output_size"))
            moved[stage] += sum(map(int, sizes)) / num_runs
    return _medians(runs), moved


def openvino_layers(bundle: Any, frames: Any, num_runs: int) -> dict[str, Counter[str]]:
    """OpenVINO's profile: ms of a run by stage and kind of layer."""
    import openvino

    core = openvino.Core()
    settings = {"PERF_COUNT": True, "INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = core.compile_model(str(bundle.model_path), "CPU", {**settings, "PERFORMANCE_HINT": "LATENCY"})
    request = compiled.create_infer_request()
    runs = defaultdict[_Layer, list[float]](list)
    for _ in range(num_runs):
        request.infer({0: frames})
        stages = _Stages()
        for layer in request.profiling_info:
            name = stages.of(layer.node_name), layer.node_type, layer.node_name
            runs[name].append(layer.real_time.total_seconds() * 1e3)
    return _medians(runs)


def _medians(runs: dict[_Layer, list[float]]) -> dict[str, Counter[str]]:
    """Ms by stage and kind of layer: each layer's median over the runs."""
    layers = defaultdict[str, Counter[str]](Counter)
    for (stage, kind, _), times in runs.items():
        layers[stage][kind] += median(times)
    return layers


if __name__ == "__main__":
    main()

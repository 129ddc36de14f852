"""Speed and memory of the pixel metrics, side by side with other packages.

Run from the project root, with the other packages installed beside lineproof:

    pip install torch torchvision anomalib torchmetrics scikit-learn ADEval
    python benchmarks/metrics.py

Contenders take turns, each in a process of its own, bound to the same cores, on the same data. Only ratios within a
run mean anything. The maps are smooth random fields in which defects are brighter; every fifth is rounded to half
precision, so that there are ties.
"""

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

CASES = {"117x256": (117, 256), "117x1024": (117, 1024), "1725x256": (1725, 256)}
FPR_LIMIT = 0.3
BATCH = 32
WARM_UP_IMAGES = 8
Runner = Callable[[np.ndarray, np.ndarray], dict[str, float]]


def make_case(num: int, size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return float32 maps and bool masks (num, size, size); three images in four have one to four defects."""
    rng = np.random.default_rng(seed)
    coarse = 32
    distance = (np.arange(size) + 0.5) * coarse / size - 0.5
    kernel = np.exp(-0.7 * (distance[:, None] - np.arange(coarse)) ** 2)
    smooth = (kernel / kernel.sum(1, keepdims=True)).astype(np.float32)
    rows, columns = np.mgrid[:size, :size].astype(np.float32) / size
    maps, masks = np.empty((num, size, size), np.float32), np.zeros((num, size, size), bool)
    for index in range(num):
        field = smooth @ rng.gamma(4, 0.25, (coarse, coarse)).astype(np.float32) @ smooth.T
        for _ in range(rng.integers(1, 5) if index % 4 else 0):
            y, x = rows - rng.uniform(0.1, 0.9), columns - rng.uniform(0.1, 0.9)
            turn, (long, wide) = rng.uniform(0, np.pi), rng.uniform(0.02, 0.12, 2)
            along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
            radius = (along / long) ** 2 + (across / wide) ** 2
            masks[index] |= radius < 1
            field += rng.uniform(0.3, 2) * np.exp(-0.7 * radius).astype(np.float32)
        maps[index] = field.astype(np.float16) if index % 5 == 0 else field
    return maps, masks


def lineproof_runner(num_threads: int) -> Runner:
    from lineproof.metrics.pixel import pixel_metrics

    return lambda maps, masks: pixel_metrics(maps, masks, fpr_limit=FPR_LIMIT, num_threads=num_threads).to_dict()


def streaming_runner(num_threads: int) -> Runner:
    from lineproof.metrics.pixel import PixelMetrics

    def run(maps: np.ndarray, masks: np.ndarray) -> dict[str, float]:
        metrics = PixelMetrics(FPR_LIMIT, num_threads=num_threads)
        for anomaly_map, mask in zip(maps, masks, strict=True):
            metrics.update(anomaly_map, mask)
        return metrics.compute().to_dict()

    return run


def sort_runner(num_threads: int) -> Runner:
    """Only copy and sort the scores: what bounds every exact method that sorts."""

    def run(maps: np.ndarray, masks: np.ndarray) -> dict[str, float]:
        del masks
        parts = np.array_split(maps.reshape(-1).view(np.int32).copy(), num_threads)
        with ThreadPoolExecutor(num_threads) as executor:
            list(executor.map(np.ndarray.sort, parts))
        return {}

    return run


def adeval_runner(num_threads: int) -> Runner:
    import cv2

    np.trapz = np.trapezoid  # noqa: NPY201 - ADEval 1.1.0 calls it by the name that NumPy 2.4 removed
    from adeval import auroc_aupr_aupro

    cv2.setNumThreads(num_threads)

    def run(maps: np.ndarray, masks: np.ndarray) -> dict[str, float]:
        return dict(zip(("auroc", "ap", "aupro"), map(float, auroc_aupr_aupro(maps, masks)), strict=True))

    return run


def anomalib_runner(num_threads: int) -> Runner:
    import torch
    from anomalib.metrics.aupr import _AUPR
    from anomalib.metrics.aupro import _AUPRO
    from anomalib.metrics.auroc import _AUROC

    torch.set_num_threads(num_threads)

    def run(maps: np.ndarray, masks: np.ndarray) -> dict[str, float]:
        metrics = {"auroc": _AUROC(), "ap": _AUPR(), "aupro": _AUPRO(fpr_limit=FPR_LIMIT)}
        for first in range(0, len(maps), BATCH):
            scores = torch.from_numpy(maps[first : first + BATCH])
            target = torch.from_numpy(masks[first : first + BATCH])
            for metric in metrics.values():
                metric.update(scores, target)
        return {name: float(metric.compute()) for name, metric in metrics.items()}

    return run


def torchmetrics_runner(num_threads: int) -> Runner:
    import torch
    from torchmetrics.classification import BinaryAUROC, BinaryAveragePrecision

    torch.set_num_threads(num_threads)

    def run(maps: np.ndarray, masks: np.ndarray) -> dict[str, float]:
        metrics = {
            "auroc": BinaryAUROC(validate_args=False),
            "ap": BinaryAveragePrecision(validate_args=False),
        }
        for first in range(0, len(maps), BATCH):
            scores = torch.from_numpy(maps[first : first + BATCH])
            target = torch.from_numpy(masks[first : first + BATCH])
            for metric in metrics.values():
                metric.update(scores, target)
        return {name: float(metric.compute()) for name, metric in metrics.items()}

    return run


def sklearn_runner(num_threads: int) -> Runner:
    del num_threads  # scikit-learn's ranking metrics have one thread
    from sklearn.metrics import average_precision_score, roc_auc_score

    def run(maps: np.ndarray, masks: np.ndarray) -> dict[str, float]:
        scores, labels = maps.reshape(-1), masks.reshape(-1)
        return {"auroc": roc_auc_score(labels, scores), "ap": average_precision_score(labels, scores)}

    return run


CONTENDERS: dict[str, tuple[str, Callable[[int], Runner]]] = {
    "lineproof": ("AUROC AP F1-max AUPRO, exact", lineproof_runner),
    "lineproof-stream": ("the same, image by image", streaming_runner),
    "sort-only": ("nothing: copies and sorts the scores", sort_runner),
    "adeval": ("AUROC AP AUPRO, 1,000 strips", adeval_runner),
    "anomalib": ("AUROC AUPR AUPRO, float32 sums", anomalib_runner),
    "torchmetrics": ("AUROC AP", torchmetrics_runner),
    "sklearn": ("AUROC AP", sklearn_runner),
}
MASK_DTYPES = {"adeval": np.uint8, "anomalib": np.uint8, "torchmetrics": np.uint8}


def resident_bytes(field: str) -> int:
    """Return VmRSS (now) or VmHWM (peak) of this process."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(field + ":"))


def work(contender: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run one contender in this process: a small warm-up, one call that measures memory, then timed calls.

    Where that one call uses up the budget, it is the timed one as well.
    """
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    run = CONTENDERS[contender][1](options.threads)
    maps = np.load(folder / "maps.npy")
    masks = np.load(folder / "masks.npy").astype(MASK_DTYPES.get(contender, np.bool_))
    if contender in ("anomalib", "torchmetrics"):
        # Both squash scores outside [0, 1] with a sigmoid, batch by batch, and are wrong on them.
        maps = (maps - maps.min()) / (maps.max() - maps.min())
    run(maps[:WARM_UP_IMAGES], masks[:WARM_UP_IMAGES])
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = resident_bytes("VmRSS")
    times: list[float] = []
    values: dict[str, float] = {}
    peak = 0
    while len(times) < 1 + options.repeats and sum(times) < options.budget_s:
        start = time.perf_counter()
        values = run(maps, masks)
        times.append(time.perf_counter() - start)
        if len(times) == 1:
            peak = resident_bytes("VmHWM") - before
    accuracies = {name: values[name] for name in ("auroc", "ap", "aupro") if name in values}
    return {"times_s": times[1:] or times, "extra_bytes_per_px": peak / maps.size, "values": accuracies}


def measure(contender: str, folder: Path) -> dict[str, Any]:
    """Run ``work`` in a fresh process; an absent package or a lack of memory is a result too."""
    command = [sys.executable, *sys.argv, "--worker", contender, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return {"error": lines[-1] if lines else f"ended with status {done.returncode}"}
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def run_case(folder: Path, options: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """Let the contenders take turns for a number of rounds; one whose single call used up the budget has no more."""
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in options.contenders}
    for _ in range(options.rounds):
        for name, results in rounds.items():
            if results and ("error" in results[-1] or results[-1]["times_s"][0] > options.budget_s):
                continue
            results.append(measure(name, folder))
            print(f"  {name}: {json.dumps(results[-1])[:300]}", file=sys.stderr, flush=True)
    return rounds


def table(case: str, rounds: dict[str, list[dict[str, Any]]]) -> str:
    """Return Markdown: medians and bests, their ratios to lineproof's of the same rounds, memory, disagreement."""
    ours = rounds["lineproof"]
    lines = [
        f"**{case}**\n",
        "| contender | what | calls | median s | best s | times slower: median | best | extra bytes/px | off by |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, results in rounds.items():
        failed = next((result["error"] for result in results if "error" in result), None)
        if failed:
            lines.append(f"| {name} | {failed} | | | | | | | |")
            continue
        times = [seconds for result in results for seconds in result["times_s"]]
        own_times = [seconds for own in ours[: len(results)] for seconds in own["times_s"]]
        median, best = statistics.median(times), min(times)
        memory = max(result["extra_bytes_per_px"] for result in results)
        values = results[0]["values"]
        difference = max((abs(values[key] - ours[0]["values"][key]) for key in values), default=0.0)
        lines.append(
            f"| {name} | {CONTENDERS[name][0]} | {len(times)} | {median:.3f} | {best:.3f} | "
            f"{median / statistics.median(own_times):.2f} | {best / min(own_times):.2f} | {memory:.1f} | "
            f"{difference:.0e} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--contenders", nargs="+", default=list(CONTENDERS), choices=list(CONTENDERS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=10, help="timed calls per round")
    parser.add_argument("--budget-s", type=float, default=40, help="no further call once these are used up")
    parser.add_argument("--threads", type=int, default=2, help="cores and threads for everybody")
    parser.add_argument("--out", type=Path, help="write every sample here, as JSON")
    options = parser.parse_args()
    if options.worker:
        contender, folder = options.worker
        print(json.dumps(work(contender, Path(folder), options)))
        return
    results = {}
    for case in options.cases:
        with tempfile.TemporaryDirectory() as folder:
            maps, masks = make_case(*CASES[case])
            np.save(Path(folder) / "maps.npy", maps)
            np.save(Path(folder) / "masks.npy", masks)
            del maps, masks
            results[case] = run_case(Path(folder), options)
        print(table(case, results[case]), flush=True)
    if options.out:
        options.out.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()

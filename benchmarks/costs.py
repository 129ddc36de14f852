"""Finds what the paper's preset of each detector costs to train, and writes docs/reproduce.md.

    python benchmarks/costs.py [NAME …] [--teraflops T] [--render]
    python benchmarks/costs.py [NAME …] --measure cuda [--limit S] [--workers N] [--out FILE]
    python benchmarks/costs.py --merge FILE

Without ``--measure`` nothing is a time that was measured. Each detector is fitted by its paper's preset, with random
backbone weights, on a handful of drawn images or scans, twice or more: with one epoch and with two. Floating-point
operations are counted as they are done, so are the bytes that a step keeps for its backward pass, and the bytes of what
was learned. From these the page extrapolates to 242 good images, MVTec AD's mean, or to 266 good scans, MVTec 3D-AD's,
and their copies, and to the preset's epochs and batch.

Scans are 400 px squares without colours. An f-AnoGAN is fitted with one scan per step, and at three small widths, since
its networks are too large for a CPU: operations, bytes and parameters are quadratic in the width.

With ``--measure`` the fit of a detector of images begins on a device, on 242 images of which a fifth is held out. Each
training ends after the epoch that exceeds a sixth of the limit, and the fit at a stage that exceeds the limit: what the
pace of a stage makes of the whole of it is the time that the page tells.

The figures go into docs/reproduce.json, one entry per detector; the page is rendered from it.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import dataclasses
import functools
import json
import math
import shutil
import tempfile
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[1] / "docs"
DATA, PAGE = DOCS / "reproduce.json", DOCS / "reproduce.md"
START, END = "<!-- costs: python benchmarks/costs.py -->", "<!-- end of costs -->"
#: Good images of an MVTec AD category, the mean of fifteen; good scans of an MVTec 3D-AD category, the mean of ten.
NUM_IMAGES, NUM_SCANS = 242, 266
_FITTED, _HELD_OUT, _BATCH = 4, 2, 2
#: Image detectors that are trained for a number of steps, whatever the number of images, which is not counted here.
_BY_STEPS = {"efficient_ad"}
#: The size of dowel's and cable gland's scans, and the smallest of MVTec 3D-AD. Of its good scans a tenth is held out.
_SCAN_PX, _SCANS_FITTED, _SCANS_HELD_OUT = 400, 6, 1
_WIDTHS = (2, 4, 8)


def main() -> None:
    """Count for the detectors named, or for all, and render the page."""
    from lineproof.detectors.table import DETECTORS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="detectors; all where left out")
    parser.add_argument("--teraflops", type=float, default=10.0, help="assumed sustained TFLOP/s of the training")
    parser.add_argument("--render", action="store_true", help="only render the page")
    parser.add_argument("--measure", metavar="DEVICE", help="measure times on a device instead of counting")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds after which a stage ends the fit")
    parser.add_argument("--workers", type=int, default=8, help="processes that make batches while times are measured")
    parser.add_argument("--out", type=Path, default=DATA, help="file of the figures")
    parser.add_argument("--merge", type=Path, metavar="FILE", help="take the figures of another file too")
    given = parser.parse_args()
    kept = json.loads(given.out.read_text()) if given.out.exists() else {}
    for name, more in (json.loads(given.merge.read_text()) if given.merge else {}).items():
        kept[name] = kept.get(name, {}) | more
    names = [] if given.render or given.merge else given.names or sorted(set(DETECTORS) - _BY_STEPS)
    for name in filter(_takes_images, names) if given.measure else names:
        found = {"measured": measure(name, given)} if given.measure else count(name)
        kept[name] = kept.get(name, {}) | found
        print(name, found, flush=True)
        given.out.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    if given.out != DATA:
        return
    DATA.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    before, _, rest = PAGE.read_text().partition(START)
    PAGE.write_text(f"{before}{START}\n\n{table(kept, teraflops=given.teraflops)}\n{END}{rest.partition(END)[2]}")


def _takes_images(name: str) -> bool:
    """Whether a detector takes images, not scans."""
    from lineproof.core.registry import resolve
    from lineproof.detectors.table import DETECTORS

    return bool(resolve(DETECTORS, name, kind="detector").input_kind == "image")


def count(name: str) -> dict[str, Any]:
    """Count one detector's fits; GFLOP per image once and per epoch, bytes of a step and of what was learned."""
    from lineproof.detectors.base import make_config
    from lineproof.detectors.table import DETECTORS

    assert name in DETECTORS
    config = make_config(name, {})
    full = dataclasses.asdict(config)
    if not _takes_images(name):
        return _count_scans(name, full)
    lengths = {key: full[key] for key in full if key == "epochs" or key.endswith("_epochs")}
    # Where the number of epochs follows from another parameter.
    lengths |= {"epochs": config.num_epochs} if hasattr(config, "num_epochs") else {}
    base = {"weights": "random" if full["weights"] == "imagenet" else full["weights"], **dict.fromkeys(lengths, 1)}
    base |= {"batch_size": _BATCH} if "batch_size" in full else {}
    base |= {"steps_per_epoch": 2} if "steps_per_epoch" in full else {}
    once = _fit(name, base)
    per_epoch = {key: _fit(name, {**base, key: 2})["flop"] - once["flop"] for key in lengths}
    # What an epoch is made of: images, or steps that draw as many as they need.
    drawn = 2 * _BATCH if "steps_per_epoch" in full else _FITTED
    of_epoch = full["steps_per_epoch"] * full["batch_size"] if "steps_per_epoch" in full else NUM_IMAGES
    more = _fit(name, base, num_images=2 * _FITTED)
    fixed = (once["flop"] - sum(per_epoch.values())) / _FITTED * NUM_IMAGES
    flop = fixed + sum(per_epoch[key] / drawn * of_epoch * lengths[key] for key in lengths)
    learned = once["learned_bytes"] + (more["learned_bytes"] - once["learned_bytes"]) / _FITTED * NUM_IMAGES
    step_bytes = once["step_bytes"] / _BATCH * full.get("batch_size", _BATCH)
    return _entry(lengths, flop=flop, step_bytes=step_bytes, trained=once["trained"], learned_bytes=learned)


def _count_scans(name: str, full: dict[str, Any]) -> dict[str, Any]:
    """Count the fits of a detector of scans, which learns as much whatever the number of scans."""
    num_seen = NUM_SCANS * (full["copies"] + 1)
    if "generator_steps" not in full:
        lengths = {"epochs": full["epochs"]} if "epochs" in full else {}
        base = {"copies": 0, **dict.fromkeys(lengths, 1), **({"batch_size": _BATCH} if lengths else {})}
        once = _fit(name, base, num_images=_SCANS_FITTED)
        per_epoch = {
            key: _fit(name, {**base, key: 2}, num_images=_SCANS_FITTED)["flop"] - once["flop"] for key in lengths
        }
        flop = (once["flop"] - sum(per_epoch.values())) / _SCANS_FITTED * num_seen
        flop += sum(per_epoch[key] / _SCANS_FITTED * num_seen * lengths[key] for key in lengths)
        batch = _BATCH
    else:
        # An epoch is one step of the generator with all of the critic's, and as many steps of the encoder as scans.
        batch, num = 1, full["critic_steps"]
        lengths = {key: full[key] for key in ("generator_steps", "encoder_steps")}
        base = {"copies": 0, "batch_size": batch, "generator_steps": 1, "encoder_steps": num}
        at_width = functools.partial(_at_width, name, width=full["width"], num_scans=num)
        once = at_width(base)
        generator = at_width({**base, "generator_steps": 2})["flop"] - once["flop"]
        encoder = at_width({**base, "encoder_steps": 2 * num})["flop"] - once["flop"]
        flop = full["batch_size"] * (lengths["generator_steps"] * generator + lengths["encoder_steps"] * encoder / num)
    step_bytes = once["step_bytes"] / batch * full.get("batch_size", batch)
    return _entry(
        lengths, flop=flop, step_bytes=step_bytes, trained=once["trained"], learned_bytes=once["learned_bytes"]
    )


def _at_width(name: str, settings: dict[str, Any], *, width: int, num_scans: int) -> dict[str, float]:
    """What a fit counts at a width, by the polynomial through what it counts at small ones (Lagrange)."""
    counted = [_fit(name, {**settings, "width": item}, num_images=num_scans) for item in _WIDTHS]
    weights = [math.prod((width - b) / (a - b) for b in _WIDTHS if b != a) for a in _WIDTHS]
    return {key: sum(w * item[key] for w, item in zip(weights, counted, strict=True)) for key in counted[0]}


def _entry(
    lengths: dict[str, int], *, flop: float, step_bytes: float, trained: float, learned_bytes: float
) -> dict[str, Any]:
    return {
        "teraflop": round(flop / 1e12, 1),
        "epochs": lengths,
        "step_gb": round(step_bytes / 1e9, 2),
        "trained_m": round(trained / 1e6, 2),
        "learned_gb": round(learned_bytes / 1e9, 3),
    }


def operations() -> Any:
    """Return PyTorch's counter of operations; it follows no modules, whose hooks allow no gradient of a gradient."""
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    counter.mod_tracker = _NoModules()  # type: ignore[assignment]
    return counter


class _NoModules(contextlib.nullcontext):  # type: ignore[type-arg]
    """Stands for the counter's tracker of modules: everything is one."""

    parents = ("Global",)


def _fit(name: str, settings: dict[str, Any], *, num_images: int = _FITTED) -> dict[str, float]:
    import torch

    from lineproof.detectors.base import FitContext, build_detector, make_config

    torch.manual_seed(0)
    live, trained = _Live(), _Trained()
    with tempfile.TemporaryDirectory() as folder:
        config = make_config(name, settings)
        if _takes_images(name):
            detector = build_detector(name, config)
            images, holdout = _images(Path(folder), detector, num_images)
        else:
            detector, images, holdout = _scans(name, config, num_images)
        with operations() as counter, live.hooks(), trained.hook():
            detector.fit(images, holdout, context=FitContext())
    learned = sum(item.nbytes for item in detector.state_dict().values())
    flop = counter.get_total_flops()
    return {"flop": flop, "step_bytes": live.peak, "trained": trained.count(), "learned_bytes": learned}


def _images(folder: Path, detector: Any, num_images: int) -> Any:
    from lineproof.data.dataset import open_dataset
    from lineproof.data.sample.write import write_sample
    from lineproof.detectors.training.train import image_set

    write_sample(folder, num_train=num_images + _HELD_OUT, num_test_good=1, num_test_defect=6, size_px=256)
    paths = [item.path for item in open_dataset(folder, category="flange").train]
    return (image_set(detector, part) for part in (paths[:num_images], paths[num_images:]))


def _scans(name: str, config: Any, num_scans: int) -> Any:
    """A detector of scans, and those that it is fitted to and that are held out."""
    from lineproof.core.inputs import ScanRule
    from lineproof.core.registry import resolve
    from lineproof.data.scans import camera_for, survey_scans
    from lineproof.detectors.base import build_detector
    from lineproof.detectors.table import DETECTORS
    from lineproof.detectors.training.train import image_set
    from lineproof.detectors.volume.base import native_resolved

    root = _drawn_scans()
    paths = sorted((root / "train" / "good" / "rgb").iterdir())
    fitted, held_out = paths[:num_scans], paths[-_SCANS_HELD_OUT:]
    frame = (_SCAN_PX, _SCAN_PX)
    config = native_resolved(config, frame)
    extent = survey_scans(fitted, has_rgb=config.rgb).extent(num_scans)
    kind = resolve(DETECTORS, name, kind="detector")
    spec = kind.scan_spec(config, frame=frame, extent=extent, fit="none")
    camera, is_calibrated = camera_for(root, fitted, size=frame, frame=frame, fit="none")
    rule = ScanRule(spec=spec, camera=camera, is_calibrated=is_calibrated)
    detector = build_detector(name, config)
    return detector, *(image_set(detector, part, scans=rule) for part in (fitted, held_out))


@functools.cache
def _drawn_scans() -> Path:
    """The folder of one category of drawn scans, which lies as long as the process does."""
    from lineproof.data.sample.write_3d import write_sample_3d

    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    write_sample_3d(
        folder,
        num_train=_SCANS_FITTED + _SCANS_HELD_OUT,
        num_validation=0,
        num_test_good=0,
        num_test_defect=0,
        size_px=_SCAN_PX,
    )
    return folder / "bracket"


def measure(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """Begin a fit on a device; return the hours that it would take, the largest memory there and what was measured."""
    import torch

    from lineproof.data.dataset import open_dataset
    from lineproof.data.sample.write import write_sample
    from lineproof.detectors.base import FitContext, build_detector, make_config
    from lineproof.detectors.training.devices import current, find_device
    from lineproof.detectors.training.train import image_set

    torch.manual_seed(0)
    device = find_device(given.measure)
    is_gpu = device.type == "cuda"
    stages = _Stages(given.limit)
    full = dataclasses.asdict(make_config(name, {}))
    settings = {"weights": "random"} if full["weights"] == "imagenet" else {}
    with tempfile.TemporaryDirectory() as folder:
        write_sample(Path(folder), num_train=20, num_test_good=1, num_test_defect=6)
        paths = [item.path for item in open_dataset(Path(folder), category="flange").train]
        paths = (paths * NUM_IMAGES)[:NUM_IMAGES]
        num_held_out = NUM_IMAGES // 5
        detector = build_detector(name, make_config(name, settings))
        images, holdout = (image_set(detector, part) for part in (paths[num_held_out:], paths[:num_held_out]))
        context = FitContext(
            device=device, progress=stages, num_workers=given.workers, time_limit_s=given.limit / 6, save_every_s=0
        )
        with current(device), contextlib.suppress(_EnoughError):
            detector.fit(images, holdout, context=context)
    return {
        "device": torch.cuda.get_device_name(device) if is_gpu else "CPU",
        "workers": given.workers,
        "hours": round(sum(stages.seconds().values()) / 3600, 4),
        "device_gb": round(torch.cuda.max_memory_reserved(device) / 1e9, 2) if is_gpu else 0.0,
        "stages": {stage: [round(seconds, 1), stages.share(stage)] for stage, seconds in stages.seconds().items()},
        "whole": not stages.is_cut_short,
    }


class _EnoughError(Exception):
    """The pace of a stage is known."""


class _Stages:
    """Progress of a fit, from which the time of each of its stages follows.

    Args:
        limit_s: seconds of one stage after which the fit is stopped.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._marks: dict[str, list[tuple[float, int, int]]] = {}
        self.is_cut_short = False

    def __call__(self, stage: str, done: int, total: int, words: str = "") -> None:  # noqa: ARG002 (as all progress)
        marks = self._marks.setdefault(stage, [])
        marks.append((time.perf_counter(), done, total))
        if total and marks[-1][0] - marks[0][0] > self._limit_s and done < total:
            self.is_cut_short = True
            raise _EnoughError

    def seconds(self) -> dict[str, float]:
        """Seconds of each stage as a whole: of what was measured of it, the first fifth is warming up."""
        return {stage: self._pace(marks) * (marks[-1][2] or 1) for stage, marks in self._marks.items()}

    def share(self, stage: str) -> float:
        """Share of a stage that was done, 0 to 1."""
        _, done, total = self._marks[stage][-1]
        return round(done / total, 4) if total else 1.0

    @staticmethod
    def _pace(marks: list[tuple[float, int, int]]) -> float:
        """Seconds of one item."""
        first, last = marks[len(marks) // 5], marks[-1]
        return (last[0] - first[0]) / (last[1] - first[1]) if last[1] > first[1] else 0.0


class _Trained:
    """Parameters that an optimiser moved during a fit, those of networks that serve the training alone included.

    What a detector holds afterwards does not tell: an adapted backbone is frozen again, a classifier dropped.
    """

    def __init__(self) -> None:
        self._seen: dict[int, Any] = {}

    @contextlib.contextmanager
    def hook(self) -> Iterator[None]:
        from torch.optim.optimizer import register_optimizer_step_pre_hook

        handle = register_optimizer_step_pre_hook(self._look)
        try:
            yield
        finally:
            handle.remove()

    def count(self) -> int:
        """Number of values in them."""
        return sum(item.numel() for item in self._seen.values())

    def _look(self, optimiser: Any, _args: Any, _settings: Any) -> None:
        for group in optimiser.param_groups:
            # Kept, not only counted: an id may be given again to what comes after one that is gone.
            self._seen.update({id(item): item for item in group["params"] if item.grad is not None})


class _Live:
    """Bytes that autograd keeps for backward passes, and their peak; a tensor kept twice counts once."""

    def __init__(self) -> None:
        self.now = self.peak = 0
        self._uses: dict[int, int] = {}

    def hooks(self) -> Any:
        import torch

        return torch.autograd.graph.saved_tensors_hooks(self._pack, lambda kept: kept[0])

    def _pack(self, tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        key, size = storage.data_ptr(), storage.nbytes()
        kept = _Kept((tensor.detach(),))
        if not self._uses.get(key):
            self.now += size
            self.peak = max(self.peak, self.now)
        self._uses[key] = self._uses.get(key, 0) + 1
        weakref.finalize(kept, self._drop, key, size)
        return kept

    def _drop(self, key: int, size: int) -> None:
        self._uses[key] -= 1
        if not self._uses[key]:
            self.now -= size


class _Kept(list):  # type: ignore[type-arg]
    """A list that can be watched for its end."""


def table(kept: dict[str, Any], *, teraflops: float) -> str:
    """Render the estimates as a table for ``docs/reproduce.md``."""
    assumed = f"hours at {teraflops:g} TFLOP/s"
    lines = [
        f"| detector | epochs or steps | TFLOP | {assumed} | GB of a step | trained M | disk GB | measured |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for name, row in sorted(kept.items()):
        if "teraflop" not in row:
            lines.append(f"| {name} | {'- | ' * 6}{_measured(row)} |")
            continue
        epochs = ", ".join(str(value) for value in row["epochs"].values()) or "-"
        hours = row["teraflop"] / teraflops / 3600
        memory = row["step_gb"] + row["trained_m"] * 16e-3
        disk = 2 * row["learned_gb"] + row["trained_m"] * 12e-3
        cells = (name, epochs, f"{row['teraflop']:,.0f}", f"{hours:.2f}", f"{memory:.1f}", f"{row['trained_m']:.2f}")
        lines.append(f"| {' | '.join((*cells, f'{disk:.2f}', _measured(row)))} |")
    return "\n".join(lines) + "\n"


def _measured(row: dict[str, Any]) -> str:
    """Time and memory on a device, where they were measured; stages after one that was cut short are not in them."""
    if "measured" not in row:
        return "-"
    found = row["measured"]
    least = "" if found["whole"] else "at least "
    return f"{least}{found['hours']:.2f} h, {found['device_gb']:.1f} GB, {found['device']}"


if __name__ == "__main__":
    main()

"""What anomalib itself says of images: its Engine.predict in its own Python, in a process of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from ...bundle.atomic import file_sha256
from ...bundle.imported import ImportRecord
from ...core.errors import BadInputError, EnvironmentMissingError
from ...core.progress import Progress, silent

_SCRIPT = Path(__file__).with_name("predict_script.py")
_STAGE = "anomalib's Engine.predict"
_SHOWN_CHARACTERS = 1500


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class EnginePredictions:
    """What Engine.predict gave for N images, normalised as anomalib does.

    Attributes:
        scores: float32 (N,), in [0, 1] where the checkpoint normalises.
        labels: bool (N,), True where anomalib calls the image anomalous.
        maps: float32 (N, h, w); None where the model has no maps.
        version: anomalib's version, and PyTorch's.
    """

    scores: NDArray[np.float32]
    labels: NDArray[np.bool_]
    maps: NDArray[np.float32] | None
    version: str


def predict_with_anomalib(
    imported: ImportRecord,
    *,
    checkpoint: Path,
    python: Path,
    images: Sequence[Path],
    batch: int = 1,
    progress: Progress = silent,
) -> EnginePredictions:
    """Run Engine.predict on images, in their order.

    Args:
        imported: record of the import, which names the model and the file.
        checkpoint: the checkpoint that was imported.
        python: interpreter of the environment that anomalib is installed in.
        images: image files.
        batch: number of images per batch. Scores of a model of anomalib may depend on it, see CFlow.
        progress: called as images are done.

    Raises:
        BadInputError: it is another checkpoint than the imported one, or anomalib ended with an error.
        EnvironmentMissingError: there is no such interpreter, or anomalib cannot be imported there.
    """
    _check(imported, checkpoint)
    interpreter = _interpreter(python)
    with tempfile.TemporaryDirectory(prefix="lineproof-anomalib-") as folder:
        place = Path(folder)
        shown, out = place / "images", place / "out"
        shown.mkdir()
        out.mkdir()
        # anomalib lists a folder by name: links whose names count keep the order.
        for number, path in enumerate(images):
            _link(path, shown / f"{number:08d}{path.suffix.lower()}")
        words = [interpreter, "-W", "ignore", "-I", str(_SCRIPT), str(checkpoint.absolute()), imported.model]
        _run([*words, str(shown), str(out), str(batch)], folder=place, num=len(images), progress=progress)
        return _read(out, num=len(images))


def _interpreter(python: Path) -> str:
    """Path of the interpreter: a file where it says so, else a program of this name."""
    # Links are kept: that of an environment is what makes it one.
    found = os.path.abspath(python) if python.is_file() else shutil.which(str(python))
    if found is None or not os.access(found, os.X_OK):
        raise EnvironmentMissingError(
            f"anomalib_python (--anomalib-python) is {python}, which cannot be run; expected the Python of the "
            "environment that anomalib is installed in, such as ~/anomalib/bin/python."
        )
    return found


def _check(imported: ImportRecord, checkpoint: Path) -> None:
    if not checkpoint.is_file():
        raise BadInputError(f"checkpoint (--checkpoint) is {checkpoint}, which is no file. Give the one imported.")
    if (digest := file_sha256(checkpoint)) != imported.sha256:
        raise BadInputError(
            f"checkpoint (--checkpoint) {checkpoint} is another one than the bundle was imported from (sha256 "
            f"{digest[:16]}… and {imported.sha256[:16]}…): it would prove nothing. Give {imported.file} as it was."
        )


def _link(source: Path, place: Path) -> None:
    try:
        place.symlink_to(source.absolute())
    except OSError:
        # Some systems let only administrators make links.
        shutil.copyfile(source, place)


def _run(words: list[str], *, folder: Path, num: int, progress: Progress) -> None:
    progress(_STAGE, 0, num)
    with (folder / "stderr.txt").open("w+", encoding="utf-8", errors="replace") as log:
        with subprocess.Popen(words, cwd=folder, stdout=subprocess.PIPE, stderr=log, text=True) as process:  # noqa: S603
            try:
                for line in process.stdout or ():
                    kind, _, count = line.strip().partition(" ")
                    if kind == "done" and count.isdecimal():
                        progress(_STAGE, int(count), num)
            except BaseException:
                # Ctrl-C reaches this process alone where no terminal sends it to both.
                process.kill()
                raise
        if process.returncode == 0:
            return
        log.seek(0)
        said = log.read().strip()
    last = said.splitlines()[-1] if said else f"exit status {process.returncode}"
    if "ModuleNotFoundError" in last:
        raise EnvironmentMissingError(
            f"{words[0]} cannot import what it needs ({last}). Expected an environment with anomalib: pip install "
            '"anomalib[cpu]" in one of its own.'
        )
    raise BadInputError(f"anomalib's Engine.predict ended with an error: {last}. It said:\n{said[-_SHOWN_CHARACTERS:]}")


def _read(out: Path, *, num: int) -> EnginePredictions:
    maps = out / "maps.npy"
    missing = [name for name in ("scores.npy", "labels.npy", "version.txt") if not (out / name).is_file()]
    if missing:
        raise BadInputError(
            f"anomalib_python (--anomalib-python) ended well and gave no {' and no '.join(missing)}: it is no Python. "
            "Give that of the environment that anomalib is installed in."
        )
    loaded: list[Any] = [np.load(out / name, allow_pickle=False) for name in ("scores.npy", "labels.npy")]
    if any(len(item) != num for item in loaded):
        raise BadInputError(
            f"anomalib's Engine.predict gave {len(loaded[0])} scores for {num} images: it left some out, such as files "
            "whose format it does not read."
        )
    return EnginePredictions(
        scores=loaded[0],
        labels=loaded[1],
        maps=np.load(maps, allow_pickle=False) if maps.is_file() else None,
        version=(out / "version.txt").read_text(encoding="utf-8"),
    )

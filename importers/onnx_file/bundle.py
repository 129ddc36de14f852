"""Import of a model's ONNX file into a bundle."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import onnx_ir as ir

from ...bundle.atomic import file_sha256
from ...bundle.imported import ImportRecord
from ...bundle.manifest import IMPORTED_FILE, DetectorRecord, Manifest, TrainingRecord
from ...bundle.store import GOLDEN, ORIGINAL, check_place, now, write_bundle
from ...core.errors import BadInputError
from ...core.imported_model import ImportedModel
from ...core.prediction import Prediction
from ...core.progress import Progress, silent
from ...core.size import size_text
from ...core.spec import Frames, TensorSpec
from ...core.threshold import ORIGINAL_ENGINE, Threshold, calibrate, stated_threshold
from ...core.words import counted
from ...data.content import content_hashes
from ...data.dataset import Dataset, Sample
from ...data.inputs.table import AnyInput, input_of
from ...detectors.base import usual_tolerance
from ...export.bundle import describe, save_model
from ...export.figures import nodes_per_dtype
from ...export.golden import apart_from, golden_frames
from ...host.environment import package_versions
from ...runtime.original import OriginalModel, map_of, map_px
from ...runtime.original_tiles import cut
from . import figures
from .assemble import build_graph
from .batch import find_limit
from .graph import external_files
from .options import ImportOptions, ImportResult
from .specification import read_specification

#: Number of good images without which there is no spread of scores.
_FEWEST = 2
_TEST_IMAGES = (
    "The data set has no validation split: the threshold is set on its good test images, so that the rate of rejected "
    "good parts that `lineproof evaluate` reports on them is too good. Calibrate on others for a line."
)
_PRECISIONS = ("fp32", "fp16", "int8")

#: Frames, uint8 (N, H, W, C), to scores and maps: what the bundle's graph is compared with.
Reference = Callable[[Frames], Prediction]


@final
@dataclass(frozen=True, kw_only=True)
class Origin:
    """A model that is imported, and who says what it computes.

    Attributes:
        model: what it takes and gives.
        file: its ONNX file, opened.
        reference: gives the scores behind the threshold and the golden answers.
        detector: name of its kind in the manifest.
        title: name of the model, for people.
        library: what made it, for people: ``ONNX`` for a file of any origin.
        library_version: version of that; "" where it is not known.
        engine: name of the reference in the threshold.
        words: the reference in words.
    """

    model: ImportedModel
    file: OriginalModel
    reference: Reference
    detector: str
    title: str
    library: str
    library_version: str = ""
    engine: str
    words: str


def import_onnx(
    source: Path,
    *,
    preprocessing: Path | ImportedModel,
    dataset: Dataset,
    out: Path,
    options: ImportOptions | None = None,
    progress: Progress = silent,
) -> ImportResult:
    """Make a bundle of any detector's ONNX file.

    The graph gets our pre-processing before the model's own nodes, and after them what brings its outputs to a score
    and a map. Golden answers and the scores behind the threshold are those of the file itself, in ONNX Runtime, on
    frames that Pillow and NumPy prepared.

    Args:
        source: the ONNX file; weights beside it are found there.
        preprocessing: what it takes and gives, or a JSON file that says so.
        dataset: data set with good images that it was not trained on: a validation split, or good test images.
        out: folder of the bundle; a bundle that is there is replaced.
        options: options of the import; None takes the defaults.
        progress: called at every step.

    Raises:
        BadInputError: a file cannot be read, they do not fit each other, or the data set lacks good images.
        UsageError: an option is out of its range, or the model does not take such a batch.
        BundleError: something else than a bundle is at ``out``.
        EnvironmentMissingError: ONNX Runtime is not installed.
        ExportError: the parts do not make a graph.
    """
    model = preprocessing if isinstance(preprocessing, ImportedModel) else read_specification(preprocessing)
    file = OriginalModel(source, model)
    origin = Origin(
        model=model,
        file=file,
        reference=file,
        detector=IMPORTED_FILE,
        title=source.stem,
        library="ONNX",
        engine=ORIGINAL_ENGINE,
        words=f"{source.name} in ONNX Runtime {file.version}",
    )
    return import_model(origin, dataset=dataset, out=out, options=options, progress=progress)


def import_model(
    origin: Origin, *, dataset: Dataset, out: Path, options: ImportOptions | None = None, progress: Progress = silent
) -> ImportResult:
    """Make a bundle of a model whose file is open; see ``import_onnx``."""
    options = options or ImportOptions()
    options.check()
    check_place(out)
    spec = origin.model.preprocessing
    reader = input_of(spec)
    conversions = reader.conversions()
    samples, words = good_samples(dataset)
    paths = [sample.path for sample in samples]
    tried = np.stack([reader.read(path) for path in paths[:3]])
    limit = find_limit(origin.file, origin.model, tried, asked=options.max_batch)
    progress("graph", 0, 0)
    graph = build_graph(origin.file, origin.model, tried[:1], max_batch=limit.max_batch)
    precision = "fp16" if nodes_per_dtype(graph).get("float16") else "fp32"
    scores = _scores(origin, reader, paths, progress)
    spread = float(np.std(scores, ddof=1))
    threshold = _threshold(scores, options, origin, words=words)
    distance = spread * max(usual_tolerance(name).score_spread for name in ("fp32", "fp16"))
    deciding = apart_from(paths, scores, threshold=threshold.value, distance=distance)
    frames, names = golden_frames(deciding, spec, conversions=conversions)
    prediction = origin.reference(frames)
    manifest = Manifest(
        name=f"{dataset.category}-{origin.title}",
        created=now(),
        detector=_record(origin),
        precision=precision,
        inputs=(spec.frames,),
        outputs=output_specs(prediction),
        preprocessing=spec,
        max_batch=limit.max_batch,
        threshold=threshold,
        engine_thresholds={},
        tolerances={name: usual_tolerance(name) for name in _PRECISIONS},
        score_spread=spread,
        map_range=float(np.ptp(prediction.anomaly_map)),
        training=_training(dataset, paths),
        imported=_imported(origin),
        figures=figures.count(graph),
        tools=package_versions(),
        files={},
    )
    describe(graph, manifest)
    golden = {"frames": frames, "names": names, "score": prediction.score, "anomaly_map": prediction.anomaly_map}
    fill = _filler(graph, golden, origin.file.path if options.has_reference else None)
    bundle = write_bundle(out, manifest, fill)
    notes = [*_notes(origin, tried[:1]), *([limit.note] if limit.note else [])]
    if threshold.num_good and samples[0].split == "test":
        notes.append(_TEST_IMAGES)
    return ImportResult(bundle=bundle, notes=tuple(notes), conversions=tuple(conversions.summary_lines()))


def good_samples(dataset: Dataset) -> tuple[tuple[Sample, ...], str]:
    """Good images that an imported model was not trained on, as far as a data set tells, and where they are from.

    Raises:
        BadInputError: there are fewer than two.
    """
    if len(dataset.validation) >= _FEWEST:
        return dataset.validation, f"good validation images of {dataset.name} {dataset.category}"
    samples = tuple(sample for sample in dataset.test if sample.label == 0)
    if len(samples) >= _FEWEST:
        return samples, f"good test images of {dataset.name} {dataset.category}"
    raise BadInputError(
        f"{dataset.root} holds {counted(len(dataset.validation), 'validation image')} and "
        f"{counted(len(samples), 'good test image')}; expected two or more of either: threshold and golden frames are "
        "made of good images that the model was not trained on. Add some."
    )


def output_specs(prediction: Prediction) -> tuple[TensorSpec, TensorSpec]:
    """Return the specifications of score and anomaly_map."""
    height, width = prediction.anomaly_map.shape[1:]
    return TensorSpec("score", "float32", ("N",)), TensorSpec("anomaly_map", "float32", ("N", height, width))


def _scores(origin: Origin, reader: AnyInput, paths: Sequence[Path], progress: Progress) -> list[float]:
    scores: list[float] = []
    for number, path in enumerate(paths, 1):
        scores += origin.reference(reader.read(path)[None]).score.tolist()
        progress("good images", number, len(paths))
    if not np.isfinite(scores).all():
        first = paths[int(np.flatnonzero(~np.isfinite(scores))[0])]
        raise BadInputError(
            f"{origin.words} gives a score that is not finite on {first}. Expected finite scores of good images: look "
            "whether value_range, mean and std are those of its training."
        )
    return scores


def _threshold(scores: Sequence[float], options: ImportOptions, origin: Origin, *, words: str) -> Threshold:
    if options.threshold is None:
        source = f"{len(scores)} {words}"
        return calibrate(scores, max_false_reject=options.max_false_reject, engine=origin.engine, source=source)
    return stated_threshold(options.threshold, engine=origin.engine, source="given at the import")


def _record(origin: Origin) -> DetectorRecord:
    model = origin.model
    exact = dataclasses.replace(model, mean=tuple(map(float, model.mean)), std=tuple(map(float, model.std)))
    # As it will be read from the file again, with lists for tuples.
    return DetectorRecord(origin.detector, json.loads(json.dumps(dataclasses.asdict(exact))))


def _imported(origin: Origin) -> ImportRecord:
    path, spec = origin.file.path, origin.model.preprocessing
    return ImportRecord(
        library=origin.library,
        library_version=origin.library_version,
        model=origin.title,
        file=path.name,
        sha256=file_sha256(path),
        mean=spec.mean,
        std=spec.std,
    )


def _training(dataset: Dataset, paths: Sequence[Path]) -> TrainingRecord:
    return TrainingRecord(
        dataset=dataset.name,
        category=dataset.category,
        fingerprint=dataset.fingerprint() if dataset.train else "",
        num_images=0,
        num_holdout=len(paths),
        seed=0,
        held_out=content_hashes(paths),
    )


def _filler(graph: ir.Model, golden: dict[str, Any], original: Path | None) -> Callable[[Path], None]:
    """Return what writes the files of a bundle into a folder."""

    def fill(folder: Path) -> None:
        save_model(graph, folder)
        np.savez_compressed(folder / GOLDEN, **golden)
        if original is not None:
            _copy_original(original, folder / ORIGINAL)

    return fill


def _copy_original(path: Path, folder: Path) -> None:
    folder.mkdir()
    for name in (path.name, *external_files(ir.load(path))):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path.parent / name, folder / name)


def _notes(origin: Origin, frame: Frames) -> tuple[str, ...]:
    model = origin.model
    notes = [f"The reference is {origin.words}, on frames prepared by Pillow and NumPy."]
    if model.anomaly_map is None:
        where = "of its tile at every pixel" if model.tiles else "at every pixel and localises nothing"
        notes.append(f"The model gives no map: the bundle's map is the score {where}.")
    else:
        outputs = origin.file.run(cut(frame, model.tiles)[:1])
        seen = map_of(outputs[model.anomaly_map], name="", num=1).shape[1:]
        what = f"The model's map is {size_text(seen)} for an input of {size_text(model.input_px)}"
        notes.append(f"{what}: the graph enlarges it, bilinear." if seen != map_px(seen, model) else f"{what}.")
    notes.append(f"The score is {model.score_words()}.")
    return tuple(notes)

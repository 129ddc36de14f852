"""Images of slightly different sizes, carried through the whole chain: one rule, one score per image."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lineproof.core.errors import BadInputError, UsageError
from lineproof.data.dataset import open_dataset
from lineproof.data.decoding.decode import decode_image, decode_mask
from lineproof.data.inputs.table import input_of
from lineproof.detectors.training.from_folder import train_detector
from lineproof.detectors.training.options import TrainOptions
from lineproof.eval.accuracy.outputs import collect_outputs
from lineproof.eval.parity.verify import verify
from lineproof.export.options import ExportOptions
from lineproof.line.filing import Filing
from lineproof.line.inspect_files import decision_of, inspect_files
from lineproof.line.inspector import open_line
from lineproof.report.painter import painter
from lineproof.runtime.engine import availability
from lineproof.sweep.chain import ExportRequest, export_and_prove

pytest.importorskip("timm")
pytest.importorskip("onnxscript")

SETTINGS = {"backbone": "test_resnet", "weights": "random", "resize_px": "64", "crop_px": "64"}
#: Heights run from 60 to 65 as a real set's from 1,200 to 1,300; 62 is the most common.
HEIGHTS = [62, 60, 62, 63, 62, 65, 61, 62, 64, 62, 62, 60]
FRAMES = {"pad": (65, 80), "crop": (60, 80), "stretch": (62, 80)}


def part(height, seed):
    """A dark part on bright ground, its rim at the image's border."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(150, 200, (height, 80, 3)).astype(np.uint8)
    pixels[height // 4 : 3 * height // 4, 20:60] //= 3
    return pixels


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    """Plain folder: 12 good images of 6 heights, 4 bad ones with masks of their own sizes."""
    root = tmp_path_factory.mktemp("uneven") / "washer"
    for kind in ("good", "bad", "masks"):
        (root / kind).mkdir(parents=True)
    for index, height in enumerate(HEIGHTS):
        Image.fromarray(part(height, index)).save(root / "good" / f"{index:02d}.png")
    for index, height in enumerate((60, 62, 64, 65)):
        pixels, mask = part(height, 100 + index), np.zeros((height, 80), np.uint8)
        pixels[20:30, 30:44] = (250, 20, 20)
        mask[20:30, 30:44] = 255
        Image.fromarray(pixels).save(root / "bad" / f"{index}.png")
        Image.fromarray(mask).save(root / "masks" / f"{index}.png")
    return root


def learn(data, run, **options):
    return train_detector("patchcore", data, category=None, settings=SETTINGS, out=run, options=TrainOptions(**options))


@pytest.fixture(scope="module")
def carried(uneven, tmp_path_factory):
    """A function from a fit to the run and the bundle; each is made once."""
    made = {}

    def get(fit):
        if fit not in made:
            folder = tmp_path_factory.mktemp(fit)
            run = learn(uneven, folder / "run", fit=fit)
            request = ExportRequest(source=str(run.run), out=folder / "a.bundle", is_verified=False)
            made[fit] = run, export_and_prove(request).bundle
        return made[fit]

    return get


def test_without_a_fit_training_says_how_many_sizes_there_are_and_does_nothing(uneven, tmp_path):
    with pytest.raises(BadInputError, match=r"The 10 training images have 6 sizes: 62x80 \(4\), .*--fit pad"):
        learn(uneven, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("fit", FRAMES)
def test_one_image_has_one_score_in_training_golden_frames_verify_and_run(carried, uneven, fit, tmp_path):
    if not availability("ort-cpu").is_available:
        pytest.skip(availability("ort-cpu").fix)
    run, bundle = carried(fit)
    spec = bundle.manifest.preprocessing
    assert (spec.frame_height_px, spec.frame_width_px, spec.fit) == (*FRAMES[fit], fit)
    assert run.record.frame_fit == fit
    assert run.conversions[0].startswith(f"Frames are {FRAMES[fit][0]}x80 (height x width), fit {fit}: ")

    holdout = [Path(run.record.root) / name for name in run.record.holdout]
    golden = bundle.golden()
    for frame, path in zip(golden.frames, holdout, strict=False):
        np.testing.assert_array_equal(frame, input_of(spec).fit(decode_image(path)))
    num_good = len(holdout)
    scores = np.array(run.record.holdout_scores)
    np.testing.assert_allclose(golden.reference.score[:num_good], scores, rtol=1e-5)

    dataset = open_dataset(uneven)
    report = verify(bundle, engine="ort-cpu", dataset=dataset)
    assert report.passed, report.failures
    assert report.skipped_frames == ()
    assert report.num_frames == len(golden.frames) + len(dataset.test)
    assert report.part_note == ""

    with open_line(bundle.path, engine="ort-cpu", allow_failed=True) as line:
        verdicts = []
        with Filing(tmp_path / "seen", decision_of(line)) as filing:
            inspect_files(
                line, list(map(str, holdout)), show=verdicts.append, filing=filing, paint=painter(line.bundle)
            )
    np.testing.assert_allclose([item["score"] for item in verdicts], scores, rtol=1e-4)
    with Image.open(tmp_path / "seen" / verdicts[0]["overlay"]) as drawn:
        assert drawn.size == (80, FRAMES[fit][0])

    outputs = collect_outputs(bundle, dataset, engine="ort-cpu")
    assert len(outputs) == len(dataset.test)
    assert outputs.has_mask.all()
    np.testing.assert_allclose(
        [outputs.score[outputs.files.index("good/04.png")]], [_score(bundle, uneven / "good/04.png")], rtol=1e-6
    )


def _score(bundle, path):
    with open_line(bundle.path, engine="ort-cpu", allow_failed=True) as line:
        return line.inspect(input_of(bundle.manifest.preprocessing).fit(decode_image(path))).score


@pytest.mark.parametrize("fit", FRAMES)
def test_masks_follow_their_images(carried, uneven, fit):
    """The frame is red where the mask is set, in images of every size."""
    spec = carried(fit)[1].manifest.preprocessing
    for path in sorted((uneven / "bad").iterdir()):
        frame = input_of(spec).fit(decode_image(path)).astype(int)
        mask = input_of(spec).fit_mask(decode_mask(uneven / "masks" / path.name))
        red = frame[:, :, 0] - frame[:, :, 1] > 115
        assert mask.any()
        np.testing.assert_array_equal(mask, red) if fit != "stretch" else None
        assert (mask != red).mean() < 0.01


def test_a_image_that_the_fit_does_not_take_is_skipped_by_name(carried, uneven, tmp_path):
    _, bundle = carried("pad")
    Image.fromarray(part(66, 0)).save(tmp_path / "tall.png")
    with open_line(bundle.path, engine="ort-cpu", allow_failed=True) as line:
        verdicts = []
        inspect_files(line, [str(tmp_path / "tall.png"), str(uneven / "good" / "00.png")], show=verdicts.append)
    assert verdicts[0]["verdict"] == "ERR"
    assert "the image is 66x80 (height x width); fit pad takes images up to 65x80" in verdicts[0]["error"]
    assert verdicts[1]["verdict"] in ("OK", "NG")


def test_a_run_with_a_fit_keeps_it(carried, tmp_path):
    run, _ = carried("pad")
    with pytest.raises(
        UsageError, match=r"frames of 65x80 \(height x width\) with fit pad, and fit \(--fit\) is crop: images"
    ):
        export_and_prove(
            ExportRequest(source=str(run.run), out=tmp_path / "a.bundle"), options=ExportOptions(fit="crop")
        )
    with pytest.raises(UsageError, match=r"fit \(--fit\) is 'squeeze'; expected stretch, pad, crop"):
        export_and_prove(
            ExportRequest(source=str(run.run), out=tmp_path / "a.bundle"), options=ExportOptions(fit="squeeze")
        )
    assert list(tmp_path.iterdir()) == []


def test_a_frame_that_was_named_is_the_frame_and_part_of_what_the_run_was_begun_with(uneven, tmp_path):
    run = learn(uneven, tmp_path / "run", fit="pad", frame=(80, 96))
    assert run.record.frame == (80, 96)
    assert json.loads((tmp_path / "run" / "train.json").read_text())["frame"] == [80, 96]
    with pytest.raises(BadInputError, match=r"begun with another fit, another frame\. Give another --out"):
        learn(uneven, tmp_path / "run", fit="crop", frame=(60, 80))


@pytest.mark.slow
def test_another_frame_at_export_needs_a_fit_and_the_graph_knows_nothing_of_it(trained, tmp_path):
    def export(name, **options):
        request = ExportRequest(source=str(trained.run), out=tmp_path / name, is_verified=False)
        return export_and_prove(request, options=ExportOptions(**options))

    with pytest.raises(
        UsageError, match=r"trained on frames of 96x96 .*; frame \(--frame\) is 128x96, and images are never"
    ):
        export("no.bundle", frame=(128, 96, 3))
    assert list(tmp_path.iterdir()) == []
    other = export("other.bundle", frame=(128, 96, 3), fit="pad")
    assert other.conversions == (
        "Frames are 128x96 (height x width), training saw 96x96: images are brought to them with fit pad.",
    )
    np.testing.assert_array_equal(other.bundle.golden().frames[0][0], other.bundle.golden().frames[0][15])
    plain, later = export("plain.bundle"), export("later.bundle", fit="crop")
    assert later.bundle.model_path.read_bytes() == plain.bundle.model_path.read_bytes()
    np.testing.assert_array_equal(later.bundle.golden().frames, plain.bundle.golden().frames)
    assert later.bundle.manifest.threshold == plain.bundle.manifest.threshold
    assert later.bundle.manifest.preprocessing == dataclasses.replace(plain.bundle.manifest.preprocessing, fit="crop")


def test_a_mono_bundle_says_that_training_read_colour(trained, tmp_path):
    request = ExportRequest(source=str(trained.run), out=tmp_path / "mono.bundle", is_verified=False)
    proof = export_and_prove(request, options=ExportOptions(frame=(96, 96, 1)))
    assert proof.bundle.manifest.preprocessing.channel_order == "mono"
    assert proof.conversions[0].startswith("Frames are mono, repeated to three channels in the graph")
    assert json.loads(json.dumps(proof.to_dict(), allow_nan=False))["conversions"] == list(proof.conversions)


def test_a_run_of_an_earlier_release_is_scored_again_as_frames(trained, tmp_path):
    """It took each held-out image at its own size: those scores are no frame's."""
    import shutil

    shutil.copytree(trained.run, tmp_path / "run")
    record = json.loads((tmp_path / "run" / "checkpoint.json").read_text())
    for key in ("frame_fit", "bit_depth", "frame_note", "conversions"):
        del record[key]
    record["holdout_scores"] = [1000.0 for _ in record["holdout_scores"]]
    (tmp_path / "run" / "checkpoint.json").write_text(json.dumps(record))
    request = ExportRequest(source=str(tmp_path / "run"), out=tmp_path / "a.bundle", is_verified=False)
    bundle = export_and_prove(request).bundle
    assert bundle.manifest.threshold.value < 1000.0
    assert bundle.manifest.preprocessing.fit == "none"


def test_deep_images_keep_their_depth_from_training_to_the_line(tmp_path):
    """12 bits in 16: the run says --bit-depth, the bundle reads the same grey levels."""
    root = tmp_path / "deep"
    (root / "good").mkdir(parents=True)
    for index in range(10):
        Image.fromarray((part(64, index)[:, :, 0].astype(np.uint16) << 4) + 3).save(root / "good" / f"{index}.png")
    shallow = learn(root, tmp_path / "shallow")
    assert any("give --bit-depth 12" in item for item in shallow.conversions)
    run = learn(root, tmp_path / "run", bit_depth=12)
    assert not any("give --bit-depth" in item for item in run.conversions)
    assert any("grey, repeated to R, G and B" in item for item in run.conversions)
    bundle = export_and_prove(ExportRequest(source=str(run.run), out=tmp_path / "a.bundle", is_verified=False)).bundle
    assert bundle.manifest.preprocessing.bit_depth == 12
    first = bundle.golden().frames[0]
    index = int(type(root)(run.record.holdout[0]).stem)
    np.testing.assert_array_equal(first, np.repeat(part(64, index)[:, :, :1], 3, axis=2))
    with open_line(bundle.path, engine="ort-cpu") as line:
        verdicts = []
        inspection = inspect_files(
            line, [f"{run.record.root}/{name}" for name in run.record.holdout], show=verdicts.append
        )
    np.testing.assert_allclose([item["score"] for item in verdicts], run.record.holdout_scores, rtol=1e-4, atol=1e-6)
    assert any("16 bits: reduced to 8 bits, value >> 4" in item for item in inspection.conversions)
    assert inspection.to_dict()["conversions"] == list(inspection.conversions)

"""The check is checked: an engine that is wrong in any way must not pass, and the report must name the frame."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from lineproof.bundle.store import open_bundle
from lineproof.core.errors import BadInputError, BundleError, EnvironmentMissingError, ParityError, UsageError
from lineproof.core.threshold import Threshold
from lineproof.data.dataset import open_dataset
from lineproof.eval.parity import check
from lineproof.eval.verify import record_parity, verify
from lineproof.runtime.engine import ENGINES, Availability, availability, cpu_engines


def move(index, by):
    """Add ``by`` to the score of one frame of the batch."""

    def change(score, anomaly_map):
        score[index] += by
        return score, anomaly_map

    return change


def moved_threshold(bundle, value):
    return bundle.with_manifest(
        dataclasses.replace(bundle.manifest, threshold=Threshold(value, 4, 0, 0.0, 0.0, 0.6, "torch", "test"))
    )


def test_right_engine_passes_on_the_golden_frames(tiny_bundle, add_engine):
    engine = add_engine("numpy")
    report = verify(tiny_bundle, engine="numpy", batch=3)
    assert report.passed
    check(report)
    assert engine.batches == [3, 3, 2]
    assert engine.num_closed == 1
    assert (report.num_frames, report.num_golden, report.reference) == (8, 8, "golden")
    assert report.verdict_flips == report.ties == report.failures == ()
    assert report.score_max_abs_error == report.map_max_abs_error == 0.0
    assert report.rank_correlation == 1.0
    golden = tiny_bundle.golden()
    scores = golden.reference.score
    np.testing.assert_allclose(report.score_range, np.ptp(scores), rtol=1e-6)
    np.testing.assert_allclose(report.score_tolerance, 1e-4 * np.ptp(scores), rtol=1e-6)
    assert report.map_tolerance == 1e-3
    margins = np.abs(scores.astype(np.float64) - tiny_bundle.manifest.threshold.value)
    assert report.smallest_margin.file == golden.names[int(margins.argmin())]
    np.testing.assert_allclose(report.smallest_margin.margin, margins.min())
    assert report.image_auroc.engine is None


def test_to_dict_is_json_with_the_promised_keys(tiny_bundle, add_engine):
    add_engine("numpy", move(0, np.float32("nan")))
    plain = json.loads(json.dumps(verify(tiny_bundle, engine="numpy").to_dict(), allow_nan=False))
    assert {
        "passed", "engine", "precision", "compute_dtype", "num_frames", "verdict_flips", "ties",
        "score_max_abs_error", "map_max_abs_error", "score_range", "map_range", "score_tolerance", "map_tolerance",
        "rank_correlation", "smallest_margin", "threshold", "image_auroc", "pixel_auroc", "aupro", "skipped_frames",
        "failures", "reference", "environment",
    } <= set(plain)  # fmt: skip
    assert plain["passed"] is False
    assert plain["score_max_abs_error"] is None
    assert set(plain["smallest_margin"]) == {"file", "margin"}
    assert plain["image_auroc"] == {"reference": None, "engine": None}
    assert plain["environment"]["packages"]["numpy"] == np.__version__


def test_null_engine_fails(tiny_bundle):
    report = verify(tiny_bundle, engine="null", batch=8)
    assert not report.passed
    assert [flip.file for flip in report.verdict_flips] == [f"bad/{index:03d}.png" for index in range(4, 8)]
    assert report.rank_correlation is None
    with pytest.raises(ParityError, match=r"null does not give .* bundle tiny: 4 of 8 verdicts differ") as caught:
        check(report)
    assert caught.value.exit_status == 4


def test_null_engine_fails_by_its_numbers_where_every_frame_is_good(tiny_bundle):
    report = verify(moved_threshold(tiny_bundle, 10.0), engine="null")
    assert report.verdict_flips == ()
    assert not report.passed
    assert report.failures[0].startswith("The score is off by")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_score_that_is_no_number_fails_and_is_a_lost_verdict(tiny_bundle, add_engine, value):
    def change(score, anomaly_map):
        score[5] = value
        return score, anomaly_map

    add_engine("numpy", change)
    report = verify(tiny_bundle, engine="numpy", batch=8)
    assert "The engine gives NaN or infinity on 1 of 8 frames: bad/005.png." in report.failures
    (flip,) = report.verdict_flips
    assert (flip.file, flip.reference_verdict, flip.engine_verdict, flip.engine_score) == (
        "bad/005.png",
        "NG",
        "ERR",
        None,
    )


def test_nan_score_is_never_hidden_as_a_tie(tiny_bundle, add_engine):
    scores = tiny_bundle.golden().reference.score
    add_engine("numpy", move(2, np.float32("nan")))
    report = verify(moved_threshold(tiny_bundle, float(scores[2])), engine="numpy", batch=8)
    assert [flip.engine_verdict for flip in report.verdict_flips] == ["ERR"]
    assert report.ties == ()


def test_one_nan_pixel_fails(tiny_bundle, add_engine):
    def change(score, anomaly_map):
        anomaly_map[6, 11, 15] = np.nan
        return score, anomaly_map

    add_engine("numpy", change)
    report = verify(tiny_bundle, engine="numpy", batch=8)
    assert report.failures == ("The engine gives NaN or infinity on 1 of 8 frames: bad/006.png.",)
    assert report.map_max_abs_error is None


def test_one_flip_is_named_with_both_scores(tiny_bundle, add_engine):
    scores = tiny_bundle.golden().reference.score
    add_engine("numpy", move(4, -0.4))
    report = verify(tiny_bundle, engine="numpy", batch=8)
    (flip,) = report.verdict_flips
    assert (flip.file, flip.origin) == ("bad/004.png", "golden")
    assert (flip.reference_verdict, flip.engine_verdict) == ("NG", "OK")
    np.testing.assert_allclose([flip.reference_score, flip.engine_score], [scores[4], scores[4] - 0.4], rtol=1e-5)
    with pytest.raises(ParityError, match=r"1 of 8 verdict differs .*bad/004\.png: NG \(0\.\d+\) became OK \(0\.\d+\)"):
        check(report)
    assert any("7 of 8 as the reference's" in line for line in report.sentences())


def test_tie_is_not_a_flip(tiny_bundle, add_engine):
    scores = tiny_bundle.golden().reference.score
    tolerance = 1e-4 * tiny_bundle.manifest.score_range
    bundle = moved_threshold(tiny_bundle, float(scores[3]) + 0.4 * tolerance)
    add_engine("numpy", move(3, 0.8 * tolerance))
    report = verify(bundle, engine="numpy", batch=8)
    assert report.passed
    assert report.verdict_flips == ()
    (tie,) = report.ties
    assert (tie.file, tie.reference_verdict, tie.engine_verdict) == ("good/003.png", "OK", "NG")
    assert any("1 of them with another verdict: good/003.png" in line for line in report.sentences())


def test_verdict_is_strict(tiny_bundle, add_engine):
    """A score equal to the threshold is OK on both sides."""
    scores = tiny_bundle.golden().reference.score
    add_engine("numpy")
    report = verify(moved_threshold(tiny_bundle, float(scores[4])), engine="numpy")
    assert [(tie.file, tie.reference_verdict, tie.engine_verdict) for tie in report.ties] == [
        ("bad/004.png", "OK", "OK")
    ]


def test_score_beyond_tolerance_fails_without_a_flip(tiny_bundle, add_engine):
    tolerance = 1e-4 * tiny_bundle.manifest.score_range
    add_engine("close", move(7, 0.9 * tolerance))
    assert verify(tiny_bundle, engine="close", batch=8).passed
    add_engine("far", move(7, 2 * tolerance))
    report = verify(tiny_bundle, engine="far", batch=8)
    assert report.verdict_flips == ()
    (failure,) = report.failures
    assert failure.startswith("The score is off by")
    assert "on bad/007.png, and beyond the allowed" in failure
    assert failure.endswith("(fp32) on 1 of 8 frames.")


def test_map_beyond_tolerance_fails(tiny_bundle, add_engine):
    def change(score, anomaly_map):
        anomaly_map[1, 0, 0] += 2e-3
        return score, anomaly_map

    add_engine("numpy", change)
    report = verify(tiny_bundle, engine="numpy", batch=8)
    assert len(report.failures) == 1
    assert report.failures[0].startswith("The map is off by 0.002 on good/001.png")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s, m: (s, m[:, ::2]), r"anomaly_map is float32 \(8, 6, 16\); expected float32 \(8, 12, 16\)"),
        (lambda s, m: (s[:, None], m), r"score is float32 \(8, 1\); expected float32 \(8,\)"),
        (lambda s, m: (s.astype(np.float16), m), r"score is float16 \(8,\); expected float32"),
    ],
)
def test_another_shape_or_dtype_fails(tiny_bundle, add_engine, change, message):
    add_engine("numpy", change)
    report = verify(tiny_bundle, engine="numpy", batch=8)
    with pytest.raises(ParityError, match=message):
        check(report)
    assert report.num_frames == 8
    json.dumps(report.to_dict(), allow_nan=False)


def test_report_is_recorded_or_not(tiny_bundle, add_engine):
    add_engine("numpy")
    verify(tiny_bundle, engine="numpy", record=False)
    assert not (tiny_bundle.path / "proof.json").exists()
    assert open_bundle(tiny_bundle.path).manifest.parity == {}
    passed = verify(tiny_bundle, engine="numpy")
    assert open_bundle(tiny_bundle.path).manifest.parity == {"numpy": "passed"}
    failed = dataclasses.replace(passed, engine="other", failures=("The score is off.",))
    assert record_parity(open_bundle(tiny_bundle.path), failed).manifest.parity_of("other") == "failed"
    entries = json.loads((tiny_bundle.path / "proof.json").read_text())
    assert [(entry["engine"], entry["passed"]) for entry in entries] == [("numpy", True), ("other", False)]
    assert open_bundle(tiny_bundle.path).manifest.parity == {"numpy": "passed", "other": "failed"}


def test_the_null_engine_says_nothing_about_a_bundle(tiny_bundle):
    assert not verify(tiny_bundle, engine="null").passed
    assert open_bundle(tiny_bundle.path).manifest.parity == {}
    assert not (tiny_bundle.path / "proof.json").exists()


def test_threshold_of_the_engine_counts_for_both_sides(tiny_bundle, add_engine):
    scores = tiny_bundle.golden().reference.score
    own = Threshold(float(np.sort(scores)[6:].mean()), 4, 0, 0.0, 0.0, 0.6, "numpy", "test")
    bundle = tiny_bundle.with_manifest(dataclasses.replace(tiny_bundle.manifest, engine_thresholds={"numpy": own}))
    add_engine("numpy")
    report = verify(bundle, engine="numpy")
    assert report.passed
    assert (report.threshold, report.threshold_engine) == (own.value, "numpy")


def test_on_a_data_set_the_reference_engine_runs_on_the_same_frames(tiny_bundle, tiny_dataset, add_engine):
    reference, engine = add_engine("truth"), add_engine("numpy")
    report = verify(tiny_bundle, engine="numpy", dataset=tiny_dataset, reference="truth", batch=4)
    assert report.passed
    assert engine.batches == [4, 4, 4, 2]
    assert reference.batches == [4, 2]
    assert (report.num_frames, report.num_golden, report.reference) == (14, 8, "truth")
    assert report.image_auroc.reference == report.image_auroc.engine == 1.0
    assert report.pixel_auroc.reference == report.pixel_auroc.engine == 1.0
    assert report.aupro.reference == report.aupro.engine == 1.0
    assert engine.num_closed == reference.num_closed == 1
    assert any("truth on 6 pictures" in line for line in report.sentences())


def test_accuracy_lost_on_the_data_set_shows(tiny_bundle, tiny_dataset, add_engine):
    add_engine("truth")
    add_engine("numpy", lambda score, anomaly_map: (-score, -anomaly_map))
    report = verify(tiny_bundle, engine="numpy", dataset=tiny_dataset, reference="truth", batch=4)
    assert (report.image_auroc.reference, report.image_auroc.engine) == (1.0, 0.0)
    assert (report.pixel_auroc.reference, report.pixel_auroc.engine) == (1.0, 0.0)
    assert report.rank_correlation == -1.0
    flipped = [flip.file for flip in report.verdict_flips if flip.origin == "data"]
    assert {f"bad/{sample.path.name}" for sample in tiny_dataset.test if sample.label} <= set(flipped)


def test_tolerance_follows_the_range_of_the_frames_compared(tiny_bundle, tiny_dataset, add_engine):
    Image.fromarray(np.full((12, 16, 3), 255, np.uint8)).save(tiny_dataset.root / "bad" / "bright.png")
    add_engine("truth")
    add_engine("numpy")
    report = verify(tiny_bundle, engine="numpy", dataset=open_dataset(tiny_dataset.root), reference="truth")
    assert report.score_range > tiny_bundle.manifest.score_range
    np.testing.assert_allclose(report.score_tolerance, 1e-4 * report.score_range)


def test_pictures_that_do_not_fit_are_named_and_never_resized(tiny_bundle, tiny_dataset, add_engine):
    bad = tiny_dataset.root / "bad"
    Image.new("RGB", (32, 24)).save(bad / "large.png")
    (bad / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    add_engine("truth")
    add_engine("numpy")
    report = verify(tiny_bundle, engine="numpy", dataset=open_dataset(tiny_dataset.root), reference="truth", batch=2)
    reasons = {item.sample.path.name: item.reason for item in report.skipped_frames}
    assert set(reasons) == {"large.png", "broken.png"}
    assert "32x24 pixels; this bundle takes 16x12" in reasons["large.png"]
    assert report.num_frames == 14
    assert [item["file"] for item in report.to_dict()["skipped_frames"]] == [
        str(bad / "broken.png"),
        str(bad / "large.png"),
    ]
    assert any("large.png: the picture is 32x24" in line for line in report.sentences())


def test_no_picture_left_is_an_error(tiny_bundle, tmp_path, add_engine):
    (tmp_path / "big" / "good").mkdir(parents=True)
    for index in range(5):
        Image.new("RGB", (32, 24)).save(tmp_path / "big" / "good" / f"{index}.png")
    add_engine("truth")
    add_engine("numpy")
    with pytest.raises(BadInputError, match=r"None of the 1 pictures of the test split can be used\. .*32x24"):
        verify(tiny_bundle, engine="numpy", dataset=open_dataset(tmp_path / "big"), reference="truth")
    assert not (tiny_bundle.path / "proof.json").exists()


def test_an_engine_is_not_compared_with_itself(tiny_bundle, tiny_dataset, add_engine):
    add_engine("numpy")
    with pytest.raises(UsageError, match="compared with itself proves nothing"):
        verify(tiny_bundle, engine="numpy", dataset=tiny_dataset, reference="numpy")


def test_missing_reference_says_what_else_can_be_done(tiny_bundle, tiny_dataset, add_engine, monkeypatch):
    add_engine("numpy")
    absent = add_engine("truth")
    monkeypatch.setattr(absent, "availability", lambda: Availability("truth", False, "a truth", "none", "buy one"))
    monkeypatch.setattr("lineproof.runtime.engine.ENGINES", {name: ENGINES[name] for name in ("truth", "numpy")})
    with pytest.raises(EnvironmentMissingError, match=r"Looked for: a truth\..*the golden frames need no reference"):
        verify(tiny_bundle, engine="numpy", dataset=tiny_dataset, reference="truth")


def test_batch_is_checked_before_anything_is_opened(tiny_bundle):
    with pytest.raises(UsageError, match="--batch is 9; this bundle takes 1 to 8 frames"):
        verify(tiny_bundle, engine="no such engine", batch=9)


def test_bundle_without_its_own_tolerance_is_refused(tiny_bundle, add_engine):
    add_engine("numpy")
    bundle = tiny_bundle.with_manifest(dataclasses.replace(tiny_bundle.manifest, precision="int8"))
    with pytest.raises(BundleError, match="is int8, but its manifest has tolerances for fp32, fp16 only"):
        verify(bundle, engine="numpy")


@pytest.mark.parametrize("name", cpu_engines())
def test_real_engines_pass_on_the_tiny_bundle(tiny_bundle, name):
    state = availability(name)
    if not state.is_available:
        pytest.skip(state.found)
    report = verify(tiny_bundle, engine=name, batch=8)
    check(report)
    assert report.score_max_abs_error < 1e-6
    assert report.engine_details["library_version"]

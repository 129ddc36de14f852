"""The check is checked: an engine that is wrong in any way must not pass, and the report must name the frame."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from lineproof.bundle.decide import set_threshold
from lineproof.bundle.store import now, open_bundle, write_bundle
from lineproof.core.errors import BadInputError, BundleError, EnvironmentMissingError, ParityError, UsageError
from lineproof.core.prediction import Prediction
from lineproof.core.threshold import Threshold
from lineproof.data.dataset import open_dataset
from lineproof.eval.parity.comparison import Comparison
from lineproof.eval.parity.proof import pick_reference, record_parity
from lineproof.eval.parity.verify import verify
from lineproof.runtime.engine import ENGINES, Availability, EngineOptions, availability, cpu_engines


def move(index, by):
    """Add ``by`` to the score of one frame of the batch."""

    def change(score, anomaly_map):
        score[index] += by
        return score, anomaly_map

    return change


def states(bundle):
    """Parity of each engine as the manifest on disk says it."""
    manifest = open_bundle(bundle.path).manifest
    return {name: manifest.parity_of(name) for name in manifest.parity}


def moved_threshold(bundle, value):
    return bundle.change(
        lambda manifest: dataclasses.replace(
            manifest,
            threshold=Threshold(
                value=value,
                num_good=4,
                num_rejected=0,
                max_false_reject=0.0,
                interval_low=0.0,
                interval_high=0.6,
                engine="torch",
                source="test",
            ),
        )
    )


def test_right_engine_passes_on_the_golden_frames(tiny_bundle, add_engine):
    engine = add_engine("numpy")
    report = verify(tiny_bundle, engine="numpy", batch=3)
    assert report.passed
    report.check()
    assert engine.batches == [3, 3, 2]
    assert engine.num_closed == 1
    assert (report.num_frames, report.num_golden, report.reference) == (8, 8, "golden")
    assert report.verdict_flips == report.ties == report.failures == ()
    assert report.score_max_abs_error == report.map_max_abs_error == 0.0
    assert report.rank_correlation == 1.0
    golden = tiny_bundle.golden()
    scores = golden.reference.score
    np.testing.assert_allclose(report.score_range, np.ptp(scores), rtol=1e-6)
    spread = np.std(scores[:4].astype(np.float64), ddof=1)
    np.testing.assert_allclose([report.score_spread, report.score_tolerance], [spread, 1e-2 * spread], rtol=1e-5)
    assert (report.state, report.decision) == ("passed", tiny_bundle.manifest.decision)
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
        report.check()
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
    words = r"1 of 8 verdict differs .*bad/004\.png: NG \(0\.\d+\), 0\.\d+ above the threshold, became OK \(0\.\d+\)"
    with pytest.raises(ParityError, match=words):
        report.check()
    assert any("7 of 8 as the reference's" in line for line in report.summary_lines())


def test_a_flip_among_ties_is_named_and_many_ties_are_no_pass(tiny_bundle, add_engine):
    scores = tiny_bundle.golden().reference.score
    tolerance = 1e-2 * tiny_bundle.manifest.score_spread
    bundle = moved_threshold(tiny_bundle, float(scores[3]) + 0.4 * tolerance)
    add_engine("numpy", move(3, 0.8 * tolerance))
    report = verify(bundle, engine="numpy", batch=8)
    assert report.failures == ()
    (tie,) = report.ties
    assert report.verdict_flips == (tie,)
    assert (tie.file, tie.reference_verdict, tie.engine_verdict, tie.is_tie) == ("good/003.png", "OK", "NG", True)
    np.testing.assert_allclose(tie.margin, -0.4 * tolerance, rtol=1e-3)
    # One of eight is more than one of twenty.
    assert (report.state, report.passed, report.tie_share) == ("undecided", False, 0.125)
    lines = report.summary_lines()
    assert lines[0].startswith("Parity UNDECIDED: tiny on numpy (fp32)")
    assert any("good/003.png: OK" in line and "below the threshold, became NG" in line for line in lines)
    with pytest.raises(ParityError, match=r"1 of 8 frames are ties, which proves nothing.*--accept-undecided"):
        report.check()
    report.check(accept_undecided=True)


def test_few_ties_pass_and_their_share_is_said(tiny_bundle, tiny_dataset, add_engine):
    """One tie of 24 frames: 4.2 %, at most the 5 % with which verdicts still prove something."""
    for index in range(10, 60):
        Image.fromarray(np.full((12, 16, 3), 9, np.uint8)).save(tiny_dataset.root / "good" / f"{index:03d}.png")
    scores = tiny_bundle.golden().reference.score
    bundle = moved_threshold(tiny_bundle, float(scores[3]) + 0.001 * tiny_bundle.manifest.score_spread)
    add_engine("truth")
    add_engine("numpy")
    report = verify(bundle, engine="numpy", dataset=open_dataset(tiny_dataset.root), reference="truth", batch=8)
    assert (len(report.ties), report.num_frames, report.state) == (1, 24, "passed")
    assert any("Ties: 1 frame (4.2%) within" in line for line in report.summary_lines())


def test_the_spread_is_the_smaller_of_good_and_defective(tiny_bundle, tiny_dataset, add_engine):
    """Defective frames alike among themselves make the tolerance narrower, never wider."""
    frame = np.full((12, 16, 3), 40, np.uint8)
    for index, level in enumerate((150, 151, 152, 153)):
        frame[3:6, 4:9] = level
        Image.fromarray(frame).save(tiny_dataset.root / "bad" / f"{index:03d}.png")
    add_engine("truth")
    add_engine("numpy")
    report = verify(tiny_bundle, engine="numpy", dataset=open_dataset(tiny_dataset.root), reference="truth")
    np.testing.assert_allclose(report.score_spread, np.std(np.arange(150, 154) / 255, ddof=1), rtol=1e-4)
    assert report.score_spread < tiny_bundle.manifest.score_spread


def test_without_a_known_spread_the_accepted_frames_give_it(tiny_bundle, add_engine):
    add_engine("numpy")
    bundle = tiny_bundle.change(lambda manifest: dataclasses.replace(manifest, score_spread=0.0))
    scores = bundle.golden().reference.score[:4].astype(np.float64)
    np.testing.assert_allclose(verify(bundle, engine="numpy").score_spread, np.std(scores, ddof=1), rtol=1e-6)


def test_verdict_is_strict(tiny_bundle, add_engine):
    """A score equal to the threshold is OK on both sides."""
    scores = tiny_bundle.golden().reference.score
    add_engine("numpy")
    report = verify(moved_threshold(tiny_bundle, float(scores[4])), engine="numpy")
    assert [(tie.file, tie.reference_verdict, tie.engine_verdict) for tie in report.ties] == [
        ("bad/004.png", "OK", "OK")
    ]


def test_score_beyond_tolerance_fails_without_a_flip(tiny_bundle, add_engine):
    margin = float(tiny_bundle.golden().reference.score[7]) - tiny_bundle.manifest.threshold.value
    tolerance = 1e-2 * tiny_bundle.manifest.score_spread + 1e-4 * margin
    add_engine("close", move(7, 0.9 * tolerance))
    assert verify(tiny_bundle, engine="close", batch=8).passed
    add_engine("far", move(7, 2 * tolerance))
    report = verify(tiny_bundle, engine="far", batch=8)
    assert report.verdict_flips == ()
    (failure,) = report.failures
    assert failure.startswith("The score is off by")
    assert f"on bad/007.png, where {tolerance:.3g}" in failure
    assert failure.endswith("and too far off on 1 of 8 frames.")


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
        report.check()
    assert report.num_frames == 8
    json.dumps(report.to_dict(), allow_nan=False)


def test_report_is_recorded_or_not(tiny_bundle, add_engine):
    add_engine("numpy")
    passed = verify(tiny_bundle, engine="numpy")
    assert not (tiny_bundle.path / "proof.json").exists()
    assert open_bundle(tiny_bundle.path).manifest.parity == {}
    assert record_parity(tiny_bundle, passed).warning == ""
    assert states(tiny_bundle) == {"numpy": "passed"}
    failed = dataclasses.replace(passed, engine="other", proof_name="other", state="failed", failures=("Off.",))
    # The handle is older than the first report: both are kept.
    assert record_parity(tiny_bundle, failed).bundle.manifest.parity_of("other") == "failed"
    entries = json.loads((tiny_bundle.path / "proof.json").read_text())
    assert [(entry["engine"], entry["passed"]) for entry in entries] == [("numpy", True), ("other", False)]
    assert states(tiny_bundle) == {"numpy": "passed", "other": "failed"}


def test_a_report_about_an_older_decision_proves_nothing_new(tiny_bundle, add_engine):
    """The threshold was set while the verify ran: the report is kept, the bundle says nothing new, and it is said."""
    add_engine("numpy")
    report = verify(tiny_bundle, engine="numpy")
    set_threshold(tiny_bundle, 0.5, reason="fewer rejects")
    recorded = record_parity(tiny_bundle, report)
    assert "kept as one about the old decision" in recorded.warning
    assert recorded.bundle.manifest.threshold.value == 0.5
    assert states(tiny_bundle) == {}
    (entry,) = json.loads((tiny_bundle.path / "proof.json").read_text())
    assert entry["decision"] == tiny_bundle.manifest.decision != open_bundle(tiny_bundle.path).manifest.decision


def test_a_bundle_that_was_exchanged_is_not_proved_by_an_older_report(tiny_bundle, add_engine):
    add_engine("numpy")
    report = verify(tiny_bundle, engine="numpy")

    def other(folder):
        (folder / "model.onnx").write_bytes(tiny_bundle.model_path.read_bytes() + b"\0")
        (folder / "golden.npz").write_bytes((tiny_bundle.path / "golden.npz").read_bytes())

    manifest = dataclasses.replace(tiny_bundle.manifest, files={}, history=())
    write_bundle(tiny_bundle.path, manifest, other)
    assert "kept as one about the old decision" in record_parity(tiny_bundle, report).warning
    opened = open_bundle(tiny_bundle.path)
    assert opened.manifest.parity == {}
    assert opened.model_sha256 != report.model_sha256


def test_a_bundle_that_cannot_be_written_keeps_the_report_elsewhere(tiny_bundle, add_engine, tmp_path, monkeypatch):
    add_engine("numpy")
    report = verify(tiny_bundle, engine="numpy")
    assert record_parity(tiny_bundle, report, folder=tmp_path / "kept").warning == ""
    (entry,) = json.loads((tmp_path / "kept" / "proof.json").read_text())
    assert (entry["engine"], entry["passed"]) == ("numpy", True)
    assert open_bundle(tiny_bundle.path).manifest.parity == {}

    def refuse(*_, **__):
        raise OSError(30, "Read-only file system", str(tiny_bundle.path))

    monkeypatch.setattr("lineproof.bundle.store.exclusive", refuse)
    warning = record_parity(tiny_bundle, report).warning
    assert warning.startswith("The report was not kept.")
    assert "read-only file system" in warning
    assert "--record DIR" in warning


def test_arithmetic_has_a_proof_of_its_own(tiny_bundle, add_engine):
    add_engine("numpy")
    report = verify(tiny_bundle, engine="numpy", options=EngineOptions(compute_dtype="bf16"))
    record_parity(tiny_bundle, report)
    manifest = open_bundle(tiny_bundle.path).manifest
    assert (manifest.parity_of("numpy"), manifest.parity_of("numpy:bf16")) == ("unverified", "passed")


def test_a_run_that_may_fall_back_is_no_proof(tiny_bundle, add_engine):
    add_engine("numpy")
    report = verify(tiny_bundle, engine="numpy", options=EngineOptions(allow_fallback=True))
    assert "no proof of the engine" in record_parity(tiny_bundle, report).warning
    assert open_bundle(tiny_bundle.path).manifest.parity == {}


def test_the_reference_on_data_is_torch_or_a_proved_engine(tiny_bundle, add_engine):
    pytest.importorskip("torch")
    assert pick_reference(tiny_bundle, "openvino", engine="ort-cpu")[0] == "openvino"
    for name, preference in (("truth", 1000), ("numpy", 1001)):
        add_engine(name, preference=preference)
    # The tiny bundle carries no PyTorch weights.
    with pytest.raises(EnvironmentMissingError, match=r"holds no reference\.safetensors.*no other engine than numpy"):
        pick_reference(tiny_bundle, None, engine="numpy")
    for name in ("truth", "numpy"):
        record_parity(tiny_bundle, verify(tiny_bundle, engine=name))
    name, sentence = pick_reference(open_bundle(tiny_bundle.path), None, engine="numpy")
    assert name == "truth"
    assert "The reference on the data set is truth, which is proved for this bundle" in sentence


def test_a_reference_that_failed_is_refused_and_an_unproved_one_is_named(tiny_bundle):
    assert pick_reference(tiny_bundle, "torch", engine="numpy") == ("torch", "")
    assert pick_reference(tiny_bundle, "truth", engine="numpy")[1].startswith(
        "The reference truth is not proved itself (unverified)"
    )
    proved = tiny_bundle.change(lambda manifest: manifest.with_parity("truth", "passed", time=now()))
    assert pick_reference(proved, "truth", engine="numpy") == ("truth", "")
    failed = tiny_bundle.change(lambda manifest: manifest.with_parity("truth", "failed", time=now()))
    with pytest.raises(ParityError, match=r"The reference truth failed its own last verify"):
        pick_reference(failed, "truth", engine="numpy")


def test_the_null_engine_is_no_reference(tiny_bundle, tiny_dataset):
    pytest.importorskip("onnxruntime")
    with pytest.raises(UsageError, match=r"Engine null computes nothing and answers zeros: it cannot be a reference"):
        verify(tiny_bundle, engine="ort-cpu", dataset=tiny_dataset, reference="null")
    assert open_bundle(tiny_bundle.path).manifest.parity == {}


def test_the_null_engine_says_nothing_about_a_bundle(tiny_bundle):
    report = verify(tiny_bundle, engine="null")
    assert not report.passed
    record_parity(tiny_bundle, report)
    assert open_bundle(tiny_bundle.path).manifest.parity == {}
    assert not (tiny_bundle.path / "proof.json").exists()


def test_threshold_of_the_engine_counts_for_both_sides(tiny_bundle, add_engine):
    scores = tiny_bundle.golden().reference.score
    own = Threshold(
        value=float(np.sort(scores)[6:].mean()),
        num_good=4,
        num_rejected=0,
        max_false_reject=0.0,
        interval_low=0.0,
        interval_high=0.6,
        engine="numpy",
        source="test",
    )
    bundle = tiny_bundle.change(lambda manifest: dataclasses.replace(manifest, engine_thresholds={"numpy": own}))
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
    assert any("truth on 6 images" in line for line in report.summary_lines())


def test_options_of_the_engine_under_test_do_not_reach_the_reference(tiny_bundle, tiny_dataset, add_engine):
    reference, engine = add_engine("truth"), add_engine("numpy", uses_gpu=True)
    asked = EngineOptions(device=1, num_threads=2, compute_dtype="bf16", allow_fallback=True)
    report = verify(tiny_bundle, engine="numpy", options=asked, dataset=tiny_dataset, reference="truth")
    assert report.passed
    assert engine.opened == [asked]
    assert reference.opened == [EngineOptions(num_threads=2)]


def test_a_reference_without_threads_gets_none(tiny_bundle, tiny_dataset, add_engine):
    reference = add_engine("truth", takes_threads=False)
    add_engine("numpy")
    verify(tiny_bundle, engine="numpy", options=EngineOptions(num_threads=2), dataset=tiny_dataset, reference="truth")
    assert reference.opened == [EngineOptions()]


def test_accuracy_lost_on_the_data_set_shows(tiny_bundle, tiny_dataset, add_engine):
    add_engine("truth")
    add_engine("numpy", lambda score, anomaly_map: (-score, -anomaly_map))
    report = verify(tiny_bundle, engine="numpy", dataset=tiny_dataset, reference="truth", batch=4)
    assert (report.image_auroc.reference, report.image_auroc.engine) == (1.0, 0.0)
    assert (report.pixel_auroc.reference, report.pixel_auroc.engine) == (1.0, 0.0)
    assert report.rank_correlation == -1.0
    flipped = [flip.file for flip in report.verdict_flips if flip.origin == "data"]
    assert {f"bad/{sample.path.name}" for sample in tiny_dataset.test if sample.label} <= set(flipped)


def test_one_far_frame_does_not_stretch_the_tolerance(tiny_bundle, tiny_dataset, add_engine):
    add_engine("truth")
    add_engine("numpy")
    before = verify(tiny_bundle, engine="numpy", dataset=tiny_dataset, reference="truth")
    Image.fromarray(np.full((12, 16, 3), 255, np.uint8)).save(tiny_dataset.root / "bad" / "bright.png")
    report = verify(tiny_bundle, engine="numpy", dataset=open_dataset(tiny_dataset.root), reference="truth")
    assert report.score_range > before.score_range
    assert report.score_tolerance == before.score_tolerance == 1e-2 * tiny_bundle.manifest.score_spread


def test_images_that_do_not_fit_are_named_and_never_resized(tiny_bundle, tiny_dataset, add_engine):
    bad = tiny_dataset.root / "bad"
    Image.new("RGB", (32, 24)).save(bad / "large.png")
    (bad / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    add_engine("truth")
    add_engine("numpy")
    report = verify(tiny_bundle, engine="numpy", dataset=open_dataset(tiny_dataset.root), reference="truth", batch=2)
    reasons = {item.sample.path.name: item.reason for item in report.skipped_frames}
    assert set(reasons) == {"large.png", "broken.png"}
    assert "the image is 24x32 (height x width); frames are 12x16" in reasons["large.png"]
    assert report.num_frames == 14
    assert [item["file"] for item in report.to_dict()["skipped_frames"]] == [
        str(bad / "broken.png"),
        str(bad / "large.png"),
    ]
    first = report.summary_lines()[0]
    assert first.startswith("Only 6 of 8 images could be used (75.0%). Not used: bad/broken.png, bad/large.png: ")
    assert any("bad/large.png: the image is 24x32" in line for line in report.summary_lines(lists_all=True))


def test_no_image_left_is_an_error(tiny_bundle, tmp_path, add_engine):
    (tmp_path / "big" / "good").mkdir(parents=True)
    for index in range(5):
        Image.new("RGB", (32, 24)).save(tmp_path / "big" / "good" / f"{index}.png")
    add_engine("truth")
    add_engine("numpy")
    with pytest.raises(BadInputError, match=r"None of the 1 images of the test split can be used\. .*24x32"):
        verify(tiny_bundle, engine="numpy", dataset=open_dataset(tmp_path / "big"), reference="truth")
    assert not (tiny_bundle.path / "proof.json").exists()


def test_an_engine_is_not_compared_with_itself(tiny_bundle, tiny_dataset, add_engine):
    add_engine("numpy")
    with pytest.raises(UsageError, match="compared with itself proves nothing"):
        verify(tiny_bundle, engine="numpy", dataset=tiny_dataset, reference="numpy")


def test_missing_reference_says_what_else_can_be_done(tiny_bundle, tiny_dataset, add_engine, monkeypatch):
    add_engine("numpy")
    absent = add_engine("truth")
    monkeypatch.setattr(
        absent,
        "availability",
        lambda: Availability(name="truth", is_available=False, looked_for="a truth", found="none", fix="buy one"),
    )
    monkeypatch.setattr("lineproof.runtime.engine.ENGINES", {name: ENGINES[name] for name in ("truth", "numpy")})
    with pytest.raises(EnvironmentMissingError, match=r"Looked for: a truth\..*the golden frames need no reference"):
        verify(tiny_bundle, engine="numpy", dataset=tiny_dataset, reference="truth")


def test_batch_is_checked_before_anything_is_opened(tiny_bundle):
    with pytest.raises(UsageError, match=r"batch \(--batch\) is 9; this bundle takes 1 to 8 frames"):
        verify(tiny_bundle, engine="no such engine", batch=9)


def test_bundle_without_its_own_tolerance_is_refused(tiny_bundle, add_engine):
    add_engine("numpy")
    bundle = dataclasses.replace(tiny_bundle, manifest=dataclasses.replace(tiny_bundle.manifest, precision="int8"))
    with pytest.raises(BundleError, match="is int8, but its manifest has tolerances for fp32, fp16 only"):
        verify(bundle, engine="numpy")


@pytest.mark.parametrize("name", cpu_engines())
def test_real_engines_pass_on_the_tiny_bundle(tiny_bundle, name):
    state = availability(name)
    if not state.is_available:
        pytest.skip(state.found)
    report = verify(tiny_bundle, engine=name, batch=8)
    report.check()
    assert report.score_max_abs_error < 1e-6
    assert report.engine_details["library_version"]


def test_one_huge_score_makes_no_ties_of_the_others(tiny_bundle):
    """The finest difference that counts is that of float32 at the threshold, not at the largest score."""

    def blow_up(score, anomaly_map):
        score[7] *= 1e6
        return score, anomaly_map

    bundle = moved_threshold(tiny_bundle, float(tiny_bundle.golden().reference.score[3]) + 1e-3)
    comparison = Comparison(bundle.manifest, threshold=bundle.manifest.threshold)
    answer = Prediction(*blow_up(bundle.golden().reference.score.copy(), bundle.golden().reference.anomaly_map))
    comparison.add(bundle.golden().names, origin="golden", reference=answer, engine=answer)
    judged = comparison.judge()
    assert (judged.state, judged.ties) == ("passed", ())
    assert judged.score_tolerance == 1e-2 * bundle.manifest.score_spread

"""Frames to verdicts: the right one, or an error."""

import dataclasses
import json
import threading

import numpy as np
import pytest

import lineproof
from lineproof.bundle.decide import set_threshold
from lineproof.bundle.store import now
from lineproof.core.errors import BadInputError, BundleError, LineproofError, ParityError, UsageError
from lineproof.core.prediction import Prediction
from lineproof.line.inspector import Line, open_line
from lineproof.runtime.engine import EngineOptions, open_engine


class Scripted:
    """An engine that answers what it is told; only what Line calls."""

    def __init__(self, score, anomaly_map=None):
        self.score = np.asarray(score, np.float32)
        self.anomaly_map = np.zeros((len(self.score), 2, 2), np.float32) if anomaly_map is None else anomaly_map
        self.is_closed = False

    def upload(self, frames):
        self.num_frames = len(frames)

    def execute(self):
        pass

    def download(self):
        return Prediction(self.score[: self.num_frames], self.anomaly_map[: self.num_frames])

    def close(self):
        self.is_closed = True


@pytest.fixture
def cpu(tiny_bundle):
    pytest.importorskip("onnxruntime")
    return tiny_bundle


def _frames(num_frames):
    return np.zeros((num_frames, 12, 16, 3), np.uint8)


def test_golden_frames_get_their_verdicts(cpu):
    golden = cpu.golden()
    with open_line(cpu.path, engine="ort-cpu") as line:
        verdicts = line.inspect_batch(golden.frames)
    assert [verdict.verdict for verdict in verdicts] == ["OK"] * 4 + ["NG"] * 4
    np.testing.assert_allclose([verdict.score for verdict in verdicts], golden.reference.score, atol=1e-6)
    np.testing.assert_allclose(verdicts[5].anomaly_map, golden.reference.anomaly_map[5], atol=1e-6)
    assert verdicts[0].threshold == cpu.manifest.threshold.value
    assert verdicts[0].time_ns > 0
    assert isinstance(verdicts[0].score, float)


def test_one_frame_and_a_batch_agree(cpu):
    frames = cpu.golden().frames
    with open_line(cpu.path, engine="ort-cpu") as line:
        alone, together = [line.inspect(frame) for frame in frames], line.inspect_batch(frames)
    assert [verdict.verdict for verdict in alone] == [verdict.verdict for verdict in together]
    np.testing.assert_allclose([v.score for v in alone], [v.score for v in together], rtol=1e-6)


def test_more_frames_than_a_batch_are_split_in_order(cpu):
    golden = cpu.golden()
    frames = np.concatenate([golden.frames, golden.frames[::-1], golden.frames[:3]])
    with open_line(cpu.path, engine="ort-cpu") as line:
        verdicts = line.inspect_batch(frames)
    want = np.concatenate([golden.reference.score, golden.reference.score[::-1], golden.reference.score[:3]])
    np.testing.assert_allclose([verdict.score for verdict in verdicts], want, atol=1e-6)


def test_no_frames_give_no_verdicts(cpu):
    with open_line(cpu.path, engine="ort-cpu") as line:
        assert line.inspect_batch(_frames(0)) == ()


def test_auto_names_the_engine_it_took(cpu):
    with open_line(cpu.path) as line:
        assert line.engine_name in ("trt", "trt-rtx", "ort-cuda", "openvino", "ort-cpu")
        assert line.engine.describe()["engine"] == line.engine_name


def test_lineproof_itself_opens_a_line(cpu):
    with lineproof.open_line(cpu.path, engine="ort-cpu", options=EngineOptions(num_threads=1)) as line:
        assert line.engine.describe()["num_threads"] == 1
        assert line.inspect(cpu.golden().frames[7]).verdict == "NG"


def test_wrong_frames_are_refused(cpu):
    with open_line(cpu.path, engine="ort-cpu") as line:
        with pytest.raises(BadInputError, match=r"frames is uint8 \(1, 12, 15, 3\).*no resize"):
            line.inspect(np.zeros((12, 15, 3), np.uint8))
        with pytest.raises(BadInputError, match=r"frames is float64"):
            line.inspect(np.zeros((12, 16, 3)))
        with pytest.raises(BadInputError, match=r"frames is uint8 \(12, 16, 3\)"):
            line.inspect_batch(np.zeros((12, 16, 3), np.uint8))


def test_a_scan_is_refused_by_a_bundle_of_images(cpu):
    with open_line(cpu.path, engine="ort-cpu", allow_failed=True) as line:
        with pytest.raises(UsageError, match="takes images: give a frame alone"):
            line.inspect(xyz=np.zeros((4, 4, 3), np.float32))
        with pytest.raises(UsageError, match="takes images: give a frame alone"):
            line.inspect()


def test_the_threshold_of_the_engine_is_used(tiny_bundle):
    other = dataclasses.replace(tiny_bundle.manifest.threshold, value=0.7)
    bundle = tiny_bundle.change(lambda manifest: dataclasses.replace(manifest, engine_thresholds={"openvino": other}))
    engine = Scripted([0.6])
    assert Line(bundle, engine, engine_name="openvino").inspect(_frames(1)[0]).verdict == "OK"
    assert Line(bundle, engine, engine_name="ort-cpu").inspect(_frames(1)[0]).verdict == "NG"
    assert Line(bundle, engine, engine_name="openvino", threshold=0.5).inspect(_frames(1)[0]).verdict == "NG"


def test_the_rule_is_strictly_above_and_in_float64(tiny_bundle):
    score = np.float32(0.3)
    below, equal = np.nextafter(float(score), 0.0), float(score)
    for threshold, verdict in ((below, "NG"), (equal, "OK")):
        line = Line(tiny_bundle, Scripted([score]), engine_name="ort-cpu", threshold=threshold)
        assert line.inspect(_frames(1)[0]).verdict == verdict


@pytest.mark.parametrize("threshold", [float("nan"), float("inf")])
def test_a_threshold_that_is_not_finite_is_refused(threshold, cpu):
    with pytest.raises(UsageError, match=r"The threshold is (nan|inf); expected a finite number"):
        open_line(cpu.path, engine="ort-cpu", threshold=threshold)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_answer_that_is_not_finite_is_no_verdict(value, tiny_bundle):
    line = Line(tiny_bundle, Scripted([0.1, value, 0.1]), engine_name="ort-cpu")
    with pytest.raises(
        LineproofError, match=r"not finite for frame 1 \(score .*no verdict was given.*lineproof verify"
    ):
        line.inspect_batch(_frames(3))


def test_a_map_that_is_not_finite_is_no_verdict(tiny_bundle):
    anomaly_map = np.zeros((1, 2, 2), np.float32)
    anomaly_map[0, 1, 1] = np.nan
    line = Line(tiny_bundle, Scripted([0.1], anomaly_map), engine_name="ort-cpu")
    with pytest.raises(LineproofError, match=r"not finite for frame 0"):
        line.inspect(_frames(1)[0])


def test_the_frame_that_is_not_finite_is_named_across_batches(tiny_bundle):
    engine = Scripted([0.1] * 8)
    line = Line(tiny_bundle, engine, engine_name="ort-cpu")
    upload = engine.upload

    def second_batch_fails(frames):
        upload(frames)
        engine.score = np.array([0.1, 0.1, np.nan] if len(frames) == 3 else [0.1] * 8, np.float32)

    engine.upload = second_batch_fails
    with pytest.raises(LineproofError, match=r"not finite for frame 10"):
        line.inspect_batch(_frames(11))


def test_parity_is_said_and_an_engine_that_failed_is_refused(cpu):
    with open_line(cpu.path, engine="ort-cpu") as line:
        assert line.parity == "unverified"
    cpu.change(
        lambda manifest: manifest.with_parity("ort-cpu", "failed", time=now()).with_parity(
            "openvino", "passed", time=now()
        )
    )
    message = r"failed its last `lineproof verify --engine ort-cpu`.*that passed: openvino.*--allow-failed.*in Python"
    with pytest.raises(ParityError, match=message):
        open_line(cpu.path, engine="ort-cpu")
    with open_line(cpu.path, engine="ort-cpu", allow_failed=True) as line:
        assert line.parity == "failed"


def test_an_altered_bundle_is_refused(cpu):
    cpu.model_path.write_bytes(b"another graph")
    with pytest.raises(BundleError, match=r"model\.onnx was altered"):
        open_line(cpu.path, engine="ort-cpu")


def test_threads_share_a_line(cpu):
    golden, wrong = cpu.golden(), []
    with open_line(cpu.path, engine="ort-cpu") as line:

        def inspect(index):
            for _ in range(50):
                score = line.inspect(golden.frames[index]).score
                if abs(score - golden.reference.score[index]) > 1e-6:
                    wrong.append((index, score))

        threads = [threading.Thread(target=inspect, args=(index,)) for index in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


def test_a_closed_line_refuses(cpu):
    with open_line(cpu.path, engine="ort-cpu") as line:
        pass
    with pytest.raises(UsageError, match=r"Engine ort-cpu is closed"):
        line.inspect(cpu.golden().frames[0])


def test_the_engine_is_closed_at_the_end_of_the_block_after_an_error_too(tiny_bundle):
    engine = Scripted([np.nan])

    def inspect():
        with Line(tiny_bundle, engine, engine_name="ort-cpu") as line:
            line.inspect(_frames(1)[0])

    with pytest.raises(LineproofError):
        inspect()
    assert engine.is_closed


def test_verdicts_do_not_share_memory_with_the_next(cpu):
    golden = cpu.golden()
    line = Line(cpu, open_engine(cpu, "ort-cpu"), engine_name="ort-cpu")
    first = line.inspect(golden.frames[7])
    copy = first.anomaly_map.copy()
    line.inspect(golden.frames[0])
    np.testing.assert_array_equal(first.anomaly_map, copy)
    line.close()


def test_what_is_not_proved_is_said_and_refused_where_a_proof_is_required(cpu):
    with open_line(cpu.path, engine="ort-cpu") as line:
        assert line.warnings() == ("Engine ort-cpu is not proved: it was never verified on this bundle.",)
    words = r"A proof was required\..*never verified.*lineproof verify .*--engine ort-cpu"
    with pytest.raises(ParityError, match=words):
        open_line(cpu.path, engine="ort-cpu", require_proof=True)
    cpu.change(lambda manifest: manifest.with_parity("ort-cpu", "passed", time=now()))
    with open_line(cpu.path, engine="ort-cpu", require_proof=True) as line:
        assert (line.parity, line.warnings(), line.decision) == ("passed", (), cpu.manifest.decision)
    # A threshold of the caller's own was not proved.
    with open_line(cpu.path, engine="ort-cpu", threshold=0.5) as line:
        assert line.parity == "outdated"
    with open_line(cpu.path, engine="ort-cpu", threshold=cpu.manifest.threshold.value) as line:
        assert line.parity == "passed"
    set_threshold(cpu, 0.5, reason="a test")
    with pytest.raises(ParityError, match="verified for another decision than the one it makes now"):
        open_line(cpu.path, engine="ort-cpu", require_proof=True)


def test_an_undecided_engine_opens_and_says_so(cpu):
    cpu.change(lambda manifest: manifest.with_parity("ort-cpu", "undecided", time=now()))
    with open_line(cpu.path, engine="ort-cpu") as line:
        assert "too many frames were ties" in line.warnings()[0]
    with pytest.raises(ParityError, match="A proof was required"):
        open_line(cpu.path, engine="ort-cpu", require_proof=True)


def test_a_failed_engine_is_refused_where_a_proof_is_required_whatever_else_is_allowed(cpu):
    cpu.change(lambda manifest: manifest.with_parity("ort-cpu", "failed", time=now()))
    with pytest.raises(ParityError, match="failed its last"):
        open_line(cpu.path, engine="ort-cpu", allow_failed=True, require_proof=True)


def test_a_manifest_changed_by_hand_is_said(cpu):
    path = cpu.path / "manifest.json"
    raw = json.loads(path.read_text())
    raw["threshold"]["value"] = 0.9
    path.write_text(json.dumps(raw))
    with open_line(cpu.path, engine="ort-cpu") as line:
        assert "manifest.json was changed by hand" in line.warnings()[1]
    with pytest.raises(ParityError, match="A proof was required"):
        open_line(cpu.path, engine="ort-cpu", require_proof=True)


class Recorder(Scripted):
    """Keeps the frames it was given."""

    def upload(self, frames):
        super().upload(frames)
        self.frames = frames


@pytest.mark.parametrize("order", ["bgr", "rgb", None])
def test_the_engine_gets_rgb_whatever_order_the_camera_gives(tiny_bundle, order):
    engine = Recorder(np.zeros(4))
    frames = np.random.default_rng(0).integers(0, 256, (4, 12, 16, 3), dtype=np.uint8)
    with Line(tiny_bundle, engine, engine_name="x", order=order) as line:
        line.inspect_batch(frames)
        np.testing.assert_array_equal(engine.frames, frames[..., ::-1] if order == "bgr" else frames)
        assert engine.frames.flags.c_contiguous
        line.inspect(frames[2])
        np.testing.assert_array_equal(engine.frames[0], frames[2, ..., ::-1] if order == "bgr" else frames[2])


@pytest.mark.parametrize(("channels", "order"), [(3, "mono"), (3, "BGR"), (3, ""), (1, "bgr"), (1, "rgb")])
def test_an_order_that_the_bundle_cannot_take_is_refused(tiny_bundle, channels, order):
    spec = dataclasses.replace(tiny_bundle.manifest.preprocessing, frame_channels=channels, channel_order="")
    bundle = dataclasses.replace(tiny_bundle, manifest=dataclasses.replace(tiny_bundle.manifest, preprocessing=spec))
    own, known = ("rgb", "rgb or bgr") if channels == 3 else ("mono", "mono")
    with pytest.raises(
        UsageError, match=rf"order \(--order\) is '{order}\'; this bundle takes {own} frames: expected {known}\."
    ):
        Line(bundle, Scripted([0.0]), engine_name="x", order=order)


def test_open_line_swaps_exactly(cpu):
    frames = cpu.golden().frames
    with open_line(cpu.path, engine="ort-cpu") as line, open_line(cpu.path, engine="ort-cpu", order="bgr") as swapped:
        want = [verdict.score for verdict in line.inspect_batch(frames)]
        got = [verdict.score for verdict in swapped.inspect_batch(frames[..., ::-1])]
    assert want == got
    with pytest.raises(UsageError, match=r"order \(--order\) is 'mono'"):
        open_line(cpu.path, engine="ort-cpu", order="mono")


def test_an_engine_that_may_fall_back_is_not_the_one_that_was_proved(cpu):
    cpu.change(lambda manifest: manifest.with_parity("ort-cpu", "passed", time=now()))
    options = EngineOptions(allow_fallback=True)
    with open_line(cpu.path, engine="ort-cpu", options=options) as line:
        assert line.parity == "unverified"
        assert line.warnings() == (
            "Engine ort-cpu is not proved: it was allowed to fall back, and a fallback has no proof.",
        )
    with pytest.raises(ParityError, match=r"A proof was required\..*allowed to fall back"):
        open_line(cpu.path, engine="ort-cpu", options=options, require_proof=True)


def test_the_null_engine_inspects_nothing(tiny_bundle):
    with pytest.raises(UsageError, match="Engine null computes nothing and answers zeros: it cannot inspect parts"):
        open_line(tiny_bundle.path, engine="null", allow_failed=True)

"""Each cause of a disagreement is found where it is, and not where it is not; files are stood in for by functions."""

import numpy as np
import pytest

from lineproof.bundle.imported import ImportRecord, Normalisation
from lineproof.core.errors import BadInputError, ParityError
from lineproof.importers.anomalib import causes
from lineproof.importers.anomalib.causes import (
    Case,
    antialias,
    arithmetic,
    calibration,
    frozen_batch,
    is_free_size,
    run_file,
    scale,
    threshold,
    ties,
    unexplained,
)
from lineproof.importers.anomalib.diagnosis import Diagnosis, Finding

NUM = 10
#: Normalised scores of five good and five defective parts.
REFERENCE = np.array([0.1, 0.2, 0.3, 0.4, 0.45, 0.6, 0.7, 0.8, 0.9, 1.0])


class File:
    """An exported file that answers with a function of the image's mean; the images tell their own score."""

    def __init__(self, score, *, shape=(None, 3, None, None), label=lambda score: score > 0.5, arithmetic="float32"):
        self.score, self.shape, self.label, self.arithmetic = score, shape, label, arithmetic
        self.batches = []

    def run(self, images):
        self.batches.append(len(images))
        if self.shape[0] is not None and len(images) != self.shape[0]:
            raise BadInputError(f"Got {len(images)}, expected {self.shape[0]}.")
        scores = np.array([self.score(float(image[0, 0, 0]), image.shape[1]) for image in images], np.float32)
        outputs = {"pred_score": scores}
        return outputs | ({"pred_label": np.array([self.label(item) for item in scores])} if self.label else {})


def make_case(reference=REFERENCE):
    record = ImportRecord(
        library="anomalib", library_version="", model="Padim", file="f", sha256="0" * 64, mean=(0, 0, 0), std=(1, 1, 1),
        image=Normalisation(threshold=5.0, low=0.0, high=10.0), pixel=Normalisation(threshold=5.0, low=0.0, high=10.0),
    )  # fmt: skip
    images = [np.full((3, 8, 8), value, np.float32) for value in reference]
    return Case(
        imported=record,
        labels=np.repeat([0, 1], NUM // 2),
        reference=np.asarray(reference, np.float64),
        raw=np.asarray(reference, np.float64) * 10.0,
        names=tuple(f"{number}.png" for number in range(NUM)),
        own_size=lambda index: np.repeat(np.repeat(images[index], 2, 1), 2, 2),
        resized=lambda index: images[index],
    )


def answers(file, case, *, own_size=False):
    return run_file(file, case, case.own_size if own_size else case.resized, "file", lambda *_: None)


def aliased(value, side):
    """Scores that are right on images of the model's size, and too high on larger ones."""
    return value + (0.15 if side > 8 else 0.0)


def test_a_resize_without_antialias_is_found_with_its_verdicts():
    case, file = make_case(), File(aliased)
    finding = antialias(case, answers(file, case, own_size=True), answers(file, case), is_free=is_free_size(file))
    assert (finding.is_present, finding.num_verdicts) == (True, 2)
    assert "scores off by up to 0.15, 2 verdicts differ. Resized with antialias before the file: " in finding.evidence
    honest = File(lambda value, _: value)
    finding = antialias(case, answers(honest, case, own_size=True), answers(honest, case), is_free=True)
    assert (finding.is_present, finding.num_verdicts, finding.cure) == (False, 0, "")


def test_a_file_of_one_size_does_not_resize():
    file = File(aliased, shape=(None, 3, 8, 8))
    assert not is_free_size(file)
    case = make_case()
    finding = antialias(case, answers(file, case), answers(file, case), is_free=False)
    assert (finding.is_present, finding.num_verdicts) == (False, None)


def test_a_frozen_batch_is_found_and_every_image_given_so_often():
    case, file = make_case(), File(lambda value, _: value, shape=(2, 3, None, None))
    finding = frozen_batch(file, case)
    assert finding.is_present
    assert finding.evidence == "The file declares a batch of 2. Got 1, expected 2."
    np.testing.assert_allclose(answers(file, case).scores, REFERENCE, rtol=1e-6)
    assert file.batches[1:] == [2] * NUM
    assert not frozen_batch(File(aliased), case).is_present
    assert not frozen_batch(File(aliased, shape=(1, 3, None, None)), case).is_present


@pytest.mark.parametrize(("default", "is_present"), [("bfloat16", True), ("float32", False)])
def test_arithmetic_that_nobody_asked_for_is_found(monkeypatch, tmp_path, default, is_present):
    def open_file(path, *, compute_dtype):
        assert path == tmp_path
        chosen = "float32" if compute_dtype == "f32" else default
        return File(lambda value, _: value + (0.06 if chosen == "bfloat16" else 0.0), arithmetic=chosen)

    monkeypatch.setattr(causes, "OpenVinoFile", open_file)
    case = make_case()
    finding = arithmetic(tmp_path, case, case.resized, lambda *_: None)
    assert (finding.is_present, finding.num_verdicts) == (is_present, 1 if is_present else 0)
    assert default in finding.evidence


def test_a_tie_is_named():
    finding = ties(make_case(np.array([*REFERENCE[:4], 0.50005, *REFERENCE[5:]])))
    assert (finding.is_present, finding.num_verdicts) == (True, 1)
    assert finding.evidence.startswith("4.png: the score lies within 0.0001")
    assert not ties(make_case()).is_present


def test_raw_scores_are_found():
    case = make_case()
    finding = scale(case, answers(File(lambda value, _: 10.0 * value, label=lambda score: score > 5.0), case))
    assert (finding.is_present, finding.num_verdicts) == (True, 5)
    assert finding.cure == "0.5 is no threshold for them; the checkpoint's is 5."
    assert not scale(case, answers(File(lambda value, _: value), case)).is_present


def test_another_threshold_is_found_by_the_files_own_verdicts():
    case = make_case()
    finding = threshold(case, answers(File(lambda value, _: value, label=lambda score: score > 0.65), case))
    assert (finding.is_present, finding.num_verdicts) == (True, 1)
    assert "change between 0.6 and 0.7" in finding.evidence
    assert not threshold(case, answers(File(lambda value, _: value), case)).is_present
    finding = threshold(case, answers(File(lambda value, _: value, label=None), case))
    assert (finding.is_present, finding.num_verdicts) == (True, None)


def test_another_model_is_found_where_nothing_else_explains():
    case = make_case()
    finding = unexplained(case, answers(File(lambda value, _: 1.0 - value), case), is_raw=False)
    assert (finding.is_present, finding.num_verdicts) == (True, 10)
    assert "scores are off by up to 1 and 10 verdicts differ" in finding.evidence
    assert not unexplained(case, answers(File(lambda value, _: value), case), is_raw=False).is_present
    raw = answers(File(lambda value, _: 10.0 * value, label=lambda score: score > 5.0), case)
    assert not unexplained(case, raw, is_raw=True).is_present


def test_a_threshold_that_rejects_good_parts_is_found():
    finding = calibration(make_case(np.array([0.1, 0.55, 0.6, 0.4, 0.45, *REFERENCE[5:]])))
    assert (finding.is_present, finding.num_verdicts) == (True, 2)
    assert not calibration(make_case()).is_present


def test_a_file_without_scores_is_refused():
    class Other(File):
        def run(self, images):
            return {"output": np.zeros(len(images))}

    with pytest.raises(BadInputError, match="has no output pred_score; it has output"):
        answers(Other(aliased), make_case())


def make_diagnosis(differ):
    return Diagnosis(
        checkpoint="model.ckpt", exported="model.onnx", model="Padim", num_images=10, num_defective=5, rejected=(5, 7),
        good_rejected=(0, 2), differ=differ, score_error=0.15,
        findings=(
            Finding(cause="antialias", is_present=True, num_verdicts=2, evidence="Seen.", cure="Do that."),
            Finding(cause="batch", is_present=False, num_verdicts=None, evidence="Any number."),
        ),
        environment={},
    )  # fmt: skip


def test_the_diagnosis_in_words_and_as_a_check():
    diagnosis = make_diagnosis(("3.png", "4.png"))
    lines = diagnosis.summary_lines()
    assert lines[1].startswith("Called anomalous: 5 by the checkpoint's model as Engine.predict runs it, 7 by")
    assert lines[2] == "Verdicts differ on 2: 3.png, 4.png. Scores differ by up to 0.15 (of 1)."
    assert lines[3:] == ("antialias: found, 2 verdicts. Seen.", "    Do that.", "batch: not found. Any number.")
    with pytest.raises(ParityError, match=r"gives another verdict than model\.ckpt on 2 of 10 images\. Import"):
        diagnosis.check()
    make_diagnosis(()).check()
    assert diagnosis.to_dict()["findings"][0]["cause"] == "antialias"

"""What is here, in words."""

import dataclasses

import pytest

from lineproof.bundle.description import BundleDescription
from lineproof.bundle.manifest import DetectorRecord
from lineproof.commands._find import open_named
from lineproof.core.errors import BadInputError
from lineproof.eval.parity.proof import record_parity
from lineproof.eval.parity.verify import verify


def describe_bundle(path):
    return BundleDescription(open_named(path))


@pytest.mark.usefixtures("here")
def test_a_bundle_in_words_and_values(tiny_bundle, monkeypatch):
    text = "\n".join(describe_bundle(tiny_bundle.path).summary_lines())
    for words in (
        "tiny, fp32, made ", "no engine verified yet", "frames uint8 (N, 12, 16, 3), 1 to 8 at once, RGB",
        "antialiased resize to 12x16", "Output: score float32 (N)", "NG where score > threshold", "0 of 4 good parts",
        "model.onnx", "golden.npz", "Nodes: 4 float32",
    ):  # fmt: skip
        assert words in text, words
    plain = describe_bundle(tiny_bundle.path).to_dict()
    assert plain["name"] == "tiny"
    assert plain["threshold"]["num_good"] == 4
    with pytest.raises(BadInputError, match=r"no \*\.bundle"):
        describe_bundle(None)
    monkeypatch.chdir(tiny_bundle.path.parent)
    assert describe_bundle(None).bundle.manifest.name == "tiny"


@pytest.mark.parametrize(("size", "shown"), [([64, 192], "64x192"), (64, "64")])
def test_sizes_of_new_and_old_bundles_are_shown(tiny_bundle, size, shown):
    detector = DetectorRecord("padim", {"backbone": "resnet18", "resize_px": size, "crop_px": size})
    bundle = tiny_bundle.change(lambda manifest: dataclasses.replace(manifest, detector=detector))
    text = "\n".join(describe_bundle(bundle.path).summary_lines())
    assert f"Parameters: backbone resnet18, crop_px {shown}, resize_px {shown}." in text


def test_a_training_run_is_no_bundle_and_the_next_command_is_said(tmp_path):
    (tmp_path / "checkpoint.json").write_text('{"detector": {"name": "padim"}}')
    with pytest.raises(BadInputError, match=r"is a training run \(padim\), not a bundle; .*lineproof export "):
        describe_bundle(tmp_path)


def test_inspect_says_where_proof_json_does_not_show_the_proof(tiny_bundle):
    pytest.importorskip("onnxruntime")
    record_parity(tiny_bundle, verify(tiny_bundle, engine="ort-cpu"))
    proof = tiny_bundle.path / "proof.json"
    whole = proof.read_text()
    assert not [line for line in describe_bundle(tiny_bundle.path).summary_lines() if "proof.json" in line]
    for spoiled in (whole[:-40], "[]", "{}", whole.replace('"state": "passed"', '"state": "failed"')):
        proof.write_text(spoiled)
        lines = describe_bundle(tiny_bundle.path).summary_lines()
        assert "proof.json shows no such report for ort-cpu: it was removed, cut or edited." in lines
    proof.write_text(whole.replace('"state": "passed"', '"state": 5'))
    lines = describe_bundle(tiny_bundle.path).summary_lines()
    words = "proof.json: 0.state is 5, expected one of 'passed', 'failed', 'undecided'. The report does not count."
    assert words in lines

"""Export never destroys: what may go wrong is asked first, and an old bundle stays until the new one is proved."""

import dataclasses
import shutil
from collections import namedtuple

import pytest

from lineproof.bundle.place import bundle_records
from lineproof.bundle.store import MODEL, open_bundle
from lineproof.core.errors import BundleError, EnvironmentMissingError, ParityError
from lineproof.export.options import ExportOptions
from lineproof.runtime.engine import availability
from lineproof.sweep import chain as chain_module
from lineproof.sweep.chain import ExportRequest, export_and_prove


@pytest.fixture(scope="session")
def proved_once(trained, tmp_path_factory):
    """A bundle of the trained run that holds a proof; to be copied."""
    if not availability("ort-cpu").is_available:
        pytest.skip("ort-cpu is not installed")
    out = tmp_path_factory.mktemp("proved") / "a.bundle"
    proof = export_and_prove(ExportRequest(source=str(trained.run), out=out))
    assert proof.parity.passed
    return out


@pytest.fixture
def proved(proved_once, here, monkeypatch):
    """The same in an empty folder; exports take the graph that was traced for it."""
    ir = pytest.importorskip("onnx_ir")
    monkeypatch.setattr("lineproof.export.bundle.export_onnx", lambda *_args, **_options: ir.load(proved_once / MODEL))
    return shutil.copytree(proved_once, here / "a.bundle")


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def names(folder):
    return sorted(item.name for item in folder.iterdir())


def test_a_proved_bundle_is_not_replaced_unasked(trained, proved, monkeypatch):
    monkeypatch.setattr("lineproof.export.bundle.export_bundle", pytest.fail)
    before = contents(proved)
    with pytest.raises(BundleError, match=r"a\.bundle is a bundle that holds proofs.*--replace"):
        export_and_prove(ExportRequest(source=str(trained.run), out=proved))
    assert contents(proved) == before
    assert names(proved.parent) == ["a.bundle"]


@pytest.mark.parametrize("engine", ["trt", "trt-rtx"])
def test_what_cannot_be_built_here_is_asked_before_anything_is_done(trained, proved, monkeypatch, engine):
    """A missing TensorRT once cost a calibrated, proved bundle."""

    def missing(*_words):
        raise EnvironmentMissingError("no TensorRT")

    monkeypatch.setattr("lineproof.sweep.acceptance.check_build", missing)
    monkeypatch.setattr("lineproof.export.bundle.export_bundle", pytest.fail)
    monkeypatch.setattr(chain_module, "train_on_sample", pytest.fail)
    before = contents(proved)
    for request in (
        ExportRequest(source=str(trained.run), out=proved, engine=engine, is_replacing=True),
        ExportRequest(source="padim", is_sample=True, out=proved.with_name("b.bundle"), engine=engine),
        ExportRequest(source=str(proved), engine=engine),
    ):
        with pytest.raises(EnvironmentMissingError, match="no TensorRT"):
            export_and_prove(request)
    assert contents(proved) == before
    assert names(proved.parent) == ["a.bundle"]


def test_a_replaced_bundle_stays_until_the_new_one_is_proved(trained, proved, monkeypatch):
    before, real = contents(proved), chain_module.prove

    def watch(bundle, **options):
        assert contents(proved) == before
        assert bundle.path.name == "a.bundle.new-1"
        return real(bundle, **options)

    monkeypatch.setattr(chain_module, "prove", watch)
    options = ExportOptions(max_false_reject=0.4)
    proof = export_and_prove(ExportRequest(source=str(trained.run), out=proved, is_replacing=True), options=options)
    assert proof.bundle.path == proved
    assert names(proved.parent) == ["a.bundle"]
    assert open_bundle(proved).manifest == proof.bundle.manifest
    assert open_bundle(proved).manifest.threshold.max_false_reject == 0.4
    assert "It took the place of a bundle that held proofs." in proof.summary_lines()


@pytest.mark.parametrize("state", ["failed", "undecided"])
def test_a_new_bundle_that_fails_leaves_the_old_one(trained, proved, monkeypatch, state):
    before, real = contents(proved), chain_module.prove

    def fail(bundle, **options):
        proof = real(bundle, **options)
        return dataclasses.replace(proof, parity=dataclasses.replace(proof.parity, state=state))

    monkeypatch.setattr(chain_module, "prove", fail)
    proof = export_and_prove(ExportRequest(source=str(trained.run), out=proved, is_replacing=True))
    new = proved.with_name("a.bundle.new-1")
    assert proof.bundle.path == new
    assert contents(proved) == before
    assert open_bundle(new).manifest.created
    text = "\n".join(proof.summary_lines())
    assert f"The bundle at {proved} is as it was. The new one is kept at {new}; to use it all the same, move" in text
    with pytest.raises(ParityError):
        proof.check()


def test_an_unproved_bundle_keeps_the_old_one_beside_it(trained, proved):
    before = contents(proved)
    request = ExportRequest(source=str(trained.run), out=proved, is_replacing=True, is_verified=False)
    proof = export_and_prove(request)
    old = proved.with_name("a.bundle.old-1")
    assert contents(old) == before
    assert bundle_records(proved) == ()
    assert f"That one is kept at {old}, since the new one is not proved." in "\n".join(proof.summary_lines())
    export_and_prove(dataclasses.replace(request, is_verified=True, is_replacing=False))
    assert names(proved.parent) == ["a.bundle", "a.bundle.old-1"]
    assert contents(old) == before


def test_a_disk_that_is_too_small_is_asked_first(trained, here, monkeypatch):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr("shutil.disk_usage", lambda _path: usage(1000))
    with pytest.raises(BundleError, match="0 MB free; this needs at least"):
        export_and_prove(ExportRequest(source=str(trained.run), out=here / "a.bundle", is_verified=False))
    assert names(here) == []

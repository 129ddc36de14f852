"""Only a plan that was built for exactly this, and is unaltered, is loaded."""

import dataclasses
import hashlib

import pytest

from lineproof.bundle.manifest import PlanRecord
from lineproof.core.errors import BundleError, EnvironmentMissingError
from lineproof.host.nvidia import Gpu
from lineproof.runtime.plans import plan_key, read_plan, select_plan

L4 = Gpu(name="NVIDIA L4", sm="sm_89")
CONTENT = b"a plan"


def _record(bundle, **changes):
    record = PlanRecord(
        file="plans/one.plan",
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        num_bytes=len(CONTENT),
        engine="trt",
        engine_version="11.4.0",
        target=L4.target,
        precision="fp32",
        model_sha256=bundle.model_sha256,
        max_batch=8,
    )
    return dataclasses.replace(record, **changes)


def _select(bundle, record, gpu=L4):
    bundle = bundle.add_plan(CONTENT, record)
    return select_plan(bundle, plan_key(bundle, engine="trt", engine_version="11.4.0", gpu=gpu))


def test_a_plan_that_fits_is_found_and_read(tiny_bundle):
    record = _record(tiny_bundle)
    assert _select(tiny_bundle, record) == record
    assert read_plan(tiny_bundle, record) == CONTENT


def test_a_plan_built_ahead_of_time_fits_each_of_its_capabilities(tiny_bundle):
    record = _record(tiny_bundle, target="sm_86+sm_89")
    assert _select(tiny_bundle, record) == record
    with pytest.raises(EnvironmentMissingError, match=r"built for sm_86\+sm_89, here is NVIDIA X sm_8\b"):
        _select(tiny_bundle, record, gpu=Gpu(name="NVIDIA X", sm="sm_8"))


def test_of_two_that_fit_the_newest_is_taken(tiny_bundle):
    newer = _record(tiny_bundle, file="plans/two.plan", target="sm_89")
    bundle = tiny_bundle.add_plan(CONTENT, _record(tiny_bundle))
    assert _select(bundle, newer) == newer


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_sha256": "0" * 64}, r"stale: it was built from another model\.onnx"),
        ({"engine_version": "11.3.0"}, r"built with version 11\.3\.0, here is 11\.4\.0"),
        ({"target": "NVIDIA T4 sm_75"}, r"built for NVIDIA T4 sm_75, here is NVIDIA L4 sm_89"),
        ({"target": "NVIDIA L40 sm_89"}, r"built for NVIDIA L40 sm_89, here is NVIDIA L4 sm_89"),
        ({"precision": "fp16"}, r"built in fp16, the bundle is fp32"),
        ({"max_batch": 4}, r"takes 4 frames, the bundle 8"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused_with_the_reason_and_the_cure(tiny_bundle, changes, words):
    with pytest.raises(EnvironmentMissingError, match=rf"plans/one\.plan: {words}") as caught:
        _select(tiny_bundle, _record(tiny_bundle, **changes))
    assert f"lineproof export {tiny_bundle.path} --engine trt" in str(caught.value)
    assert caught.value.exit_status == 3


def test_no_plan_at_all_names_the_command(tiny_bundle):
    key = plan_key(tiny_bundle, engine="trt", engine_version="11.4.0", gpu=L4)
    with pytest.raises(
        EnvironmentMissingError, match=r"holds no plan for engine trt\. Build one here: lineproof export"
    ):
        select_plan(tiny_bundle, key)


def test_an_altered_plan_is_never_loaded(tiny_bundle):
    record = _record(tiny_bundle)
    bundle = tiny_bundle.add_plan(CONTENT, record)
    (bundle.path / record.file).write_bytes(b"A plan")
    with pytest.raises(BundleError, match=r"plans/one\.plan was altered.*executable code.*Build it again"):
        read_plan(bundle, record)
    (bundle.path / record.file).unlink()
    with pytest.raises(BundleError, match=r"plans/one\.plan is missing\. Build it again"):
        read_plan(bundle, record)


def test_a_plan_outside_the_bundle_is_never_read(tiny_bundle):
    (tiny_bundle.path.parent / "evil.plan").write_bytes(CONTENT)
    with pytest.raises(BundleError, match=r"'\.\./evil\.plan', outside the bundle; refused"):
        read_plan(tiny_bundle, _record(tiny_bundle, file="../evil.plan"))

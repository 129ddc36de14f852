"""The TensorRT plan that fits: only one that was built for this model, library version and GPU may be loaded."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from ..bundle.manifest import PlanRecord
from ..bundle.store import Bundle
from ..core.errors import BundleError, EnvironmentMissingError
from ..host.nvidia import Gpu


@dataclass(frozen=True, kw_only=True)
class PlanKey:
    """Properties that a plan must have been built for.

    Attributes:
        engine: ``trt`` or ``trt-rtx``.
        engine_version: version of that library here; a plan is bound to it to the last digit.
        gpu: the GPU here.
        precision: precision of the bundle's graph.
        model_sha256: SHA-256 digest of the bundle's model.
        max_batch: largest number of frames per call that the bundle takes.
    """

    engine: str
    engine_version: str
    gpu: Gpu
    precision: str
    model_sha256: str
    max_batch: int

    def objection(self, record: PlanRecord) -> str:
        """Reasons why a plan must not be loaded here, in words; "" where it may be."""
        objections = (
            (record.model_sha256 != self.model_sha256, "stale: it was built from another model.onnx"),
            (
                record.engine_version != self.engine_version,
                f"built with version {record.engine_version}, here is {self.engine_version}",
            ),
            (not _is_for(record.target, self.gpu), f"built for {record.target}, here is {self.gpu.target}"),
            (record.precision != self.precision, f"built in {record.precision}, the bundle is {self.precision}"),
            (record.max_batch < self.max_batch, f"takes {record.max_batch} frames, the bundle {self.max_batch}"),
        )
        return "; ".join(words for applies, words in objections if applies)


def _is_for(target: str, gpu: Gpu) -> bool:
    """Whether a plan's target is this GPU (``NVIDIA L4 sm_89``), or names its capability (``sm_86+sm_89``)."""
    return target == gpu.target or gpu.sm in target.split("+")


def plan_key(bundle: Bundle, *, engine: str, engine_version: str, gpu: Gpu) -> PlanKey:
    """Key of the plan that a bundle needs with this library version and GPU."""
    manifest = bundle.manifest
    return PlanKey(
        engine=engine,
        engine_version=engine_version,
        gpu=gpu,
        precision=manifest.precision,
        model_sha256=bundle.model_sha256,
        max_batch=manifest.max_batch,
    )


def select_plan(bundle: Bundle, key: PlanKey) -> PlanRecord:
    """The newest plan of a bundle that fits the key.

    Raises:
        EnvironmentMissingError: no plan fits; the message says why each was refused and how to build one.
    """
    build = f"Build one here: lineproof export {bundle.path} --engine {key.engine}"
    plans = [plan for plan in bundle.manifest.plans if plan.engine == key.engine]
    if not plans:
        raise EnvironmentMissingError(f"{bundle.path} holds no plan for engine {key.engine}. {build}")
    objections = {plan.file: key.objection(plan) for plan in plans}
    for plan in reversed(plans):
        if not objections[plan.file]:
            return plan
    seen = ". ".join(f"{file}: {words}" for file, words in objections.items())
    raise EnvironmentMissingError(
        f"{bundle.path} holds no plan for engine {key.engine} that fits here. {seen}. {build}"
    )


def read_plan(bundle: Bundle, record: PlanRecord) -> bytes:
    """Read a plan and check its hash first, since a plan is executable code.

    Raises:
        BundleError: the file is missing, lies outside the bundle, or has another hash than the manifest says.
    """
    path = bundle.path / record.file
    rebuild = f"Build it again: lineproof export {bundle.path} --engine {record.engine}"
    if not path.resolve().is_relative_to(bundle.path.resolve()):
        raise BundleError(f"{bundle.path}: the manifest names the plan {record.file!r}, outside the bundle; refused.")
    if not path.is_file():
        raise BundleError(f"{bundle.path}: the plan {record.file} is missing. {rebuild}")
    content = path.read_bytes()
    seen = hashlib.sha256(content).hexdigest()
    if seen != record.sha256:
        raise BundleError(
            f"{bundle.path}: the plan {record.file} was altered: its sha256 is {seen[:12]}…, the manifest says "
            f"{record.sha256[:12]}…. A plan is executable code, so it was not loaded. {rebuild}"
        )
    return content

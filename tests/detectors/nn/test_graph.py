"""Preprocessing in the graph equals torchvision's, in PyTorch and in both CPU engines."""

import io

import numpy as np
import pytest

torch = pytest.importorskip("torch")
functional = pytest.importorskip("torchvision.transforms.v2.functional")

from lineproof.core.spec import IMAGENET_MEAN, IMAGENET_STD, Preprocessing  # noqa: E402
from lineproof.data.decoding.decode import decode_image  # noqa: E402
from lineproof.detectors.nn.graph import Preprocess, SmoothUpsample  # noqa: E402

#: name -> frame height, width, channels; resize height, width; crop height, width
SIZES = {
    "integer even": (64, 96, 3, 16, 24, 16, 24),
    "integer odd": (63, 45, 3, 21, 15, 21, 15),
    "integer mixed": (48, 50, 3, 24, 10, 24, 10),
    "one axis": (32, 64, 3, 32, 16, 32, 16),
    "mono integer": (64, 64, 1, 32, 32, 32, 32),
    "not integer": (50, 70, 3, 32, 32, 32, 32),
    "mono not integer": (53, 41, 1, 17, 29, 17, 29),
    "up": (20, 24, 3, 32, 40, 32, 40),
    "up and down": (20, 70, 3, 32, 32, 32, 32),
    "crop": (64, 64, 3, 32, 32, 28, 28),
    "crop odd": (61, 47, 3, 33, 31, 28, 22),
    "crop only": (32, 32, 3, 32, 32, 24, 24),
    "same": (24, 40, 3, 24, 40, 24, 40),
    "mono same": (24, 24, 1, 24, 24, 24, 24),
    "one row of pixels": (1, 40, 3, 1, 20, 1, 20),
}
ATOL = 2e-5


def make_spec(sizes):
    return Preprocessing.of(sizes[:3], sizes[3:5], sizes[5:])


def torchvision_reference(frames, spec):
    """torchvision in float64: resize with antialias, centre crop, normalise."""
    images = torch.from_numpy(frames).permute(0, 3, 1, 2).double() / 255.0
    images = functional.resize(images, [spec.resize_height_px, spec.resize_width_px], antialias=True)
    images = functional.center_crop(images, [spec.crop_height_px, spec.crop_width_px])
    images = images.expand(-1, 3, -1, -1)
    return functional.normalize(images, list(spec.mean), list(spec.std)).numpy()


def noise_for(spec, seed=0):
    shape = (2, spec.frame_height_px, spec.frame_width_px, spec.frame_channels)
    frames = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    frames[1, : shape[1] // 2] = 255  # a hard edge, where a missing antialias shows most
    return frames


class All(torch.nn.Module):
    """Every preprocessing of the table beside each other, so that one export serves them all."""

    def __init__(self, specs):
        super().__init__()
        self.members = torch.nn.ModuleList(Preprocess(spec) for spec in specs)

    def forward(self, *frames):
        return tuple(member(item) for member, item in zip(self.members, frames, strict=True))


def to_onnx(specs):
    """ONNX bytes: inputs f0, f1, … and outputs i0, i1, …, one per specification."""
    pytest.importorskip("onnxscript")
    from lineproof.export.to_onnx import _quiet

    batch = torch.export.Dim("N", min=1, max=8)
    frames = tuple(torch.from_numpy(noise_for(spec)) for spec in specs)
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            All(specs).eval(),
            frames,
            dynamo=True,
            opset_version=18,
            input_names=[f"f{i}" for i in range(len(specs))],
            output_names=[f"i{i}" for i in range(len(specs))],
            dynamic_shapes=(tuple({0: batch} for _ in specs),),
            verbose=False,
        )
    content = io.BytesIO()
    program.save(content)
    return content.getvalue()


def run_ort(content, frames):
    ort = pytest.importorskip("onnxruntime")
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(None, {f"f{i}": item for i, item in enumerate(frames)})


def run_openvino(content, frames):
    openvino = pytest.importorskip("openvino")
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(content), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    answer = compiled({f"f{i}": item for i, item in enumerate(frames)})
    return [answer[f"i{i}"] for i in range(len(frames))]


@pytest.fixture(scope="module")
def exported():
    return to_onnx([make_spec(sizes) for sizes in SIZES.values()])


@pytest.mark.parametrize("name", SIZES)
def test_it_equals_torchvision_in_pytorch(name):
    spec = make_spec(SIZES[name])
    frames = noise_for(spec)
    got = Preprocess(spec)(torch.from_numpy(frames))
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got.numpy(), torchvision_reference(frames, spec), rtol=0, atol=ATOL)


@pytest.mark.parametrize("run", [run_ort, run_openvino])
def test_it_equals_torchvision_in_the_engines(run, exported):
    specs = [make_spec(sizes) for sizes in SIZES.values()]
    frames = [noise_for(spec, seed=1) for spec in specs]
    for name, spec, item, got in zip(SIZES, specs, frames, run(exported, frames), strict=True):
        np.testing.assert_allclose(got, torchvision_reference(item, spec), rtol=0, atol=ATOL, err_msg=name)


def test_integer_factors_are_one_convolution():
    assert [name for name, sizes in SIZES.items() if Preprocess(make_spec(sizes)).is_strided] == [
        "integer even", "integer odd", "integer mixed", "one axis", "mono integer", "same", "mono same",
        "one row of pixels",
    ]  # fmt: skip


def test_a_resize_without_antialias_is_told_apart():
    spec = make_spec(SIZES["integer even"])
    frames = noise_for(spec)
    images = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255.0
    size = (spec.resize_height_px, spec.resize_width_px)
    plain = torch.nn.functional.interpolate(images, size, mode="bilinear", align_corners=False)
    plain = functional.normalize(plain, list(IMAGENET_MEAN), list(IMAGENET_STD)).numpy()
    assert np.abs(plain - torchvision_reference(frames, spec)).max() > 0.1


@pytest.mark.realdata
@pytest.mark.parametrize(("resize", "crop", "channels"), [(256, 256, 3), (256, 224, 1), (200, 200, 3)])
def test_it_equals_torchvision_on_real_frames(resize, crop, channels, shared_data):
    paths = sorted((shared_data / "mvtec_ad" / "screw" / "train" / "good").glob("*.png"))[:2]
    frames = np.stack([decode_image(path, channels=channels) for path in paths])
    height, width = frames.shape[1:3]
    spec = Preprocessing.of((height, width, channels), (resize, resize), (crop, crop))
    want = torchvision_reference(frames, spec)
    np.testing.assert_allclose(Preprocess(spec)(torch.from_numpy(frames)).numpy(), want, rtol=0, atol=ATOL)
    content = to_onnx([spec])
    for run in (run_ort, run_openvino):
        np.testing.assert_allclose(run(content, [frames])[0], want, rtol=0, atol=ATOL)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("sigma", [0.0, 1.5, 4.0])
def test_smooth_upsample_equals_interpolation_and_a_gaussian(sigma, align_corners):
    ndimage = pytest.importorskip("scipy.ndimage")
    scores = torch.rand(2, 3, 7, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    want = torch.nn.functional.interpolate(scores, (56, 84), mode="bilinear", align_corners=align_corners).numpy()
    if sigma:
        want = ndimage.gaussian_filter(want, sigma, axes=(2, 3), mode="reflect", truncate=4.0)
    got = SmoothUpsample((7, 12), (56, 84), sigma=sigma, align_corners=align_corners)(scores.float())
    np.testing.assert_allclose(got.numpy(), want, rtol=0, atol=1e-6)

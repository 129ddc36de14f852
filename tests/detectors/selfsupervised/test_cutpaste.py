import colorsys

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx_ir")

from safetensors.torch import load_file  # noqa: E402

from lineproof.bundle.runs.folder import CHECKPOINT  # noqa: E402
from lineproof.core.errors import UsageError  # noqa: E402
from lineproof.core.spec import Preprocessing  # noqa: E402
from lineproof.data.dataset import open_dataset  # noqa: E402
from lineproof.detectors.nn.graph import FrameGraph  # noqa: E402
from lineproof.detectors.selfsupervised.cutpaste import CutPaste, CutPasteConfig  # noqa: E402
from lineproof.detectors.selfsupervised.cutpaste_density import (  # noqa: E402
    Gaussian,
    ReceptiveFieldUpsample,
    patch_kernel,
)
from lineproof.detectors.selfsupervised.cutpaste_draws import (  # noqa: E402
    DrawRule,
    cut_and_paste,
    jittered,
    paste_scar,
    translated,
)
from lineproof.detectors.selfsupervised.cutpaste_networks import (  # noqa: E402
    BackboneStem,
    OwnStem,
    PatchNetwork,
    Pretext,
)
from lineproof.detectors.training.train import train  # noqa: E402
from lineproof.export.bundle import save_model  # noqa: E402
from lineproof.export.passes.fp16 import to_half  # noqa: E402
from lineproof.export.to_onnx import export_onnx  # noqa: E402

TINY = {
    "backbone": "resnet18",
    "resize_px": (64, 96),
    "crop_px": (64, 96),
    "patch_px": 32,
    "patch_width": 2,
    "steps_per_epoch": 2,
    "epochs": 2,
    "batch_size": 2,
}
BLACK_WHITE = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def gradient_image(height, width):
    """Every pixel has a colour of its own, so that a pasted one tells where it came from."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([rows / 255.0, columns / 255.0, torch.full((height, width), 0.5)])


def settled(network):
    """Batch normalisations that are not the identity, as after a training."""
    generator = seeded(1)
    for item in network.modules():
        if isinstance(item, torch.nn.BatchNorm2d):
            item.running_mean.copy_(0.2 * torch.randn(item.num_features, generator=generator))
            item.running_var.copy_(0.5 + torch.rand(item.num_features, generator=generator))
    return network.eval()


@pytest.mark.parametrize(
    ("stem", "patch_px"),
    [
        ("own", 16),
        ("own", 32),
        ("own", 64),
        ("tf_efficientnet_lite0", 32),
        ("tf_efficientnet_lite0", 64),
        ("resnet18", 64),
    ],
)
def test_one_pass_gives_the_embedding_of_every_patch(stem, patch_px):
    torch.manual_seed(0)
    network = settled(
        PatchNetwork(OwnStem(4, patch_px) if stem == "own" else BackboneStem(stem, "random", patch_px), width=4)
    )
    image = torch.randn(1, 3, patch_px + 12, patch_px + 20)
    with torch.inference_mode():
        at_once = network(image)[0]
        assert at_once.shape == (32, 4, 6)
        for row in range(4):
            for column in range(6):
                top, left = 4 * row, 4 * column
                patch = image[:, :, top : top + patch_px, left : left + patch_px]
                alone = network(patch)
                assert alone.shape == (1, 32, 1, 1)
                atol = 1e-5 * float(at_once.abs().max())
                np.testing.assert_allclose(alone.flatten(), at_once[:, row, column], rtol=0, atol=atol)


def test_a_stem_that_padding_reaches_everywhere_is_refused():
    with pytest.raises(UsageError, match="of a patch of 32 px, resnet18 leaves 0 positions a side at stride 4"):
        BackboneStem("resnet18", "random", 32)


def test_a_stem_that_sees_the_whole_image_is_refused():
    """Squeeze-and-excitation blocks take a mean over everything: no crop makes patches independent."""
    with pytest.raises(UsageError, match="efficientnet_b0 leaves 0 positions"):
        BackboneStem("efficientnet_b0", "random", 64)


@pytest.mark.parametrize(("patch_px", "num_patches"), [(32, 57), (64, 49)])
def test_patch_scores_are_spread_as_fcdd_does(patch_px, num_patches):
    """Against the definition: a transposed convolution of stride 4 with SciPy's Gaussian."""
    windows = pytest.importorskip("scipy.signal.windows")
    taps = windows.gaussian(patch_px - 1, std=10.0)
    taps = np.insert(taps, (patch_px - 1) // 2, 1.0) / 2.0
    np.testing.assert_allclose(patch_kernel(patch_px), taps, rtol=1e-12)
    scores = torch.rand(2, num_patches, num_patches, generator=seeded())
    kernel = torch.from_numpy(np.outer(taps, taps)).float()[None, None]
    wanted = torch.nn.functional.conv_transpose2d(scores[:, None], kernel, stride=4)[:, 0]
    assert wanted.shape[1:] == (256, 256)
    upsample = ReceptiveFieldUpsample((256, 256), patch_px, stride=4, is_even=False)
    np.testing.assert_allclose(upsample(scores), wanted, rtol=1e-5, atol=1e-6)


def test_small_patches_have_a_narrow_kernel():
    sigma = np.log10(0.45 * 16 + 1.0) + 0.25
    kernel = patch_kernel(16)
    assert len(kernel) == 16
    np.testing.assert_allclose(kernel, kernel[::-1])
    np.testing.assert_allclose(kernel[7:11], 0.5 * np.exp(-0.5 * (np.array([0, 0, 1, 2]) / sigma) ** 2))
    assert len(patch_kernel(15)) == 15
    assert patch_kernel(15)[7] == 1.0


def test_even_borders_leave_a_flat_map_flat():
    flat = torch.full((1, 9, 17), 3.0)
    even, plain = (ReceptiveFieldUpsample((64, 96), 32, stride=4, is_even=item) for item in (True, False))
    np.testing.assert_allclose(even(flat), np.full((1, 64, 96), 3.0), rtol=1e-5)
    assert float(plain(flat)[0, 0, 0]) < 0.2 * float(plain(flat)[0, 32, 48])


@pytest.mark.parametrize("num_groups", [1, 6])
def test_density_is_half_the_squared_mahalanobis_distance_of_unit_vectors(num_groups):
    spatial = pytest.importorskip("scipy.spatial.distance")
    generator = np.random.default_rng(0)
    vectors = generator.normal(1.0, 0.5, (num_groups, 40, 5))
    seen = generator.normal(1.0, 0.5, (2, 5, 2, 3))
    gaussian = Gaussian(5)
    gaussian.learn(torch.from_numpy(vectors).float(), regularisation=0.01, progress=lambda *_: None)
    got = gaussian(torch.from_numpy(seen).float()).numpy()
    unit = vectors / np.linalg.norm(vectors, axis=2, keepdims=True)
    for image in range(2):
        for position in range(6):
            row, column = divmod(position, 3)
            group = unit[position if num_groups > 1 else 0]
            precision = np.linalg.inv(np.cov(group.T) + 0.01 * np.eye(5))
            vector = seen[image, :, row, column] / np.linalg.norm(seen[image, :, row, column])
            wanted = 0.5 * spatial.mahalanobis(vector, group.mean(0), precision) ** 2
            np.testing.assert_allclose(got[image, row, column], wanted, rtol=1e-4)


def test_fewer_embeddings_than_dimensions_are_shrunk_after_ledoit_and_wolf():
    covariance = pytest.importorskip("sklearn.covariance")
    vectors = np.random.default_rng(0).normal(1.0, 0.5, (8, 20))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    gaussian = Gaussian(20)
    gaussian.learn(torch.from_numpy(vectors).float()[None], regularisation=0.0, progress=lambda *_: None)
    factor = gaussian.factor[0].double().numpy()
    wanted = np.linalg.inv(covariance.LedoitWolf().fit(unit).covariance_)
    np.testing.assert_allclose(factor.T @ factor, wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max())


def test_a_rectangle_of_the_image_is_pasted_elsewhere():
    image = gradient_image(100, 120)
    shares = []
    for seed in range(60):
        pasted = cut_and_paste(image, 0.0, seeded(seed))
        changed = (pasted != image).any(0)
        if not changed.any():
            continue
        rows, columns = np.nonzero(changed.numpy())
        top, left = rows.min(), columns.min()
        height, width = rows.max() - top + 1, columns.max() - left + 1
        assert changed[top : top + height, left : left + width].all(), "a rectangle, moved by more than nothing"
        source = (pasted[:2, top, left] * 255.0).round().int().tolist()
        cut = image[:, source[0] : source[0] + height, source[1] : source[1] + width]
        np.testing.assert_array_equal(pasted[:, top : top + height, left : left + width], cut)
        shares.append(height * width / (100 * 120))
        assert 0.28 < height / width < 3.6
    assert len(shares) > 50
    assert min(shares) > 0.018
    assert 0.12 < max(shares) < 0.155


def test_a_scar_is_thin_and_turned():
    image = gradient_image(100, 120)
    turned = 0
    for seed in range(40):
        changed = (paste_scar(image, 0.0, seeded(seed)) != image).any(0).numpy()
        assert 1 <= changed.sum() <= 16 * 25 * 1.2
        rows, columns = np.nonzero(changed)
        box = (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
        turned += changed.sum() < 0.85 * box
    assert turned > 20


def test_scars_fit_views_that_are_smaller():
    for seed in range(20):
        assert paste_scar(gradient_image(16, 16), 0.1, seeded(seed)).shape == (3, 16, 16)


def test_a_shift_shows_the_mirrored_border():
    image = gradient_image(20, 30)
    shifts = set()
    for seed in range(30):
        moved = translated(image, 0.1, seeded(seed))
        assert moved.shape == image.shape
        middle = (moved[:2, 10, 15] * 255.0).round().int().tolist()
        shifts.add((middle[0] - 10, middle[1] - 15))
        assert moved.max() <= image.max()
    assert {abs(row) for row, _ in shifts} == {0, 1, 2}
    assert {abs(column) for _, column in shifts} == {0, 1, 2, 3}
    np.testing.assert_array_equal(translated(image, 0.0, seeded()), image)


def test_jitter_stays_within_its_strength():
    grey = torch.full((3, 4, 4), 0.5)
    values = [float(jittered(grey, 0.1, seeded(seed))[0, 0, 0]) for seed in range(40)]
    assert min(values) >= 0.45 - 1e-5
    assert max(values) <= 0.55 + 1e-5
    assert np.ptp(values) > 0.06
    red = torch.tensor([0.8, 0.2, 0.2])[:, None, None].expand(3, 4, 4)
    hues = [colorsys.rgb_to_hsv(*jittered(red, 0.1, seeded(seed))[:, 0, 0].tolist())[0] for seed in range(40)]
    turns = [(hue + 0.5) % 1.0 - 0.5 for hue in hues]
    assert max(np.abs(turns)) <= 0.1 + 1e-3
    assert min(turns) < -0.05
    assert max(turns) > 0.05


@pytest.mark.parametrize(("variant", "num_kinds"), [("3way", 3), ("cutpaste", 2), ("scar", 2)])
def test_kinds_of_a_view_differ_by_what_was_pasted(variant, num_kinds):
    rule = DrawRule(variant=variant, view_px=(48, 40), jitter=0.0, translation=0.0, **BLACK_WHITE)
    images = gradient_image(64, 64)[None].repeat(3, 1, 1, 1)
    views, labels = rule.draw(images, seeded())
    assert views.shape == (3 * num_kinds, 3, 48, 40)
    assert labels.tolist() == [kind for kind in range(num_kinds) for _ in range(3)]
    for kind in range(1, num_kinds):
        shares = (views[3 * kind : 3 * kind + 3] != views[:3]).any(1).float().mean((1, 2))
        assert (shares < 0.3).all()
        assert (shares > 0.0).any()


def test_draws_depend_on_the_generator_alone_and_keep_the_normalisation():
    normalisation = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.25)}
    rule = DrawRule(variant="3way", view_px=(32, 32), jitter=0.1, translation=0.1, **normalisation)
    images = torch.rand(2, 3, 64, 64, generator=seeded())
    mean, std = (torch.tensor(item)[:, None, None] for item in normalisation.values())
    normalised = (images - mean) / std
    first, again, other = (rule.draw(normalised, seeded(seed))[0] for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert not torch.equal(first, other)
    pixels = first * std + mean
    assert float(pixels.min()) >= -1e-5
    assert float(pixels.max()) <= 1.0 + 1e-5


def test_networks_have_their_size():
    with torch.device("meta"):
        network = PatchNetwork(OwnStem(64, 64), 64)
        pretext = Pretext(network, dim=512, num_kinds=3, depth=1)
    assert network.dim == 512
    # Weights 3072 + 73728 + 147456 + 294912 + 589824 + 1179648, batch normalisations 2688.
    assert sum(item.numel() for item in network.parameters()) == 2_291_328
    assert pretext(torch.zeros(2, 3, 64, 64, device="meta")).shape == (2, 3)
    detector = CutPaste(CutPasteConfig())
    # ResNet-18 without its classifier has 11,176,512.
    assert detector.extra_parameters() == 11_176_512 + 2_291_328
    assert detector.backbone_parameters() == []


def test_both_networks_are_trained_and_resumed_from_one_run(sample_folder, tmp_path):
    config = CutPasteConfig(**TINY)
    dataset = open_dataset(sample_folder, category="flange")
    record = train("cutpaste", config, dataset=dataset, run=tmp_path / "run")
    assert record.fit["num_patches"] == 9 * 17
    assert record.fit["image network"]["epochs"] == record.fit["patch network"]["epochs"] == 2
    assert record.fit["image network"]["keeps"] == "last"

    class KilledError(Exception):
        pass

    def kill(stage, done, *_):
        if stage == "image network" and done == 3:
            raise KilledError

    with pytest.raises(KilledError):
        train("cutpaste", config, dataset=dataset, run=tmp_path / "broken", progress=kill)
    stages = []
    train("cutpaste", config, dataset=dataset, run=tmp_path / "broken", progress=lambda *now: stages.append(now[0]))
    assert "patch network" not in stages
    whole, broken = (load_file(tmp_path / name / CHECKPOINT) for name in ("run", "broken"))
    for name, value in whole.items():
        np.testing.assert_array_equal(broken[name].numpy(), value.numpy(), err_msg=name)


def fitted(**settings):
    """A detector with random networks and densities of random images, without a training."""
    torch.manual_seed(0)
    detector = CutPaste(CutPasteConfig(**TINY | settings)).eval()
    images = torch.randn(6, 3, 64, 96)
    with torch.no_grad():
        patches, *embedded = detector._embed(images)
    is_one = detector.config.density == "one"
    groups = patches.flatten(0, 1)[None] if is_one else patches.transpose(0, 1)
    detector.patch_density.learn(groups, regularisation=0.01, progress=lambda *_: None)
    if embedded:
        detector.image_density.learn(embedded[0][None], regularisation=0.01, progress=lambda *_: None)
    return detector


@pytest.mark.parametrize("density", ["one", "position"])
@pytest.mark.parametrize("image_score", ["image", "patches"])
def test_score_and_map_are_those_of_the_two_models(density, image_score):
    detector = fitted(density=density, image_score=image_score)
    images = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        for module in (detector, detector.lower().eval()):
            score, anomaly_map = module(images)
            scores = detector.patch_density(detector.patch_network(images))
            np.testing.assert_allclose(anomaly_map, detector.upsample(scores), rtol=1e-4, atol=1e-5)
            if image_score == "patches":
                assert detector.image_network is None
                np.testing.assert_allclose(score, scores.amax((1, 2)), rtol=1e-4)
            else:
                (maps,) = detector.image_network(images)
                wanted = detector.image_density(maps.mean((2, 3))[:, :, None, None]).flatten()
                np.testing.assert_allclose(score, wanted, rtol=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patch_px": 40}, "patch_px is 40; expected a multiple of 16"),
        ({"crop_px": (64, 90)}, "crop_px is 64x90; expected sides of at least patch_px"),
        ({"crop_px": (24, 96)}, "crop_px is 24x96; expected sides of at least patch_px"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        CutPaste(CutPasteConfig(**TINY | settings))


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_papers_two_networks_are_one_graph(tmp_path, precision):
    """The contract's fits have a patch network alone."""
    runtime = pytest.importorskip("onnxruntime")
    detector = fitted()
    spec = Preprocessing.of((96, 144, 3), (64, 96), (64, 96), normalisation=detector.normalisation)
    model = export_onnx(detector, spec, max_batch=4)
    if precision == "fp16":
        to_half(model, detector.half_scopes)
    save_model(model, tmp_path)
    frames = np.random.default_rng(0).integers(0, 256, (3, 96, 144, 3), dtype=np.uint8)
    with torch.inference_mode():
        wanted = FrameGraph(spec, detector).eval()(torch.from_numpy(frames))
    session = runtime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    got = session.run(["score", "anomaly_map"], {"frames": frames})
    for value, want in zip(got, wanted, strict=True):
        np.testing.assert_allclose(value, want, rtol={"fp32": 1e-3, "fp16": 3e-2}[precision], atol=1e-3)

"""Glance against slow forms of its parts, patch by patch, and what it refuses."""

import math

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

from safetensors.torch import load_file  # noqa: E402

from lineproof.bundle.runs.folder import CHECKPOINT  # noqa: E402
from lineproof.core.errors import BadInputError, UsageError  # noqa: E402
from lineproof.core.registry import resolve  # noqa: E402
from lineproof.core.spec import IMAGENET_MEAN, IMAGENET_STD  # noqa: E402
from lineproof.detectors.base import DETECTORS, FitContext, build_detector, make_config  # noqa: E402
from lineproof.detectors.reconstruction.glance import _Distillation, compactness, patch_scores  # noqa: E402
from lineproof.detectors.reconstruction.glance_batches import draw_positions, stain  # noqa: E402
from lineproof.detectors.reconstruction.glance_map import make_interpolation  # noqa: E402
from lineproof.detectors.reconstruction.glance_networks import (  # noqa: E402
    PATCH_PX,
    PartialConv,
    PatchGrid,
    cut,
    seen_around,
)
from lineproof.detectors.training.images import image_files  # noqa: E402
from lineproof.detectors.training.train import image_set, train  # noqa: E402

SMALL = {"weights": "none", "local_width": 8, "global_width": 4, "embedding_size": 16}


def glance(size=128, **settings):
    """An untrained detector with biases, which the initialisation leaves at zero."""
    torch.manual_seed(0)
    detector = build_detector("glance", make_config("glance", SMALL | {"resize_px": size, "crop_px": size} | settings))
    for name, parameter in detector.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, 0.0, 0.3)
    return detector


def noise(size, count=2):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def partial_conv_by_hand(maps, seen, conv):
    """Partial convolution of float64 (C, h, w), window by window."""
    weight, bias = conv.weight.detach().double().numpy(), conv.bias.detach().double().numpy()
    kernel, stride = conv.kernel_size[0], conv.stride[0]
    side = (maps.shape[1] - kernel) // stride + 1
    out, seen_after = np.zeros((len(weight), side, side)), np.zeros((side, side))
    for y in range(side):
        for x in range(side):
            window = np.s_[y * stride : y * stride + kernel, x * stride : x * stride + kernel]
            if seen[window].sum() > 0:
                values = maps[(slice(None), *window)] * seen[window]
                out[:, y, x] = (weight * values).sum((1, 2, 3)) * kernel**2 / seen[window].sum() + bias
                seen_after[y, x] = 1
    return out, seen_after


def pool_by_hand(maps):
    side = (maps.shape[-1] - 3) // 2 + 1
    at = [[maps[..., 2 * y : 2 * y + 3, 2 * x : 2 * x + 3].max((-2, -1)) for x in range(side)] for y in range(side)]
    return np.moveaxis(np.array(at), (0, 1), (-2, -1))


def global_net_by_hand(network, image, top, left):
    """Global-Net's prediction of one patch of one image, in float64."""
    slope = network.activation.negative_slope
    seen = np.ones(image.shape[1:])
    seen[top : top + PATCH_PX, left : left + PATCH_PX] = 0
    maps = image.double().numpy()
    for number, item in enumerate(network.convs):
        maps, seen = partial_conv_by_hand(maps, seen, item.conv)
        maps = np.where(maps > 0, maps, slope * maps)
        if number == 0:
            maps, seen = pool_by_hand(maps), pool_by_hand(seen)
    return partial_conv_by_hand(maps, seen, network.last.conv)[0][:, 0, 0]


def test_a_partial_convolution_worked_out_by_hand():
    conv = PartialConv(1, 1, 2)
    with torch.no_grad():
        conv.conv.weight.copy_(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]))
        conv.conv.bias.fill_(10.0)
    maps = torch.tensor([[[[1.0, 1.0, 7.0], [1.0, 7.0, 7.0]]]])
    seen = torch.tensor([[[[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]]]])
    out, seen_after = conv(maps, seen)
    # Left: (1 + 2 + 3) · 4/3 + 10. Right: one of four is seen, 1 · 4 + 10.
    np.testing.assert_allclose(out.detach().numpy(), [[[[18.0, 14.0]]]], rtol=1e-6)
    hidden, hidden_after = conv(maps, torch.zeros_like(seen))
    np.testing.assert_array_equal(seen_after.numpy(), [[[[1.0, 1.0]]]])
    np.testing.assert_array_equal(hidden.detach().numpy(), 0.0)
    np.testing.assert_array_equal(hidden_after.numpy(), 0.0)


@pytest.mark.parametrize(("size", "step"), [(64, 12), (96, 8), (100, 4)])
def test_the_dense_form_is_patch_by_patch(size, step):
    """Every embedding of the lowered form against one patch, or one masked image, at a time."""
    detector = glance(size, step_px=step)
    image = noise(size, 1)
    with torch.inference_mode():
        local, surroundings = detector.lower().eval().backbone(image)
        positions = list(detector.grid.positions())
        patches = cut(image.expand(len(positions), -1, -1, -1), torch.tensor(positions))
        alone = torch.cat([detector.local(patch[None]) for patch in patches]).flatten(1)
    np.testing.assert_allclose(local[0].flatten(1).T.numpy(), alone.numpy(), rtol=0, atol=1e-5 * alone.abs().max())
    got = surroundings[0].flatten(1).T.numpy()
    for number in {0, 1, detector.grid.num, len(positions) // 2, len(positions) - 1}:
        want = global_net_by_hand(detector.surroundings, image[0], *positions[number])
        np.testing.assert_allclose(got[number], want, rtol=0, atol=1e-5 * np.abs(want).max())


@pytest.mark.parametrize("size", [64, 96, 128, 160])
@pytest.mark.parametrize("step", [4, 8, 12, 20])
def test_windows_are_the_masked_images(size, step):
    """At every alignment of patches to the strides, and at borders."""
    detector = glance(size, step_px=step)
    with torch.inference_mode():
        for value, wanted in zip(detector.lower().eval()(noise(size)), detector(noise(size)), strict=True):
            np.testing.assert_allclose(value.numpy(), wanted.numpy(), rtol=0, atol=1e-5 * wanted.abs().max())


def test_a_prediction_does_not_see_its_patch():
    detector = glance()
    low = detector.lower().eval()
    images = noise(128, 1)
    row, column = 3, 5
    top, left = detector.grid.starts[row], detector.grid.starts[column]
    changed = images.clone()
    changed[:, :, top : top + PATCH_PX, left : left + PATCH_PX] += 5.0
    with torch.inference_mode():
        for networks in (detector.embeddings, low.backbone):
            (local, before), (local_after, after) = networks(images), networks(changed)
            np.testing.assert_array_equal(after[..., row, column].numpy(), before[..., row, column].numpy())
            assert (after - before).abs().amax(1).flatten().topk(2).values[1] > 1e-3
            assert (local_after - local)[..., row, column].abs().max() > 1e-3


def test_the_papers_sizes():
    detector = build_detector("glance", make_config("glance", {"weights": "none"}))
    assert detector.grid.num == 19
    assert detector.grid.starts[0] == 3
    assert detector.grid.starts[-1] == 219
    assert tuple(detector.surroundings.last.conv.weight.shape) == (128, 128, 3, 3)
    networks = (detector.local, detector.surroundings, detector.distortion)
    parts = [sum(item.numel() for item in network.parameters()) for network in networks]
    assert parts == [1_609_856, 440_704, 33_025]
    assert detector.extra_parameters() == 2_083_585
    assert not detector.backbone_parameters()


@pytest.mark.parametrize(
    ("size", "step", "starts"), [(64, 12, [3, 15, 27]), (33, 4, [0]), (45, 12, [0, 12]), (46, 4, [0, 4, 8, 12])]
)
def test_patches_lie_in_the_middle(size, step, starts):
    grid = PatchGrid(size, step)
    assert list(grid.starts) == starts
    assert grid.num == len(starts)
    assert list(grid.positions())[-1] == (starts[-1], starts[-1])
    assert grid.covered(torch.zeros(1, 3, size, size)).shape[-1] == grid.span_px == starts[-1] - starts[0] + PATCH_PX


def test_scores_worked_out_by_hand():
    local, surroundings = torch.tensor([[[[1.0]], [[3.0]]]]), torch.tensor([[[[0.0]], [[1.0]]]])

    def stained(*_):
        return torch.full((1, 1, 1), math.log(3.0))

    # ((1 - 0)² + (3 - 1)²) / 2 = 2.5; probability of a stain 3 / 4.
    got = patch_scores(local, surroundings, stained, share=0.8)
    np.testing.assert_allclose(got.numpy(), [[[0.8 * 2.5 + 0.2 * 0.75]]], rtol=1e-6)


def test_compactness_sums_numpys_correlations():
    embeddings = np.random.default_rng(0).normal(size=(20, 5)) @ np.random.default_rng(1).normal(size=(5, 5))
    correlations = np.corrcoef(embeddings, rowvar=False)
    got = compactness(torch.from_numpy(embeddings))
    np.testing.assert_allclose(float(got), correlations.sum() - np.trace(correlations), rtol=1e-9)


def test_the_loss_is_that_of_its_parts():
    """Inconsistency, and cross-entropy of good patches against stained ones, in NumPy."""
    detector = glance(64, distortion_weight=0.5)
    images, positions = noise(64, 3), torch.tensor([[0, 31], [7, 7], [31, 2]])
    patches = cut(images, positions)
    stained = patches.flip(2)
    with torch.inference_mode():
        predicted = detector.surroundings(images, seen_around(positions, 64))
        good, bad = detector.local(patches), detector.local(stained)
        logits = [detector.distortion(item, predicted).double().numpy().ravel() for item in (good, bad)]
        got = float(detector.loss(images, positions, patches, stained))
    inconsistency = np.mean((predicted - good).double().numpy() ** 2)
    distortion = np.concatenate([np.log1p(np.exp(logits[0])), np.log1p(np.exp(-logits[1]))]).mean()
    np.testing.assert_allclose(got, inconsistency + 0.5 * distortion, rtol=1e-5)


def test_local_net_stays_as_it_was_distilled():
    detector = glance(64)
    images, positions = noise(64), torch.tensor([[0, 31], [7, 7]])
    patches = cut(images, positions)
    detector.loss(images, positions, patches, patches.flip(2)).backward()
    assert all(item.grad is None for item in detector.local.parameters())
    assert all(item.grad is not None for item in detector.surroundings.parameters())
    assert all(item.grad is not None for item in detector.distortion.parameters())


def test_local_net_sees_stains_on_a_share_of_the_patches(dataset):
    detector = glance(64, weights="random", local_patches=50, teacher_px=32)
    images = image_set(detector, [sample.path for sample in dataset.train[:4]])
    distillation = _Distillation(detector, FitContext())
    clean, some, all_of_them = (distillation.patches(images, stage="patches", share=share) for share in (0.0, 0.3, 1.0))
    changed = [(patches != clean[0]).flatten(1).any(1).float().mean().item() for patches, _ in (some, all_of_them)]
    # Four standard deviations of a share of 200 patches; few stains lie outside of their patch.
    assert abs(changed[0] - 0.3) < 0.13
    assert changed[1] > 0.97
    with torch.no_grad():
        torch.testing.assert_close(some[1], distillation.teacher(some[0]), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_general_images_come_first(dataset, tmp_path):
    """Both distillations and the training are told apart, on disk too; the teacher is not kept."""
    textures = tmp_path / "textures"
    textures.mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (80, 90, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(textures / f"{number}.png")
    settings = resolve(DETECTORS, "glance", kind="detector").quick_settings() | {
        "resize_px": 64, "crop_px": 64, "local_patches": 4, "epochs": 1, "local_epochs": 1,
        "distillation_epochs": 2, "distillation_source": str(textures),
    }  # fmt: skip
    record = train("glance", make_config("glance", settings), dataset=dataset, run=tmp_path / "run")
    assert record.fit["distillation"]["epochs"] == 2
    assert record.fit["local"]["epochs"] == record.fit["epochs"] == 1
    kept = load_file(tmp_path / "run" / CHECKPOINT)
    assert {name.partition(".")[0] for name in kept} == {"local", "surroundings", "distortion", "interpolate"}


@pytest.mark.parametrize(("size", "step"), [(64, 12), (70, 8)])
def test_inverse_distances_are_those_of_every_pixel(size, step):
    grid = PatchGrid(size, step)
    scores = np.random.default_rng(0).random((grid.num, grid.num))
    rows = np.arange(size)
    centres = np.array(grid.starts) + 16
    distances = np.hypot((rows[:, None] - centres)[:, None, :, None], (rows[:, None] - centres)[None, :, None, :])
    weights = np.maximum(distances, 0.5) ** -5.0
    want = (weights * scores).sum((2, 3)) / weights.sum((2, 3))
    got = make_interpolation(grid, "inverse_distance", power=5.0)(torch.from_numpy(scores).float()[None])[0]
    np.testing.assert_allclose(got.numpy(), want, rtol=0, atol=1e-5)


def test_bilinear_between_centres_and_flat_beyond():
    grid = PatchGrid(64, 12)
    scores = torch.tensor([[[0.0, 12.0, 24.0]] * 3])
    got = make_interpolation(grid, "bilinear", power=5.0)(scores)[0, 20].numpy()
    np.testing.assert_allclose(got, np.clip(np.arange(64) - 19.0, 0.0, 24.0), atol=1e-5)


def test_stains_stay_among_the_pixels_and_vary():
    mean, std = (torch.tensor(item)[:, None, None] for item in (IMAGENET_MEAN, IMAGENET_STD))
    black, white = -mean / std, (1.0 - mean) / std
    patches = (torch.rand(200, 3, PATCH_PX, PATCH_PX) - mean) / std
    first, again = (
        stain(patches, black=black, white=white, generator=torch.Generator().manual_seed(seed)) for seed in (3, 3)
    )
    np.testing.assert_array_equal(first.numpy(), again.numpy())
    assert (first >= black - 1e-6).all()
    assert (first <= white + 1e-6).all()
    changed = (first != patches).any(1).float().mean((1, 2))
    assert (changed > 0.0).float().mean() > 0.98
    assert (changed < 0.9).float().mean() > 0.95
    assert changed.std() > 0.05


def test_positions_reach_every_border():
    positions = draw_positions(4000, 48, generator=torch.Generator().manual_seed(0))
    assert positions.min() == 0
    assert positions.max() == 48 - PATCH_PX
    seen = seen_around(positions[:3], 48)
    np.testing.assert_array_equal((1.0 - seen).sum((1, 2, 3)).numpy(), PATCH_PX**2)
    top, left = positions[0].tolist()
    assert seen[0, 0, top, left] == 0
    assert seen[0, 0, top - 1 if top else PATCH_PX, left] == 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"crop_px": 48}, "^glance: crop_px is 48; expected 64 or more"),
        ({"step_px": 10}, "^glance: step_px is 10; expected a multiple of 4"),
        ({"crop_px": (64, 128)}, "^crop_px is 64x128, but glance predicts each patch by a network"),
    ],
)
def test_what_is_refused(settings, words):
    with pytest.raises(UsageError, match=words):
        build_detector("glance", make_config("glance", SMALL | settings))


def test_a_distillation_source_without_images_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(BadInputError, match=r"^distillation_source .*: no folder with images"):
        image_files(tmp_path, parameter="distillation_source", without="to go without")

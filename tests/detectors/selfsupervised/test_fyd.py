import dataclasses
import itertools
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")
F = torch.nn.functional

from safetensors.torch import load_file  # noqa: E402

from lineproof.bundle.runs.folder import CHECKPOINT  # noqa: E402
from lineproof.core.errors import UsageError  # noqa: E402
from lineproof.data.dataset import open_dataset  # noqa: E402
from lineproof.detectors.backbones.features import Backbone  # noqa: E402
from lineproof.detectors.backbones.weights import LITE0_BACKBONE, LITE0_PACKAGE, create_network  # noqa: E402
from lineproof.detectors.base import FitContext, make_config  # noqa: E402
from lineproof.detectors.distance.padim import Padim, PadimConfig  # noqa: E402
from lineproof.detectors.selfsupervised.fyd import Fyd, FydConfig, ImagePairs  # noqa: E402
from lineproof.detectors.selfsupervised.fyd_learning import Learner, coarse_loss, fine_loss  # noqa: E402
from lineproof.detectors.selfsupervised.fyd_transformers import (  # noqa: E402
    AlignedStages,
    SpatialTransformer,
    Warp,
    WarpBack,
    compose,
    inverse,
    rotation_scale,
)
from lineproof.detectors.training.task import Draw  # noqa: E402
from lineproof.detectors.training.train import image_set, train  # noqa: E402

TINY = {
    "backbone": "test_resnet", "weights": "random", "resize_px": (64, 96), "crop_px": (64, 96), "num_features": 6,
    "transformer_width": 8, "head_width": 8, "epochs": 2, "batch_size": 4,
}  # fmt: skip


@pytest.fixture
def flange(sample_folder):
    return open_dataset(sample_folder, category="flange")


def thetas(seed=0, count=3):
    return torch.eye(2, 3) + 0.3 * (torch.rand(count, 2, 3, generator=torch.Generator().manual_seed(seed)) - 0.5)


def as_square(theta):
    """float64 (N, 3, 3)."""
    last = np.tile([[[0.0, 0.0, 1.0]]], (len(theta), 1, 1))
    return np.concatenate([theta.double().numpy(), last], 1)


def mirrored(place, count):
    """A place between positions 0 and count − 1, mirrored at the outer edges of these two."""
    away = abs(place + 0.5) % (2 * count)
    return min(max(min(away, 2 * count - away) - 0.5, 0.0), count - 1.0)


def read_at(image, y, x):
    """One value of a map (h, w) between its positions."""
    total = 0.0
    y, x = mirrored(y, image.shape[0]), mirrored(x, image.shape[1])
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            weight = (1.0 - abs(y - row)) * (1.0 - abs(x - column))
            if weight > 0.0:
                total += weight * image[row, column]
    return total


def test_a_warp_reads_position_by_position():
    height, width = 5, 7
    maps = torch.rand(3, 2, height, width, generator=torch.Generator().manual_seed(1))
    theta = thetas()
    got = Warp((height, width), padding="reflection")(maps, theta)
    for n, matrix in enumerate(theta.double().numpy()):
        for row in range(height):
            for column in range(width):
                at = (2 * column + 1) / width - 1, (2 * row + 1) / height - 1, 1.0
                x, y = matrix @ at
                for channel in range(2):
                    want = read_at(maps[n, channel].numpy(), ((y + 1) * height - 1) / 2, ((x + 1) * width - 1) / 2)
                    np.testing.assert_allclose(float(got[n, channel, row, column]), want, atol=1e-5)


@pytest.mark.parametrize("padding", ["reflection", "border", "zeros"])
def test_a_warp_is_torchs(padding):
    maps, theta = torch.rand(3, 2, 6, 9, generator=torch.Generator().manual_seed(2)), thetas(3)
    grid = F.affine_grid(theta, list(maps.shape), align_corners=False)
    want = F.grid_sample(maps, grid, padding_mode=padding, align_corners=False)
    np.testing.assert_allclose(Warp((6, 9), padding=padding)(maps, theta).numpy(), want.numpy(), atol=1e-5)


def test_transforms_compose_and_invert_as_matrices():
    first, second = thetas(4), thetas(5)
    want = as_square(first) @ as_square(second)
    np.testing.assert_allclose(as_square(compose(first, second)), want, atol=1e-6)
    np.testing.assert_allclose(as_square(inverse(first)), np.linalg.inv(as_square(first)), atol=1e-6)


def test_a_warp_by_hand():
    """An offset of a whole position reads the neighbour to the right, a scale of 1/2 magnifies the middle."""
    maps = torch.arange(8.0).reshape(1, 1, 2, 4)
    warp = Warp((2, 4), padding="border")
    moved = warp(maps, torch.tensor([[[1.0, 0.0, 0.5], [0.0, 1.0, 0.0]]]))
    np.testing.assert_allclose(moved[0, 0].numpy(), [[1, 2, 3, 3], [5, 6, 7, 7]], atol=1e-6)
    magnified = warp(maps, torch.tensor([[[0.5, 0.0, 0.0], [0.0, 1.0, 0.0]]]))
    np.testing.assert_allclose(magnified[0, 0].numpy(), [[0.75, 1.25, 1.75, 2.25], [4.75, 5.25, 5.75, 6.25]], atol=1e-6)


def test_a_rotation_turns_a_rectangle_without_shearing_it():
    height, width = 40, 100
    theta = rotation_scale(torch.tensor([[math.pi / 2, 0.0, 0.0], [0.4, 0.2, -0.1]]), aspect=height / width)
    pixels = np.diag([width / 2, height / 2])
    quarter, other = (pixels @ item[:, :2].double().numpy() @ np.linalg.inv(pixels) for item in theta)
    # A quarter turn: one pixel right of the centre is read one pixel below it.
    np.testing.assert_allclose(quarter, [[0, -1], [1, 0]], atol=1e-6)
    turned = np.array([[math.cos(0.4), -math.sin(0.4)], [math.sin(0.4), math.cos(0.4)]])
    np.testing.assert_allclose(other, turned @ np.diag([1.2, 0.9]), atol=1e-6)
    np.testing.assert_array_equal(theta[:, :, 2].numpy(), 0.0)


def test_a_transformer_begins_at_the_identity_and_keeps_its_bound():
    maps = torch.rand(2, 3, 20, 28)
    for kind in ("affine", "rotation_scale"):
        transformer = SpatialTransformer(3, (20, 28), kind=kind, largest_change=0.25, num_halvings=2, width=8).eval()
        identity = torch.eye(2, 3).expand(2, 2, 3)
        np.testing.assert_array_equal(transformer(maps).detach().numpy(), identity.numpy())
    torch.nn.init.constant_(transformer.values.bias, 9.0)
    wanted = rotation_scale(torch.full((2, 3), 0.25), aspect=20 / 28)
    np.testing.assert_allclose(transformer(maps).detach().numpy(), wanted.numpy(), atol=1e-6)


def test_the_coarse_loss_is_the_mean_over_pairs_and_pixels():
    images = torch.rand(4, 3, 5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    total, count = 0.0, 0
    for first in range(4):
        for second in range(first):
            total += float((images[first] - images[second]).square().sum(0).sqrt().sum())
            count += 30
    np.testing.assert_allclose(float(coarse_loss(images)), total / count, rtol=1e-9)
    black, white = torch.zeros(1, 3, 2, 2), torch.ones(1, 3, 2, 2)
    np.testing.assert_allclose(float(coarse_loss(torch.cat([black, white]))), math.sqrt(3.0), rtol=1e-6)


def test_equal_images_have_no_coarse_loss_and_a_finite_gradient():
    images = torch.ones(3, 3, 4, 4, requires_grad=True)
    loss = coarse_loss(images)
    loss.backward()
    assert loss.item() == 0.0
    np.testing.assert_array_equal(images.grad.numpy(), 0.0)


def test_the_fine_loss_is_the_mean_over_ordered_pairs_and_positions():
    generator = torch.Generator().manual_seed(0)
    predicted, projected = (torch.randn(4, 5, 2, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    predicted.requires_grad_()
    projected.requires_grad_()
    cosines = [
        F.cosine_similarity(predicted[i], projected[j], dim=0).mean() for i in range(4) for j in range(4) if i != j
    ]
    loss = fine_loss(predicted, projected)
    np.testing.assert_allclose(loss.item(), 1.0 - torch.stack(cosines).mean().item(), rtol=1e-9)
    loss.backward()
    assert projected.grad is None, "projections are targets"
    assert float(predicted.grad.abs().sum()) > 0.0


def test_warping_back_undoes_what_was_aligned():
    """Two warps of a smooth map, one transform back: away from the borders the map is what it was."""
    rows, columns = torch.meshgrid(torch.linspace(0, 3, 48), torch.linspace(0, 2, 40), indexing="ij")
    maps = (torch.sin(rows) + torch.cos(1.3 * columns) * rows)[None, None].repeat(2, 1, 1, 1)
    first, second = (torch.eye(2, 3) + 0.4 * (item - torch.eye(2, 3)) for item in (thetas(6, 2), thetas(7, 2)))
    warp = Warp((48, 40), padding="reflection")
    aligned = warp(warp(maps, first), second)
    (back,) = WarpBack(((48, 40),), padding="reflection")((aligned,), (inverse(compose(first, second)),))
    inner = (slice(None), slice(None), slice(12, -12), slice(10, -10))
    assert float((aligned - maps)[inner].abs().max()) > 0.05
    assert float((back - maps)[inner].abs().max()) < 0.005


def test_features_return_to_where_the_image_has_what_they_show():
    """The image is moved by whole positions of every level: inside, its maps are those of the image left alone."""
    settings = {"backbone": "resnet18", "weights": "random", "crop_px": (256, 256), "largest_change": 0.0}
    torch.manual_seed(0)
    detector = Fyd(FydConfig(**settings, level_transform="none")).eval()
    # 32 px to the right and 16 px up, in half sides.
    offset = torch.tensor([0, 0, 32 / 128, 0, 0, -16 / 128])
    with torch.no_grad():
        detector.aligned.transformers["image"].values.bias.copy_(offset)
        images = torch.rand(1, 3, 256, 256)
        aligned_images, _, _ = detector.aligned(images)
        moved, left = detector.maps(images), detector.backbone(images)
    np.testing.assert_allclose(aligned_images[0, :, 20:, :-40].numpy(), images[0, :, 4:-16, 32:-8].numpy(), atol=1e-4)
    # At level 1, receptive fields leave 30 positions in the middle that see no border.
    inner = (slice(None), slice(None), slice(20, -20), slice(20, -20))
    wanted = left[0][inner].numpy()
    np.testing.assert_allclose(moved[0][inner].numpy(), wanted, atol=1e-3 * float(np.abs(wanted).max()))
    for level, (item, want) in enumerate(zip(moved, left, strict=True)):
        middle = item.shape[-1] // 2
        np.testing.assert_allclose(
            item[..., middle, middle].numpy(), want[..., middle, middle].numpy(), rtol=0, atol=2e-2, err_msg=f"{level}"
        )


@pytest.mark.parametrize("kinds", [("affine", "rotation_scale"), ("none", "none"), ("none", "affine")])
def test_without_a_change_it_is_padim(kinds):
    """Untrained transformers are the identity, and then maps, Gaussians and scores are PaDiM's."""
    detector = Fyd(FydConfig(**TINY, image_transform=kinds[0], level_transform=kinds[1])).eval()
    names = {field.name for field in dataclasses.fields(PadimConfig)}
    padim = Padim(PadimConfig(**{key: value for key, value in TINY.items() if key in names})).eval()
    padim.backbone.load_state_dict(detector.backbone.state_dict())
    images = torch.rand(12, 3, 64, 96)
    for item in (detector, padim):
        item.gaussians.draw(3)
        maps = detector.maps(images) if item is detector else padim.backbone(images)
        vectors = item.gaussians.embed(maps).transpose(1, 2)
        item.gaussians.learn(vectors, device=vectors.device, progress=lambda *_: None)
    with torch.inference_mode():
        for value, wanted in zip(detector(images), padim(images), strict=True):
            np.testing.assert_allclose(value.numpy(), wanted.numpy(), rtol=1e-3)


def test_extra_parameters_are_the_transformers():
    detector = Fyd(FydConfig(weights="random"))

    def transformer(channels, sides, values, halvings):
        widths = [channels, *[64] * (halvings - 1), 16]
        convolutions = sum(9 * a * b + 2 * b for a, b in itertools.pairwise(widths))
        return convolutions + (16 * sides * sides + 1) * 1024 + 1025 * values

    levels = sum(transformer(channels, sides, 3, 2) for channels, sides in ((64, 14), (128, 7), (256, 4)))
    assert abs(levels / 1e6 - 4.6) < 0.05
    assert detector.extra_parameters() == levels + transformer(3, 14, 6, 4)
    assert not [name for name in detector.state_dict() if "heads" in name]


def test_a_lone_image_gets_a_second_one(flange):
    images = image_set(Fyd(FydConfig(**TINY)), [sample.path for sample in flange.train][:5])
    source = ImagePairs(images)
    assert len(source) == 5
    for step in range(20):
        batch = source[Draw(indices=torch.tensor([4]), epoch=0, step=step, seed=0)]
        assert len(batch) == 2
        np.testing.assert_array_equal(batch[0].numpy(), images.batch([4])[0].numpy())
        assert not torch.equal(batch[0], batch[1])
    assert len(source[Draw(indices=torch.tensor([1, 3, 0]), epoch=0, step=0, seed=0)]) == 3


def test_every_part_is_driven_by_its_loss():
    """The coarse loss reaches the image's transformer alone, the fine loss all of them and the backbone."""
    detector = Fyd(FydConfig(**TINY))
    detector.backbone.requires_grad_(True)
    learner = Learner(detector.aligned, levels=range(3), head_width=8, coarse_weight=0.0).train()
    learner(torch.rand(4, 3, 64, 96)).backward()
    moved = {name for name, item in learner.named_parameters() if item.grad is not None and item.grad.any()}
    for part in ("image", "level0", "level1", "level2"):
        assert f"aligned.transformers.{part}.values.bias" in moved
    assert {name.split(".")[3] for name in moved if "backbone" in name} >= {"conv1", "layer1", "layer2", "layer3"}
    images = torch.rand(4, 3, 64, 96)
    detector = Fyd(FydConfig(**TINY))
    coarse_loss(detector.aligned(images)[0]).backward()
    grads = {name for name, item in detector.named_parameters() if item.grad is not None}
    assert grads
    assert all(name.startswith("aligned.transformers.image") for name in grads)


def test_the_backbone_is_trained_and_saved_its_statistics_stay(fit):
    fitted = fit("fyd")
    state = load_file(fitted.run / CHECKPOINT)
    pretrained = create_network(LITE0_BACKBONE, LITE0_PACKAGE).state_dict()
    moved, same = [], []
    for name, value in state.items():
        place = name.partition("aligned.backbone.network.")[2]
        if place:
            (moved if not torch.equal(value, pretrained[place]) else same).append(place)
    assert "conv_stem.weight" in moved
    assert not [name for name in moved if "running" in name]
    assert [name for name in same if "running" in name]
    np.testing.assert_array_equal(
        fitted.detector.backbone.network.conv_stem.weight.detach().numpy(),
        state["aligned.backbone.network.conv_stem.weight"].numpy(),
    )
    assert not [item for item in fitted.detector.backbone.parameters() if item.requires_grad]


def test_training_makes_good_images_agree(flange):
    torch.manual_seed(0)
    config = make_config("fyd", TINY | {"epochs": 8, "learning_rate": 3e-3})
    detector = Fyd(config)
    images = image_set(detector, [sample.path for sample in flange.train])
    losses = []
    detector.fit(images, images, context=FitContext(progress=lambda *now: losses.append(now)))
    shown = [float(item[3].split("loss ")[1].split()[0].rstrip(",")) for item in losses if item[0] == "training"]
    assert shown[-1] < 0.8 * shown[0]


def test_a_resumed_run_takes_the_steps_of_an_unbroken_one(flange, tmp_path):
    class KilledError(Exception):
        pass

    def kill(stage, done, *_):
        if stage == "training" and done == 3:
            raise KilledError

    config = make_config("fyd", TINY)
    options = {"dataset": flange}
    train("fyd", config, run=tmp_path / "whole", **options)
    with pytest.raises(KilledError):
        train("fyd", config, run=tmp_path / "broken", progress=kill, **options)
    train("fyd", config, run=tmp_path / "broken", **options)
    whole, broken = (load_file(tmp_path / name / CHECKPOINT) for name in ("whole", "broken"))
    for name, value in whole.items():
        np.testing.assert_array_equal(broken[name].numpy(), value.numpy(), err_msg=name)


def test_more_features_than_there_are_is_refused():
    with pytest.raises(UsageError, match="num_features is 1000; test_resnet has"):
        Fyd(FydConfig(**TINY | {"num_features": 1000}))


def test_stages_of_the_lowered_form_are_folded_copies():
    detector = Fyd(FydConfig(**TINY)).eval()
    lowered = detector.aligned.lower()
    assert isinstance(lowered, AlignedStages)
    assert not [item for item in lowered.transformers.modules() if isinstance(item, torch.nn.BatchNorm2d)]
    assert [item for item in detector.aligned.transformers.modules() if isinstance(item, torch.nn.BatchNorm2d)]
    assert isinstance(lowered.backbone, Backbone)

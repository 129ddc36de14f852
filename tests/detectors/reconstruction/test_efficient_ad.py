"""EfficientAD against its networks and maps written out in float64."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from PIL import Image as PillowImage  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from lineproof.core.errors import BadInputError, EnvironmentMissingError, UsageError  # noqa: E402
from lineproof.detectors.base import FitContext, build_detector, make_config  # noqa: E402
from lineproof.detectors.reconstruction.efficient_ad import EfficientAd, hard_loss  # noqa: E402
from lineproof.detectors.reconstruction.efficient_ad_batches import GoodAndOthers  # noqa: E402
from lineproof.detectors.reconstruction.efficient_ad_networks import Autoencoder, Teacher, features_size  # noqa: E402
from lineproof.detectors.training.task import Draw  # noqa: E402
from lineproof.detectors.training.train import image_set  # noqa: E402

SIZE = (64, 96)
TINY = {"weights": "random", "width": 4, "channels": 6, "resize_px": SIZE, "crop_px": SIZE, "steps": 3}
#: Kernel and padding of each convolution as in the paper's tables 6 and 7.
CONVOLUTIONS = {
    "pdn_small": [(4, 3), (4, 3), (3, 1), (4, 0)],
    "pdn_medium": [(4, 3), (4, 3), (1, 0), (3, 1), (4, 0), (1, 0)],
}


def small(**settings):
    torch.manual_seed(0)
    detector = build_detector("efficient_ad", make_config("efficient_ad", TINY | settings))
    generator = torch.Generator().manual_seed(5)
    detector.feature_mean.copy_(torch.randn(detector.feature_mean.shape, generator=generator))
    detector.feature_std.copy_(0.5 + torch.rand(detector.feature_std.shape, generator=generator))
    detector.quantiles.copy_(torch.tensor([[0.4, 1.9], [0.02, 0.3]]))
    return detector


def describe(state, images, kind, *, padding):
    """A patch description network, written out."""
    maps = images
    plan = CONVOLUTIONS[kind]
    for number, (_, pad) in enumerate(plan):
        weight, bias = (state[f"convs.{number}.{part}"].double() for part in ("weight", "bias"))
        maps = F.conv2d(maps, weight, bias, padding=pad if padding else 0)
        if number < len(plan) - 1:
            maps = maps.clamp(min=0.0)
        if number < 2:
            maps = F.avg_pool2d(maps, 2, 2, padding=1 if padding else 0)
    return maps


def restore(state, images, size):
    """The autoencoder, written out as in the paper's table 8, its sizes those of the image."""
    maps, (height, width) = images, images.shape[-2:]
    get = lambda name: (state[f"{name}.weight"].double(), state[f"{name}.bias"].double())  # noqa: E731
    for number in range(5):
        maps = F.conv2d(maps, *get(f"encoder.{number}"), stride=2, padding=1).clamp(min=0.0)
    maps = F.conv2d(maps, *get("latent"))
    steps = [(64, 1), (32, 0), (16, 1), (8, 0), (4, 1), (2, 1)]
    sizes = [(max(1, height // by - less), max(1, width // by - less)) for by, less in steps]
    for number, resized in enumerate([*sizes, size]):
        maps = F.interpolate(maps, resized, mode="bilinear", align_corners=False)
        maps = F.conv2d(maps, *get(f"decoder.{number}"), padding=2 if number < 6 else 1).clamp(min=0.0)
    return F.conv2d(maps, *get("last"), padding=1)


def by_hand(detector, images):
    """Score and map in float64."""
    config = detector.config
    images = images.double()
    teacher, student = (
        describe(module.state_dict(), images, config.backbone, padding=config.padding)
        for module in (detector.backbone.network, detector.student)
    )
    mean, std = (item.double()[:, None, None] for item in (detector.feature_mean, detector.feature_std))
    restored = restore(detector.autoencoder.state_dict(), images, teacher.shape[-2:])
    count, total = config.channels, 0.0
    differences = ((teacher - mean) / std - student[:, :count], restored - student[:, count:])
    for item, (low, high) in zip(differences, detector.quantiles.double(), strict=True):
        maps = (item**2).mean(1, keepdim=True)
        if config.pad_maps:
            maps = F.pad(maps, (4, 4, 4, 4))
        maps = F.interpolate(maps, config.crop_px, mode="bilinear", align_corners=False)[:, 0]
        total = total + 0.5 * 0.1 * (maps - low) / (high - low)
    return total.amax((1, 2)).numpy(), total.numpy()


@pytest.mark.parametrize("backbone", ["pdn_small", "pdn_medium"])
@pytest.mark.parametrize(("padding", "pad_maps"), [(False, True), (False, False), (True, False), (True, True)])
def test_it_is_the_papers_function(backbone, padding, pad_maps):
    detector = small(backbone=backbone, padding=padding, pad_maps=pad_maps)
    images = torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    wanted = by_hand(detector, images)
    with torch.no_grad():
        for module in (detector, detector.lower().eval()):
            for value, item in zip(module(images), wanted, strict=True):
                np.testing.assert_allclose(value.numpy(), item, rtol=0, atol=1e-5 * np.abs(wanted[1]).max())


@pytest.mark.parametrize("kind", ["pdn_small", "pdn_medium"])
@pytest.mark.parametrize("is_padded", [False, True])
@pytest.mark.parametrize("size", [(64, 65), (66, 67), (100, 256), (257, 300)])
def test_all_maps_have_the_size_that_is_counted(kind, is_padded, size):
    counted = features_size(size, is_padded=is_padded)
    assert counted == tuple(math.ceil(side / 4) - (0 if is_padded else 8) for side in size)
    images = torch.zeros(1, 3, *size)
    with torch.no_grad():
        (maps,) = Teacher(kind, "random", width=2, channels=3, is_padded=is_padded)(images)
        restored = Autoencoder(3, image_px=size, size=counted).eval()(images)
    assert maps.shape == restored.shape == (1, 3, *counted)


def test_it_has_the_papers_sizes_at_256_px():
    with torch.device("meta"):
        small_one, medium = (
            Teacher(kind, "random", width=width, channels=384, is_padded=False)
            for kind, width in (("pdn_small", 128), ("pdn_medium", 256))
        )
        autoencoder = Autoencoder(384, image_px=(256, 256), size=(56, 56))
    plans = {
        small_one: [(3, 128, 4), (128, 256, 4), (256, 256, 3), (256, 384, 4)],
        medium: [(3, 256, 4), (256, 512, 4), (512, 512, 1), (512, 512, 3), (512, 384, 4), (384, 384, 1)],
    }
    for teacher, plan in plans.items():
        shapes = [(after, before, kernel, kernel) for before, after, kernel in plan]
        assert [tuple(conv.weight.shape) for conv in teacher.network.convs] == shapes
    assert autoencoder.latent.weight.shape == (64, 64, 8, 8)
    sizes = [(item.rows.shape[0], item.columns.shape[1]) for item in autoencoder.resizes]
    assert sizes == [(side, side) for side in (3, 8, 15, 32, 63, 127, 56)]


def test_the_hard_loss_is_the_mean_of_what_is_not_below_the_quantile():
    squares = torch.rand(2, 5, 7, 11, generator=torch.Generator().manual_seed(3))
    for share in (0.5, 0.9, 0.999):
        least = torch.quantile(squares.flatten(), share)
        assert float(hard_loss(squares, share)) == pytest.approx(float(squares[squares >= least].mean()), rel=1e-6)


@pytest.mark.parametrize("names", ["conv{}.{}", "{}.{}"])
def test_a_teacher_is_read_from_a_file(names, tmp_path):
    teacher = Teacher("pdn_small", "random", width=4, channels=6, is_padded=False)
    # Between the convolutions of a sequence are activations and poolings.
    numbers = (1, 2, 3, 4) if names.startswith("conv") else (0, 3, 6, 8)
    state = {
        names.format(number, part): getattr(conv, part).detach().clone()
        for number, conv in zip(numbers, teacher.network.convs, strict=True)
        for part in ("weight", "bias")
    }
    save_file(state, tmp_path / "teacher.safetensors")
    detector = small(weights=str(tmp_path / "teacher.safetensors"))
    images = torch.randn(1, 3, *SIZE)
    assert torch.equal(detector.backbone(images)[0], teacher(images)[0])
    assert detector.pretrained().network == "pdn_small"
    assert not any(item.requires_grad for item in detector.backbone.parameters())
    with pytest.raises(BadInputError, match=r"does not fit pdn_medium of 6 convolutions"):
        small(weights=str(tmp_path / "teacher.safetensors"), backbone="pdn_medium")
    save_file({"layer1.0.conv1.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(BadInputError, match=r"is no pdn_small: it holds layer1\.0\.conv1\.weight"):
        small(weights=str(tmp_path / "other.safetensors"))


def test_what_is_refused():
    with pytest.raises(EnvironmentMissingError, match=r"no hub has the weights of its teacher, pdn_small\. Give"):
        small(weights="imagenet")
    with pytest.raises(UsageError, match=r"crop_px is 48x64; patches have 33 pixels"):
        small(resize_px=(48, 64), crop_px=(48, 64))


@pytest.fixture(scope="module")
def images(dataset):
    return image_set(small(), [sample.path for sample in dataset.train])


def test_the_fit_standardises_the_teacher_and_scales_by_images_that_it_did_not_learn_from(images, monkeypatch):
    detector, learned = small(quantile_share=0.3), []
    read = GoodAndOthers.__getitem__

    def noted(source, draw):
        learned.extend(source._images.paths[index] for index in draw.indices.tolist())
        return read(source, draw)

    monkeypatch.setattr(GoodAndOthers, "__getitem__", noted)
    report = detector.fit(images, images.part([0]), context=FitContext())
    assert report["num_quantile_images"] == 3
    assert report["epochs"] == 1
    assert report["penalty"] == "none"
    assert "random weights" in report["notice"]
    kept = [index for index, path in enumerate(images.paths) if path not in learned]
    assert len(kept) == 3
    with torch.no_grad():
        maps = detector.maps(images.batch(kept))
        features = detector.describe(images.batch([index for index in range(len(images)) if index not in kept]))
    for item, quantiles in zip(maps, detector.quantiles, strict=True):
        np.testing.assert_allclose(quantiles.numpy(), np.quantile(item.numpy(), (0.9, 0.995)), rtol=1e-5)
    np.testing.assert_allclose(features.mean((0, 2, 3)).numpy(), 0.0, atol=1e-4)
    np.testing.assert_allclose(features.var((0, 2, 3), correction=0).numpy(), 1.0, rtol=1e-3)


def test_images_of_all_kinds_hold_the_student_to_zero(images, tmp_path):
    PillowImage.new("RGB", (80, 70), (255, 0, 0)).save(tmp_path / "red.png")
    detector = small(penalty_source=str(tmp_path))
    source = GoodAndOthers(images, SIZE, folder=str(tmp_path), normalisation=detector.normalisation)
    assert source.penalty == "1 image"
    batches = [source[Draw(indices=torch.tensor([0, 1, 2]), epoch=0, step=step, seed=0)] for step in (0, 0, 1)]
    for first, again in zip(batches[0], batches[1], strict=True):
        assert torch.equal(first, again)
    good, changed, others = batches[0]
    assert torch.equal(good, images.batch([0, 1, 2]))
    assert not torch.equal(changed, batches[2][1])
    mean, std = (torch.tensor(item)[:, None, None] for item in detector.normalisation)
    light = (changed * std + mean) / (good * std + mean).clamp(min=0.02)
    assert 0.75 < float(light.median()) < 1.25
    plain = (others * std + mean).mean((2, 3))
    grey = plain.amax(1) - plain.amin(1) < 1e-4
    red = torch.tensor([1.0, 0.0, 0.0])
    assert torch.allclose(plain[~grey], red.expand(int((~grey).sum()), 3), atol=1e-4)
    with torch.no_grad():
        without, penalised = detector.loss(good, changed), detector.loss(good, changed, others)
        penalty = detector.student(others)[:, :6].square().mean()
    assert float(penalised) == pytest.approx(float(without + penalty), rel=1e-5)


def test_the_learning_rate_falls_for_the_last_steps(images, monkeypatch):
    rates, adam = [], torch.optim.Adam

    class Recorder(adam):
        def step(self, closure=None):
            rates.append(self.param_groups[0]["lr"])
            return super().step(closure)

    monkeypatch.setattr(torch.optim, "Adam", Recorder)
    detector = small(steps=40)
    assert isinstance(detector, EfficientAd)
    detector.fit(images, images.part([0]), context=FitContext())
    # 9 of 10 images are learned from: five epochs are the fewest with 40 steps.
    assert rates == pytest.approx([1e-4] * 42 + [1e-5] * 3)

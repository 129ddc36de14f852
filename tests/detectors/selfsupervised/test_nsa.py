import builtins

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
F = torch.nn.functional

from lineproof.bundle.runs.folder import CHECKPOINT  # noqa: E402
from lineproof.core.errors import EnvironmentMissingError, UsageError  # noqa: E402
from lineproof.data.dataset import open_dataset  # noqa: E402
from lineproof.detectors.base import make_config  # noqa: E402
from lineproof.detectors.selfsupervised.nsa import Nsa, NsaConfig, _maker  # noqa: E402
from lineproof.detectors.selfsupervised.nsa_categories import BY_CATEGORY  # noqa: E402
from lineproof.detectors.training.options import TrainOptions  # noqa: E402
from lineproof.detectors.training.train import image_set, train  # noqa: E402

TINY = {"resize_px": (64, 96), "crop_px": (64, 96), "width": 4, "epochs": 2, "batch_size": 4}
#: Of MVTec AD, by the data set's paper.
TEXTURES = ("carpet", "grid", "leather", "tile", "wood")
OBJECTS = (
    "bottle", "cable", "capsule", "hazelnut", "metal_nut", "pill", "screw", "toothbrush", "transistor", "zipper",
)  # fmt: skip


@pytest.fixture
def flange(sample_folder):
    return open_dataset(sample_folder, category="flange")


def settled(config, seed=0):
    """A detector whose normalisations are none of the trivial ones."""
    torch.manual_seed(seed)
    detector = Nsa(config).eval()
    with torch.no_grad():
        for name, item in (*detector.named_parameters(), *detector.named_buffers()):
            if "norm" in name and item.is_floating_point():
                item.copy_(torch.rand_like(item) + 0.5)
    return detector


def test_the_network_has_the_papers_size():
    with torch.device("meta"):
        detector = Nsa(NsaConfig())
    assert detector.extra_parameters() == 11_497_712
    assert detector.backbone_parameters() == []
    encoder, decoder = (sum(p.numel() for p in part.parameters()) for part in (detector.encoder, detector.decoder))
    # ResNet-18 without its classifier: 11 689 512 − 513 000.
    assert encoder == 11_176_512
    assert decoder == 321_200


def test_the_encoder_is_resnet_18():
    """Stage by stage torchvision's own network, with the same weights."""
    torchvision = pytest.importorskip("torchvision")
    detector = settled(NsaConfig(crop_px=(96, 64)))
    theirs = torchvision.models.resnet18(weights=None).eval()
    stages = (
        theirs.conv1,
        theirs.bn1,
        theirs.relu,
        theirs.maxpool,
        *(getattr(theirs, f"layer{i}") for i in range(1, 5)),
    )
    whole = torch.nn.Sequential(*stages)
    ours, wanted = detector.encoder.state_dict(), whole.state_dict()
    assert [item.shape for item in ours.values()] == [item.shape for item in wanted.values()]
    whole.load_state_dict(dict(zip(wanted, ours.values(), strict=True)))
    images = torch.randn(2, 3, 96, 64)
    with torch.inference_mode():
        np.testing.assert_array_equal(detector.encoder(images).numpy(), whole(images).numpy())


def test_the_decoder_doubles_three_times_then_twice_more():
    """A transposed convolution is a convolution over an image with zeros between its pixels."""
    decoder = settled(NsaConfig(width=8)).decoder.double()
    maps = torch.randn(2, 64, 3, 2, dtype=torch.float64)

    def spread(x):
        grown = torch.zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3], dtype=x.dtype)
        grown[:, :, ::2, ::2] = x
        return grown

    def transposed(conv, x):
        weight = conv.weight.flip(2, 3).transpose(0, 1)
        reach = (weight.shape[2] - 1) // 2
        return F.conv2d(spread(x), weight, padding=reach)

    def normalised(norm, x):
        mean, var = norm.running_mean, norm.running_var
        scaled = (x - mean[:, None, None]) / torch.sqrt(var + norm.eps)[:, None, None]
        return scaled * norm.weight[:, None, None] + norm.bias[:, None, None]

    with torch.inference_mode():
        got = decoder(maps)
        x = F.relu(F.conv2d(maps, decoder.squeeze[0].weight))
        x = F.relu(F.conv2d(x, decoder.squeeze[2].weight))
        for block in decoder.grow:
            first, second = block.body
            inner = F.relu(normalised(first.norm, transposed(first.conv, x)))
            inner = normalised(second.norm, F.conv2d(inner, second.conv.weight, padding=1))
            x = F.relu(inner + normalised(block.shortcut.norm, transposed(block.shortcut.conv, x)))
        x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True)
        want = transposed(decoder.last, x)
    assert got.shape == (2, 1, 96, 64)
    np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=0, atol=1e-10 * float(want.abs().max()))


def test_the_map_is_a_probability_and_the_score_its_mean():
    detector = settled(NsaConfig(**TINY))
    images = torch.randn(3, 3, 64, 96)
    with torch.inference_mode():
        logits = detector.logits(images).double()
        for module in (detector, detector.lower().eval()):
            score, anomaly_map = module(images)
            np.testing.assert_allclose(anomaly_map.numpy(), 1 / (1 + np.exp(-logits.numpy())), rtol=0, atol=1e-6)
            np.testing.assert_allclose(score.numpy(), anomaly_map.double().mean((1, 2)).numpy(), rtol=1e-5)


def test_nothing_of_a_normalisation_is_left_in_the_lowered_form():
    kinds = {type(module) for module in settled(NsaConfig(**TINY)).lower().modules()}
    assert torch.nn.BatchNorm2d not in kinds
    assert torch.nn.ConvTranspose2d in kinds


def test_every_category_of_mvtec_ad_has_the_papers_settings():
    assert set(BY_CATEGORY) == {*TEXTURES, *OBJECTS}
    configs = {name: make_config("nsa", settings) for name, settings in BY_CATEGORY.items()}
    for name, config in configs.items():
        is_texture = name in TEXTURES
        assert (config.blending == "mixed", config.flips_vertically) == (is_texture, is_texture)
        assert config.crop_px == ((256, 256) if is_texture else (224, 224))
        assert config.resize_px == ((264, 264) if is_texture else (256, 256))
        # Random crops out of the middle 230 of an object, out of the whole of a texture.
        assert config.crop_px[0] + config.shift_px == (264 if is_texture else 230)
        assert (config.scale_low, config.scale_high) == ((0.5, 2.0) if is_texture else (0.7, 1.3))
    turned = {name for name, config in configs.items() if config.rotation_degrees}
    assert turned == {"bottle", "hazelnut", "metal_nut", "screw"}
    assert {name for name, config in configs.items() if config.epochs == 560} == {"hazelnut", "metal_nut", "screw"}
    apart = {name for name, config in configs.items() if config.background_level >= 0}
    assert apart == set(OBJECTS) - {"cable", "transistor"}
    screw = configs["screw"]
    assert (screw.background_level, screw.background_threshold, screw.object_share) == (200, 60, 0.5)
    assert (screw.label_steepness, screw.label_middle, screw.num_patches) == (1.0, 3.0, 4)
    assert (screw.smallest_half, screw.largest_height, screw.largest_width) == (0.03, 0.12, 0.12)
    default = NsaConfig()
    assert (default.epochs, default.batch_size, default.learning_rate, default.keep) == (320, 64, 1e-3, "last")


def test_batches_follow_from_seed_stream_epoch_and_index(flange):
    pytest.importorskip("cv2")
    config = NsaConfig(resize_px=(96, 128), crop_px=(96, 128), width=4)
    detector = Nsa(config)
    images = image_set(detector, [sample.path for sample in flange.train])
    count = len(images)
    maker = _maker(config, detector.normalisation, seed=0)
    plain = images.plain()
    first, labels = maker.batch(plain, torch.tensor([2, 2 + count, 2]), stream=0)
    assert first.shape == (3, 3, 96, 128)
    assert labels.shape == (3, 96, 128)
    assert 0.0 <= float(labels.min()) < float(labels.max()) <= 1.0
    np.testing.assert_array_equal(first[2].numpy(), first[0].numpy())
    assert not torch.equal(first[1], first[0]), "another draw of the same image has another anomaly"
    alone, _ = maker.batch(plain, torch.tensor([2]), stream=0)
    np.testing.assert_array_equal(alone[0].numpy(), first[0].numpy())
    for other in ({"stream": 1}, {"stream": 0, "epoch": 1}):
        assert not torch.equal(maker.batch(plain, torch.tensor([2]), **other)[0][0], first[0])


def test_an_image_without_anomaly_is_what_the_detector_sees(flange):
    """But for whole levels: neither resize, crop nor normalisation differ between training and the line."""
    pytest.importorskip("cv2")
    sizes = {"resize_px": (80, 112), "crop_px": (64, 96), "shift_px": 0, "width": 4}
    config = NsaConfig(**sizes)
    detector = Nsa(config)
    images = image_set(detector, [sample.path for sample in flange.train])
    maker = _maker(config, detector.normalisation, seed=0)
    drawn, _ = maker.batch(images.plain(), torch.arange(4), stream=0)
    unlike = (drawn - images.batch(range(4))).abs() * torch.tensor(detector.normalisation[1])[:, None, None]
    same = unlike.amax(1) <= 0.5001 / 255.0
    assert same.float().mean() > 0.5
    assert same[:, 0].all()


def images_in(folder, draw):
    for place, count in (("good", 15), ("bad", 1)):
        (folder / place).mkdir(parents=True)
        for index in range(count):
            Image.fromarray(draw(index)).save(folder / place / f"{index:02d}.png")
    return open_dataset(folder)


def of_one_colour(index):
    return np.full((64, 96, 3), 40 + index % 2, np.uint8)


def with_a_thin_line(index):
    image = np.full((64, 96, 3), 200, np.uint8)
    image[10 + index : 20 + index] = 40
    return image


@pytest.mark.parametrize(
    ("draw", "settings", "words"),
    [
        (of_one_colour, {}, "patches of other images change no pixel that counts. The images are of one colour"),
        (
            with_a_thin_line,
            {"background_level": 130, "background_threshold": 250},
            "no pixel differs from background_level 130 by more than background_threshold 250. Give the level",
        ),
        (
            with_a_thin_line,
            {"background_level": 200, "smallest_half": 0.3},
            "no patch was found of which more than object_share 0.7 is object. Lower it, or make patches smaller",
        ),
        (
            with_a_thin_line,
            {"background_level": 200, "object_share": 0.2, "overlap_share": 1.0},
            "no place was found where more than overlap_share 1 of a patch's object lies on the image's. Lower it",
        ),
    ],
)
def test_the_cause_is_named_where_no_image_gets_an_anomaly(tmp_path, draw, settings, words):
    pytest.importorskip("cv2")
    dataset = images_in(tmp_path / "part", draw)
    with pytest.raises(UsageError) as error:
        train("nsa", NsaConfig(**TINY | settings), dataset=dataset, run=tmp_path / "run")
    assert str(error.value).startswith(f"nsa: no image got an anomaly, so that there is nothing to learn: {words}")
    assert ("background" in str(error.value)) == ("background_level" in settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"resize_px": (32, 32), "crop_px": (32, 32)},
            r"crop_px is 32x32, where the usual patch is 6x6 px: .*Give sides of 64 px or more, or larger patches",
        ),
        (
            {"resize_px": (64, 128), "crop_px": (64, 128)} | BY_CATEGORY["screw"],
            r"crop_px is 64x128, .*Give sides of 96 px or more, or larger patches: largest_height is 0\.12,",
        ),
        (
            {"scale_low": 1e-5, "scale_high": 1e-4},
            r"crop_px is 224x224, where the usual patch is 7x7 px: .*scale_high 0",
        ),
        (
            {"smallest_half": 1e-9, "largest_height": 1e-9},
            r"the usual patch is 0x\d+ px: too small to show; .* a side\. Give larger patches: largest_height is 1e-09",
        ),
    ],
)
def test_images_too_small_for_a_patch_that_shows_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        Nsa(NsaConfig(**settings))


def test_the_smallest_size_can_be_trained(tmp_path, flange):
    """The size that the refusal names, with the paper's own patches: anomalies are drawn there."""
    pytest.importorskip("cv2")
    config = NsaConfig(**TINY | {"resize_px": (64, 64), "crop_px": (64, 64), "epochs": 1})
    assert train("nsa", config, dataset=flange, run=tmp_path / "run").fit["share_with_anomaly"] > 0.2


def test_without_opencv_the_command_that_installs_it_is_named(flange, tmp_path, monkeypatch):
    import sys

    real = builtins.__import__

    def missing(name, *arguments, **options):
        if name == "cv2":
            raise ModuleNotFoundError("No module named 'cv2'", name="cv2")
        return real(name, *arguments, **options)

    for module in ("natural", "natural_batches"):
        monkeypatch.delitem(sys.modules, f"lineproof.detectors.selfsupervised.{module}", raising=False)
    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(EnvironmentMissingError, match=r"pip install .*opencv-python-headless"):
        train("nsa", NsaConfig(**TINY), dataset=flange, run=tmp_path / "run")


def test_a_resumed_run_takes_the_steps_of_an_unbroken_one(flange, tmp_path):
    pytest.importorskip("cv2")
    from safetensors.torch import load_file

    class KilledError(Exception):
        pass

    def kill(stage, done, *_):
        if stage == "training" and done == 3:
            raise KilledError

    config = NsaConfig(**TINY)
    train("nsa", config, dataset=flange, run=tmp_path / "whole")
    with pytest.raises(KilledError):
        train("nsa", config, dataset=flange, run=tmp_path / "broken", progress=kill)
    train("nsa", config, dataset=flange, run=tmp_path / "broken")
    whole, broken = (load_file(tmp_path / name / CHECKPOINT) for name in ("whole", "broken"))
    for name, value in whole.items():
        np.testing.assert_array_equal(broken[name].numpy(), value.numpy(), err_msg=name)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_workers_change_no_bit(flange, tmp_path):
    pytest.importorskip("cv2")
    from safetensors.torch import load_file

    for workers in (0, 2):
        options = TrainOptions(num_workers=workers)
        train("nsa", NsaConfig(**TINY), dataset=flange, run=tmp_path / str(workers), options=options)
    alone, helped = (load_file(tmp_path / name / CHECKPOINT) for name in ("0", "2"))
    for name, value in alone.items():
        np.testing.assert_array_equal(helped[name].numpy(), value.numpy(), err_msg=name)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backbone": "resnet18"}, "backbone is 'resnet18' and weights 'none', but it is trained from scratch"),
        ({"crop_px": (128, 100)}, "crop_px is 128x100; it is halved five times"),
        ({"width": 6}, "width is 6; expected a multiple of 4"),
        ({"largest_width": 0.02}, "smallest_half is 0.03 and largest_width 0.02; expected no more"),
        ({"shift_px": 113}, "shift_px is 113; expected at most half a side of crop_px, 112"),
        ({"scale_low": 1.5}, "scale_low is 1.5 and scale_high 1.3; expected no more"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        Nsa(NsaConfig(**settings))

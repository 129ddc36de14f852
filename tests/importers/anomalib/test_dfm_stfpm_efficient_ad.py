"""DFM, STFPM and EfficientAD of anomalib: files of its structure, of random numbers, against references in float64."""

import enum
import math
import sys
import types

import numpy as np
import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

from torch.nn import functional as F  # noqa: E402

from lineproof.core.errors import BadInputError  # noqa: E402
from lineproof.data.dataset import check_contents, open_dataset  # noqa: E402
from lineproof.importers.anomalib.checkpoint import read_checkpoint  # noqa: E402
from lineproof.importers.anomalib.model import build, convert  # noqa: E402
from lineproof.importers.anomalib.run import import_anomalib  # noqa: E402
from lineproof.importers.anomalib.transform import Transform, read_transform  # noqa: E402

SIZE_PX = 64
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NUM_COMPONENTS = 5
CHANNELS = 6


def step(name, **values):
    return {"class_path": f"torchvision.transforms.v2.{name}", "init_args": values}


def write(path, tensors, settings, *, normalises):
    """Write a checkpoint as release 2.7 does."""
    steps = [step("Resize", size=[SIZE_PX, SIZE_PX], interpolation="bilinear", max_size=None, antialias=True)]
    if normalises:
        steps.append(step("Normalize", mean=list(MEAN), std=list(STD), inplace=False))
    numbers = {"_image_threshold": 3.0, "_pixel_threshold": 2.0, "image_min": 1.0, "image_max": 9.0}
    numbers |= {"pixel_min": 0.5, "pixel_max": 8.0}
    values = {
        "state_dict": {
            **{f"post_processor.{name}": torch.tensor(value) for name, value in numbers.items()},
            **{f"model.{name}": tensor.clone() for name, tensor in tensors.items()},
        },
        "hyper_parameters": settings,
        "anomalib_pre_processor_config": {"transform": step("Compose", transforms=steps)},
        "anomalib_post_processor_config": {"image_sensitivity": 0.5, "pixel_sensitivity": 0.5},
    }
    torch.save(values, path)
    return path


def converted(path):
    checkpoint = read_checkpoint(path)
    transform = read_transform(checkpoint)
    return build(convert(checkpoint, transform), transform, checkpoint)


def check_equal(detector, score, anomaly_map, images):
    """Hold a detector, as it is and lowered, to a reference."""
    assert np.ptp(score) > 1e-4 * np.abs(score).max(), "the reference tells images apart"
    with torch.no_grad():
        for form in (detector, detector.lower().eval()):
            seen = [item.numpy() for item in form(images)]
            np.testing.assert_allclose(seen[0], score, rtol=1e-5, atol=1e-6 * np.abs(score).max())
            np.testing.assert_allclose(seen[1], anomaly_map, rtol=1e-5, atol=1e-5 * np.abs(anomaly_map).max())


@pytest.fixture(scope="module")
def images():
    return torch.randn(3, 3, SIZE_PX, SIZE_PX, generator=torch.Generator().manual_seed(5))


def extractor(seed):
    """A resnet18 with the three stages that anomalib taps; its statistics stand where a training would leave them."""
    torch.manual_seed(seed)
    network = timm.create_model("resnet18", pretrained=False, features_only=True, out_indices=(1, 2, 3)).eval()
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0.0, 0.1)
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
    return network


def prefixed(prefix, tensors):
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


@pytest.fixture(scope="module")
def networks():
    """A teacher and a student."""
    return extractor(0), extractor(1)


def test_stfpm_is_the_product_of_three_distances(networks, images, tmp_path):
    teacher, student = networks
    tensors = prefixed("teacher_model.feature_extractor", teacher.state_dict())
    tensors |= prefixed("student_model.feature_extractor", student.state_dict())
    settings = {"backbone": "resnet18", "layers": ("layer1", "layer2", "layer3")}
    detector = converted(write(tmp_path / "a.ckpt", tensors, settings, normalises=True))
    anomaly_map = 1.0
    with torch.no_grad():
        for first, second in zip(teacher(images), student(images), strict=True):
            units = [item.double() / item.double().norm(dim=1, keepdim=True) for item in (first, second)]
            distance = 0.5 * (units[0] - units[1]).square().sum(1, keepdim=True)
            anomaly_map = anomaly_map * F.interpolate(distance, (SIZE_PX, SIZE_PX), mode="bilinear")[:, 0]
    check_equal(detector, anomaly_map.amax((1, 2)).numpy(), anomaly_map.numpy(), images)
    with pytest.raises(BadInputError, match=r"layers = \['layer2'\]"):
        converted(write(tmp_path / "b.ckpt", tensors, settings | {"layers": ["layer2"]}, normalises=True))


def dfm_tensors(network, *, size, score):
    draw = torch.Generator().manual_seed(3)
    basis = torch.linalg.qr(torch.randn(size, NUM_COMPONENTS, generator=draw, dtype=torch.float64)).Q.float()
    rotation = torch.linalg.qr(torch.randn(NUM_COMPONENTS, NUM_COMPONENTS, generator=draw)).Q
    gaussian = {
        "mean_vec": torch.randn(NUM_COMPONENTS, generator=draw),
        "u_mat": rotation,
        "sigma_mat": torch.linspace(3.0, 0.5, NUM_COMPONENTS),
    }
    return {
        "pca_model.singular_vectors": basis,
        "pca_model.mean": torch.rand(size, generator=draw),
        "pca_model.num_components": torch.tensor([NUM_COMPONENTS]),
        **{f"gaussian_model.{name}": item if score == "nll" else torch.empty(0) for name, item in gaussian.items()},
        **prefixed("feature_extractor.feature_extractor", network.state_dict()),
    }


@pytest.mark.parametrize("score", ["fre", "nll"])
@pytest.mark.parametrize(("layer", "pool"), [("layer3", 2), ("layer2", 3), ("layer3", 1)])
def test_dfm_is_what_components_leave_or_the_density_within_them(score, layer, pool, networks, images, tmp_path):
    with torch.no_grad():
        maps = F.avg_pool2d(networks[0](images)[int(layer[-1]) - 1].double(), pool)
    tensors = dfm_tensors(networks[0], size=maps[0].numel(), score=score)
    settings = {"backbone": "resnet18", "layer": layer, "pre_trained": False, "pooling_kernel_size": pool}
    settings |= {"pca_level": 0.97, "score_type": score}
    detector = converted(write(tmp_path / "a.ckpt", tensors, settings, normalises=True))
    assert detector.config.num_components == NUM_COMPONENTS
    basis, mean = (tensors[f"pca_model.{name}"].double() for name in ("singular_vectors", "mean"))
    centred = maps.flatten(1) - mean
    within = centred @ basis
    if score == "fre":
        errors = (centred - within @ basis.T).square().reshape(maps.shape).sum(1)
        wanted = errors.sum((1, 2))
        anomaly_map = F.interpolate(errors[:, None], (SIZE_PX, SIZE_PX), mode="bilinear")[:, 0]
    else:
        centre, rotation, deviations = (
            tensors[f"gaussian_model.{name}"].double() for name in ("mean_vec", "u_mat", "sigma_mat")
        )
        covariance = rotation @ torch.diag(deviations.square()) @ rotation.T
        away = within - centre
        wanted = (away @ torch.linalg.inv(covariance) * away).sum(1) + torch.logdet(covariance)
        anomaly_map = wanted[:, None, None].expand(-1, SIZE_PX, SIZE_PX)
    check_equal(detector, wanted.numpy(), anomaly_map.numpy(), images)


def test_a_layer_that_is_no_stage_of_a_resnet_is_refused(networks, tmp_path):
    tensors = dfm_tensors(networks[0], size=256, score="fre")
    settings = {"backbone": "tf_efficientnet_lite0", "layer": "blocks.3"}
    with pytest.raises(BadInputError, match=r"models the layer blocks\.3 of tf_efficientnet_lite0; expected a stage"):
        converted(write(tmp_path / "a.ckpt", tensors, settings, normalises=True))


#: Kernels of the patch description networks, and their widths in terms of the first and of the outputs' number.
KERNELS = {"small": (4, 4, 3, 4), "medium": (4, 4, 1, 3, 4, 1)}
PADDING = {"small": (3, 3, 1, 0), "medium": (3, 3, 0, 1, 0, 0)}
ENCODER = (32, 32, 64, 64, 64, 64)


def efficient_ad_tensors(size):
    """Random numbers; at 64 px, where 2×2 is left of an image, the last kernel of the encoder is as small."""
    draw = torch.Generator().manual_seed(7)
    state = {}

    def convolution(name, channels_in, channels_out, kernel):
        scale = math.sqrt(2.0 / (channels_in * kernel * kernel))
        state[f"{name}.weight"] = scale * torch.randn(channels_out, channels_in, kernel, kernel, generator=draw)
        state[f"{name}.bias"] = 0.1 * torch.randn(channels_out, generator=draw)
        return channels_out

    count = len(KERNELS[size])
    for network, outputs in (("teacher", CHANNELS), ("student", 2 * CHANNELS)):
        channels = 3
        for number, kernel in enumerate(KERNELS[size]):
            wide = outputs if number >= (3 if size == "small" else 4) else (4 if number == 0 else 8)
            channels = convolution(f"{network}.conv{number + 1}", channels, wide, kernel)
        assert number + 1 == count
    channels = 3
    for number, wide in enumerate(ENCODER):
        channels = convolution(f"ae.encoder.enconv{number + 1}", channels, wide, 4 if number < 5 else SIZE_PX // 32)
    for number in range(8):
        channels = convolution(
            f"ae.decoder.deconv{number + 1}", channels, CHANNELS if number == 7 else 64, 4 if number < 6 else 3
        )
    state["mean_std.mean"] = torch.randn(1, CHANNELS, 1, 1, generator=draw)
    state["mean_std.std"] = 0.5 + torch.rand(1, CHANNELS, 1, 1, generator=draw)
    for name, value in {"qa_st": 1.0, "qb_st": 4.0, "qa_ae": 0.5, "qb_ae": 1.5}.items():
        state[f"quantiles.{name}"] = torch.tensor(value)
    return state


def efficient_ad_reference(tensors, images, size, *, padding, pad_maps, is_scaled=True):
    get = {name: tensor.double() for name, tensor in tensors.items()}

    def conv(name, maps, **options):
        return F.conv2d(maps, get[f"{name}.weight"], get[f"{name}.bias"], **options)

    def describe(network):
        maps, last = images.double(), len(KERNELS[size])
        for number in range(1, last + 1):
            maps = conv(f"{network}.conv{number}", maps, padding=PADDING[size][number - 1] if padding else 0)
            maps = maps.relu() if number < last else maps
            maps = F.avg_pool2d(maps, 2, 2, padding=1 if padding else 0) if number < 3 else maps
        return maps

    teacher, student = describe("teacher"), describe("student")
    maps = images.double()
    for number in range(1, 6):
        maps = conv(f"ae.encoder.enconv{number}", maps, stride=2, padding=1).relu()
    maps = conv("ae.encoder.enconv6", maps)
    # At 64 px the first of the six sizes would be 0.
    for number, side in enumerate((1, 2, 3, 8, 15, 31, teacher.shape[-1]), 1):
        maps = F.interpolate(maps, (side, side), mode="bilinear")
        maps = conv(f"ae.decoder.deconv{number}", maps, padding=2 if number < 7 else 1).relu()
    restored = conv("ae.decoder.deconv8", maps, padding=1)
    if is_scaled:
        teacher = (teacher - get["mean_std.mean"]) / get["mean_std.std"]
    total = 0.0
    for name, item in (("st", teacher - student[:, :CHANNELS]), ("ae", restored - student[:, CHANNELS:])):
        scores = item.square().mean(1, keepdim=True)
        scores = F.pad(scores, (4, 4, 4, 4)) if pad_maps else scores
        scores = F.interpolate(scores, (SIZE_PX, SIZE_PX), mode="bilinear")[:, 0]
        low, high = get[f"quantiles.qa_{name}"], get[f"quantiles.qb_{name}"]
        total = total + 0.5 * (0.1 * (scores - low) / (high - low) if is_scaled else scores)
    return total.amax((1, 2)).numpy(), total.numpy()


def efficient_ad_settings(size, **others):
    return {
        "imagenet_dir": "datasets/imagenette",
        "teacher_out_channels": CHANNELS,
        "model_size": size,
        "lr": 1e-4,
        "weight_decay": 1e-5,
        "padding": False,
        "pad_maps": True,
        **others,
    }


@pytest.mark.parametrize("size", ["small", "medium"])
@pytest.mark.parametrize(("padding", "pad_maps"), [(False, True), (True, True), (True, False)])
def test_efficient_ad_is_the_mean_of_two_scaled_maps(size, padding, pad_maps, images, tmp_path):
    tensors = efficient_ad_tensors(size)
    settings = efficient_ad_settings(size, padding=padding, pad_maps=pad_maps)
    detector = converted(write(tmp_path / "a.ckpt", tensors, settings, normalises=False))
    wanted = efficient_ad_reference(tensors, images, size, padding=padding, pad_maps=pad_maps)
    check_equal(detector, *wanted, images)


def test_what_was_not_computed_scales_nothing(images, tmp_path):
    tensors = efficient_ad_tensors("small")
    for name in tensors:
        if name.startswith(("mean_std", "quantiles")):
            tensors[name] = torch.zeros_like(tensors[name])
    detector = converted(write(tmp_path / "a.ckpt", tensors, efficient_ad_settings("small"), normalises=False))
    wanted = efficient_ad_reference(tensors, images, "small", padding=False, pad_maps=True, is_scaled=False)
    check_equal(detector, *wanted, images)


def test_the_networks_own_normalisation_stands_in_the_record(sample_folder, tmp_path, monkeypatch):
    module = types.ModuleType("anomalib_of_a_test")
    member = enum.Enum("EfficientAdModelSize", {"S": "small"}, module=module.__name__)
    module.EfficientAdModelSize = member
    monkeypatch.setitem(sys.modules, module.__name__, module)
    settings = efficient_ad_settings(member.S)
    path = write(tmp_path / "a.ckpt", efficient_ad_tensors("small"), settings, normalises=False)
    monkeypatch.delitem(sys.modules, module.__name__)
    dataset = check_contents(open_dataset(sample_folder, category="flange"), "image")
    imported = import_anomalib(path, dataset=dataset, out=tmp_path / "run").record.imported
    assert (imported.model, imported.mean, imported.std) == ("EfficientAd", MEAN, STD)


def test_one_normalisation_after_another():
    plain = Transform(resize_px=(4, 4), crop_px=(4, 4), mean=(0.5, 0.5, 0.5), std=(0.5, 0.25, 1.0))
    values = np.array([0.1, 0.6, 0.9])
    both = plain.then((MEAN, STD))
    wanted = ((values - plain.mean) / plain.std - MEAN) / STD
    np.testing.assert_allclose((values - both.mean) / both.std, wanted, rtol=1e-12)
    assert plain.then(None) is plain


def test_a_tensor_that_is_not_known_is_named(tmp_path):
    tensors = efficient_ad_tensors("small") | {"teacher.conv9.weight": torch.zeros(1)}
    with pytest.raises(BadInputError, match=r"not known of this model: model\.teacher\.conv9\.weight"):
        converted(write(tmp_path / "a.ckpt", tensors, efficient_ad_settings("small"), normalises=False))

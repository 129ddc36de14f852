"""Checkpoints with the structure of anomalib's, of random numbers, written without anomalib; and where they lead.

A file has the keys and shapes that release 2.7.0 writes for a network resnet18 and images of 64 pixels. Statistics
stand where they would after training, so that scores are neither all alike nor astronomical.
"""

import copy
import shutil
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from lineproof.data.dataset import check_contents, open_dataset  # noqa: E402
from lineproof.importers.anomalib.checkpoint import Checkpoint, read_checkpoint  # noqa: E402
from lineproof.importers.anomalib.model import build, convert  # noqa: E402
from lineproof.importers.anomalib.transform import Transform, read_transform  # noqa: E402

SIZE_PX = 64
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CHANNELS = (64, 128, 256)
GRIDS = (16, 8, 4)
_NUM_FEATURES = 12
_NUM_BANK = 40
_FLOW_STEPS = 2


@pytest.fixture(scope="session")
def network():
    """A resnet18 of random weights with the three stages that the models tap, as anomalib's extractor has it."""
    timm = pytest.importorskip("timm")
    torch.manual_seed(3)
    model = timm.create_model("resnet18", pretrained=False, features_only=True, out_indices=(1, 2, 3)).eval()
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(0.0, 0.1)
            if name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5)
    return model


@pytest.fixture(scope="session")
def model_tensors(network):
    """A function from a model's name to the tensors below ``model.``, each time the same."""

    def tensors(name):
        draw = torch.Generator().manual_seed(11)
        return {"padim": _padim, "patchcore": _patchcore, "fastflow": _fastflow}[name](network, draw)

    return tensors


def _padim(network, draw):
    num_positions = GRIDS[0] ** 2
    roots = torch.randn(num_positions, _NUM_FEATURES, _NUM_FEATURES, generator=draw, dtype=torch.float64)
    covariance = roots @ roots.transpose(1, 2) / _NUM_FEATURES + 0.1 * torch.eye(_NUM_FEATURES)
    return {
        # Not in ascending order, as it is drawn.
        "idx": torch.randperm(sum(CHANNELS), generator=draw)[:_NUM_FEATURES],
        "anomaly_map_generator.blur.kernel": torch.zeros(1, 1, 33, 33),
        "gaussian.mean": torch.randn(_NUM_FEATURES, num_positions, generator=draw).abs(),
        "gaussian.inv_covariance": torch.linalg.inv(covariance).float(),
        **_prefixed("feature_extractor.feature_extractor", network.state_dict()),
    }


def _patchcore(network, draw):
    return {
        "memory_bank": torch.randn(_NUM_BANK, CHANNELS[1] + CHANNELS[2], generator=draw).abs(),
        "anomaly_map_generator.blur.kernel": torch.zeros(1, 1, 33, 33),
        **_prefixed("feature_extractor.feature_extractor", network.state_dict()),
    }


def _fastflow(network, draw):
    def randn(*shape, spread=0.1):
        return spread * torch.randn(*shape, generator=draw)

    state = _prefixed("feature_extractor", network.state_dict())
    for level, (channels, grid) in enumerate(zip(CHANNELS, GRIDS, strict=True)):
        state[f"norms.{level}.weight"] = 1.0 + randn(channels, grid, grid)
        state[f"norms.{level}.bias"] = randn(channels, grid, grid)
        for step in range(_FLOW_STEPS):
            below, kernel = f"fast_flow_blocks.{level}.module_list.{step}", (3, 1)[step % 2]
            turn = torch.eye(channels)[torch.randperm(channels, generator=draw)]
            half = channels // 2
            state |= {
                f"{below}.global_scale": 2.0 + randn(1, channels, 1, 1),
                f"{below}.global_offset": randn(1, channels, 1, 1),
                f"{below}.w_perm": turn[:, :, None, None],
                f"{below}.w_perm_inv": turn.T[:, :, None, None].contiguous(),
                f"{below}.subnet.0.weight": randn(half, half, kernel, kernel),
                f"{below}.subnet.0.bias": randn(half),
                f"{below}.subnet.2.weight": randn(channels, half, kernel, kernel),
                f"{below}.subnet.2.bias": randn(channels),
            }
    return state


def _prefixed(prefix, tensors):
    return {f"{prefix}.{name}": tensor.clone() for name, tensor in tensors.items()}


_SETTINGS = {
    "padim": {
        "backbone": "resnet18",
        "layers": ["layer1", "layer2", "layer3"],
        "pre_trained": False,
        "n_features": None,
    },
    "patchcore": {
        "backbone": "resnet18",
        "layers": ("layer2", "layer3"),
        "pre_trained": False,
        "coreset_sampling_ratio": 0.01,
        "num_neighbors": 5,
        "precision": "float32",
    },
    "fastflow": {
        "backbone": "resnet18",
        "pre_trained": False,
        "flow_steps": _FLOW_STEPS,
        "conv3x3_only": False,
        "hidden_ratio": 1.0,
    },
}


def _step(name, **values):
    return {"class_path": f"torchvision.transforms.v2.{name}", "init_args": values}


@pytest.fixture(scope="session")
def contents(model_tensors):
    """A function from a model's name to what its checkpoint holds, for a test to change."""

    def make(name="padim", *, threshold=12.0, low=5.0, high=25.0):
        numbers = {"image_threshold": threshold, "pixel_threshold": threshold + 1.0}
        post = {f"post_processor._{key}": torch.tensor(value) for key, value in numbers.items()}
        for what in ("image", "pixel"):
            post |= {f"post_processor.{what}_min": torch.tensor(low), f"post_processor.{what}_max": torch.tensor(high)}
        resize = _step("Resize", size=[SIZE_PX, SIZE_PX], interpolation="bilinear", max_size=None, antialias=True)
        normalise = _step("Normalize", mean=list(MEAN), std=list(STD), inplace=False)
        return {
            "epoch": 1,
            "pytorch-lightning_version": "2.6.6",
            "state_dict": {"_is_fitted": torch.tensor([True]), **post, **_prefixed("model", model_tensors(name))},
            "hyper_parameters": copy.deepcopy(_SETTINGS[name]),
            "anomalib_pre_processor_config": {"transform": _step("Compose", transforms=[resize, normalise])},
            "anomalib_post_processor_config": {
                "enable_normalization": True,
                "enable_thresholding": True,
                "enable_threshold_matching": True,
                "image_sensitivity": 0.5,
                "pixel_sensitivity": 0.5,
            },
        }

    return make


@pytest.fixture(autouse=True)
def leave_nothing(tmp_path):
    """Remove what a test wrote: each checkpoint is 11 MB."""
    yield
    shutil.rmtree(tmp_path)


@pytest.fixture
def write(tmp_path):
    """A function that writes what a checkpoint holds and returns its path."""

    def save(values, name="model.ckpt"):
        torch.save(values, tmp_path / name)
        return tmp_path / name

    return save


@pytest.fixture(scope="session")
def convert_file():
    """A function from a checkpoint's path to the detector that it becomes."""

    def make(path):
        checkpoint = read_checkpoint(path)
        transform = read_transform(checkpoint)
        return build(convert(checkpoint, transform), transform, checkpoint)

    return make


@pytest.fixture
def rebuild(contents, write, convert_file):
    """A function from a model's name, and settings that it was made with, to the detector that it becomes."""

    def make(name, **settings):
        values = contents(name)
        values["hyper_parameters"] |= settings
        return convert_file(write(values, f"{name}.ckpt"))

    return make


@pytest.fixture
def features(network):
    """A function from normalised images float64 (N, 3, H, W) to the three stages' maps, in float64."""
    exact = copy.deepcopy(network).double()

    def extract(images):
        with torch.no_grad():
            return exact(images)

    return extract


@pytest.fixture
def check_equal():
    """A function that holds a detector, as it is and lowered, to a reference in float64, within 1e-5 relative."""

    def check(detector, reference):
        images = torch.randn(3, 3, SIZE_PX, SIZE_PX, generator=torch.Generator().manual_seed(5))
        score, anomaly_map = (item.numpy() for item in reference(images.double()))
        with torch.no_grad():
            for form in (detector, detector.lower()):
                seen_score, seen_map = (item.numpy() for item in form(images))
                np.testing.assert_allclose(seen_score, score, rtol=1e-5)
                np.testing.assert_allclose(seen_map, anomaly_map, rtol=1e-5, atol=1e-5 * np.abs(anomaly_map).max())
        # The reference tells images apart; else it would be no test.
        assert np.ptp(score) > 1e-4 * np.abs(score).max()

    return check


@pytest.fixture
def part(sample_folder):
    """The sample's object: good images in all splits, and defective ones to test with."""
    return check_contents(open_dataset(sample_folder, category="flange"), "image")


@pytest.fixture(scope="session")
def imported():
    """A function from a model's tensors, settings and image size to our detector."""

    def get(state, settings, size=(64, 64)):
        checkpoint = Checkpoint(
            path=Path("model.ckpt"),
            sha256="",
            tensors={f"model.{name}": tensor for name, tensor in state.items()},
            classes={},
            entries={"hyper_parameters": settings},
        )
        transform = Transform(resize_px=size, crop_px=size, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
        return build(convert(checkpoint, transform), transform, checkpoint)

    return get


@pytest.fixture
def drawn():
    """A maker of random tensors by shape: convolutions and linear layers of unit gain, normalisations about one."""
    return Drawn()


class Drawn:
    """Random tensors under the names of a state dict, the same in every test."""

    def __init__(self):
        self.generator = torch.Generator().manual_seed(0)
        self.state = {}

    def normal(self, name, *shape, scale=1.0):
        self.state[name] = scale * torch.randn(*shape, generator=self.generator)

    def uniform(self, name, *shape, low=0.5, high=1.5):
        self.state[name] = low + (high - low) * torch.rand(*shape, generator=self.generator)

    def layer(self, name, *shape, has_bias=True):
        """A convolution or a linear layer; the first of ``shape`` is its number of outputs."""
        fan_in = torch.Size(shape[1:]).numel()
        self.normal(f"{name}.weight", *shape, scale=fan_in**-0.5)
        if has_bias:
            self.normal(f"{name}.bias", shape[0], scale=0.3)

    def grown(self, name, channels_in, channels_out):
        """A transposed convolution of kernel 2."""
        self.normal(f"{name}.weight", channels_in, channels_out, 2, 2, scale=channels_in**-0.5)

    def norm(self, name, channels):
        """A batch normalisation."""
        self.uniform(f"{name}.weight", channels)
        self.normal(f"{name}.bias", channels, scale=0.3)
        self.normal(f"{name}.running_mean", channels, scale=0.3)
        self.uniform(f"{name}.running_var", channels)
        self.state[f"{name}.num_batches_tracked"] = torch.tensor(5)

    def network(self, prefix, network):
        """The tensors of a timm network."""
        self.state |= {f"{prefix}.{name}": tensor for name, tensor in network.state_dict().items()}

    def double(self):
        """All of them in float64, as a reference computes with them."""
        return {name: tensor.double() for name, tensor in self.state.items()}

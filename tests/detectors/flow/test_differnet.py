"""DifferNet: sizes of the paper, AlexNet's weights, views and score, training on random and on cached views."""

import urllib.error

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
pytest.importorskip("FrEIA")
torchvision = pytest.importorskip("torchvision")
from safetensors.torch import save_file  # noqa: E402

from lineproof.core.errors import BadInputError, EnvironmentMissingError, UsageError  # noqa: E402
from lineproof.detectors.base import FitContext, build_detector, make_config  # noqa: E402
from lineproof.detectors.flow.alexnet import AlexNet  # noqa: E402
from lineproof.detectors.flow.differnet import DifferNet  # noqa: E402
from lineproof.detectors.flow.views import RandomViews  # noqa: E402
from lineproof.detectors.training.images import ImageSet  # noqa: E402
from lineproof.detectors.training.task import Draw  # noqa: E402

SMALL = {
    "backbone": "resnet18", "weights": "random", "resize_px": 64, "crop_px": 64, "stride": 8, "num_rotations": 4,
    "num_training_rotations": 2, "hidden": 16, "steps": 2, "batch_size": 2, "epochs": 2, "patience": 0,
}  # fmt: skip


def small(**settings):
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    return build_detector("differnet", make_config("differnet", SMALL | settings))


@pytest.fixture
def images(tmp_path):
    def chosen(detector, count):
        paths = [tmp_path / f"{index}.png" for index in range(count)]
        for index, path in enumerate(paths):
            noise = np.random.default_rng(index).integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(noise).resize((64, 64)).save(path)
        mean, std = detector.normalisation
        return ImageSet(paths, (64, 64), crop_px=(64, 64), mean=mean, std=std)

    return chosen


@pytest.fixture
def small_alexnet(monkeypatch):
    """torchvision's AlexNet without most of its 61 M parameters."""
    real = torchvision.models.AlexNet

    def make(*, weights=None):
        if weights is not None:
            raise urllib.error.URLError("no route to host")
        network = real(num_classes=2)
        network.classifier = torch.nn.Linear(4, 2)
        return network

    monkeypatch.setattr(torchvision.models, "alexnet", make)
    return make


def test_extra_parameters_are_the_papers():
    with torch.device("meta"):
        detector = DifferNet(make_config("differnet", {"weights": "random", "num_rotations": 1}))
    assert detector.extra_parameters() == 172_077_056
    assert sum(item.numel() for item in detector.backbone_parameters()) == 2_469_696
    assert not DifferNet.localises


@pytest.mark.usefixtures("small_alexnet")
@torch.no_grad()
def test_alexnet_gives_the_papers_maps():
    network = AlexNet("random")
    assert [network(torch.zeros(1, 3, size, size))[0].shape[1:] for size in (448, 224, 112)] == [
        (256, 13, 13),
        (256, 6, 6),
        (256, 2, 2),
    ]


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_alexnet_takes_a_file(small_alexnet, tmp_path, suffix):
    path = tmp_path / f"alexnet{suffix}"
    state = small_alexnet().state_dict()
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    got = AlexNet(str(path)).layers.state_dict()
    for name, value in got.items():
        np.testing.assert_array_equal(value.numpy(), state[f"features.{name}"].numpy())
    assert not [item for item in AlexNet(str(path)).parameters() if item.requires_grad]


@pytest.mark.usefixtures("small_alexnet")
def test_alexnet_says_what_is_wrong_with_its_weights(tmp_path, monkeypatch):
    monkeypatch.setattr("lineproof.detectors.flow.alexnet.reach_url", lambda _url: None)
    with pytest.raises(EnvironmentMissingError, match=r"of alexnet are not cached .*route.*give a file with --weights"):
        AlexNet("imagenet")
    with pytest.raises(BadInputError, match=r"nothing\.pth: no such file\. For alexnet give 'imagenet', or a"):
        AlexNet(str(tmp_path / "nothing.pth"))
    (tmp_path / "bad.pth").write_bytes(b"no weights")
    save_file({"features.0.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(
        BadInputError, match=r"bad\.pth holds something else than tensors, which is never run\. Expected"
    ):
        AlexNet(str(tmp_path / "bad.pth"))
    with pytest.raises(
        BadInputError, match=r"(?s)other\.safetensors does not hold alexnet .*Expected torchvision's whole"
    ):
        AlexNet(str(tmp_path / "other.safetensors"))


def test_alexnet_refuses_weights_that_are_not_finite(small_alexnet, tmp_path):
    state = small_alexnet().state_dict()
    state["features.3.bias"][7] = torch.nan
    save_file(state, tmp_path / "broken.safetensors")
    with pytest.raises(
        BadInputError, match=r"broken\.safetensors cannot be used: features\.3\.bias holds 1 value of 192 "
    ):
        AlexNet(str(tmp_path / "broken.safetensors"))


def test_alexnet_needs_room():
    config = make_config("differnet", SMALL | {"backbone": "alexnet", "resize_px": "128x384", "crop_px": "128x384"})
    with pytest.raises(UsageError, match=r"crop_px is 128x384: alexnet needs 63 px .*so at least 252 on each side"):
        build_detector("differnet", config)


@torch.no_grad()
def test_score_is_the_mean_square_over_views():
    detector = small()
    batch = torch.randn(3, 3, 64, 64)
    score, anomaly_map = detector(batch)
    for image, got in zip(batch, score, strict=True):
        squares = []
        for turns in range(4):
            view = torch.rot90(image, turns, (1, 2))[None]
            means = [detector.backbone(view[:, :, ::step, ::step])[0].mean((2, 3)) for step in (1, 2, 4)]
            squares.append(float(detector.flow(torch.cat(means, 1))[0].square().mean()))
        np.testing.assert_allclose(float(got), np.mean(squares), rtol=1e-5)
    np.testing.assert_array_equal(anomaly_map.numpy(), np.broadcast_to(score.numpy()[:, None, None], (3, 64, 64)))


@torch.no_grad()
def test_a_turned_frame_scores_the_same():
    detector = small()
    batch = torch.randn(2, 3, 64, 64)
    np.testing.assert_allclose(
        detector(torch.rot90(batch, 1, (2, 3)))[0].numpy(), detector(batch)[0].numpy(), rtol=1e-5
    )


@torch.no_grad()
def test_lowered_is_trained():
    detector = small(num_rotations=3)
    for item in detector.flow.parameters():
        if item.requires_grad:
            item.data *= 2.0
    batch = torch.randn(3, 3, 64, 64)
    detector.standardise.learn(torch.randn(20, 384) * 0.3 + 1)
    before = detector.extra_parameters()
    for got, want in zip(detector.lower().eval()(batch), detector(batch), strict=True):
        np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=0, atol=1e-5 * float(want.max()))
    assert detector.extra_parameters() == before


def trained(images, run=None, **settings):
    detector = small(**settings)
    report = detector.fit(images(detector, 4), images(detector, 2), context=FitContext(seed=5, run=run))
    return detector, report


@pytest.mark.parametrize("caches_rotations", [False, True], ids=["random views", "cached views"])
def test_training_lowers_the_held_out_loss(images, caches_rotations):
    settings = {"caches_rotations": caches_rotations, "standardises": True, "learning_rate": 3e-3}
    first = trained(images, epochs=1, **settings)[1]["best_holdout_loss"]
    assert trained(images, epochs=15, **settings)[1]["best_holdout_loss"] < first - 0.01


def test_random_views_resume_to_the_same_bits(images, tmp_path):
    whole, _ = trained(images, epochs=3)
    trained(images, run=tmp_path, epochs=1)
    resumed, report = trained(images, run=tmp_path, epochs=3)
    assert report["epochs"] == 3
    for (name, want), got in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        np.testing.assert_array_equal(got.numpy(), want.numpy(), err_msg=name)


def test_views_are_drawn_anew_every_step(images):
    detector = small()
    chosen = images(detector, 2)
    source, indices = RandomViews(chosen, detector.config.num_training_rotations), torch.tensor([0, 1])
    draw = [
        detector.drawn_features(source[Draw(indices=indices, epoch=0, step=step, seed=0)]).numpy() for step in (0, 0, 1)
    ]
    assert draw[0].shape == (4, 384)
    np.testing.assert_array_equal(draw[0], draw[1])
    assert np.abs(draw[0] - draw[2]).max() > 1e-3

import numpy as np
import pytest

torch = pytest.importorskip("torch")
F = torch.nn.functional

from lineproof.core.errors import BadInputError, UsageError  # noqa: E402
from lineproof.detectors.base import FitContext, build_detector, make_config  # noqa: E402
from lineproof.detectors.reconstruction.dfr import Autoencoder, RegionalFeatures, group_layers, num_components  # noqa: E402
from lineproof.detectors.reconstruction.vgg import VggBackbone  # noqa: E402
from lineproof.detectors.training.checkpoint import load_detector, save_weights  # noqa: E402
from lineproof.detectors.training.options import TrainOptions  # noqa: E402
from lineproof.detectors.training.train import image_set, split_good  # noqa: E402


def small(**settings):
    torch.manual_seed(0)
    settings = {"backbone": "resnet18", "weights": "random", "resize_px": 64, "crop_px": 64, **settings}
    return build_detector("dfr", make_config("dfr", settings))


def randomise_norms(module):
    with torch.no_grad():
        for item in module.modules():
            if isinstance(item, torch.nn.BatchNorm2d):
                for value in (item.running_mean, item.running_var, item.weight, item.bias):
                    value.copy_(torch.rand_like(value) + 0.5)


@pytest.mark.parametrize(("latent_size", "published"), [(100, 13.4e6), (200, 15.0e6), (300, 16.8e6)])
def test_autoencoder_has_the_papers_size(latent_size, published):
    with torch.device("meta"):
        autoencoder = Autoencoder(3456, latent_size)
    count = sum(item.numel() for item in autoencoder.parameters())
    np.testing.assert_allclose(count, published, rtol=5e-3)


def test_vgg19_gives_twelve_relus():
    torch.manual_seed(0)
    backbone = VggBackbone("vgg19", "random")
    assert sum(backbone.channels) == 3456
    assert backbone.map_sizes((64, 32)) == tuple((h, h // 2) for h in (64, 64, 32, 32, 16, 16, 16, 16, 8, 8, 8, 8))
    np.testing.assert_allclose(sum(item.numel() for item in backbone.parameters()), 10.6e6, rtol=5e-3)
    maps = backbone(torch.randn(1, 3, 64, 64))
    assert tuple(item.shape[1] for item in maps) == backbone.channels
    assert all(float(item.min()) == 0.0 for item in maps)
    with pytest.raises(UsageError, match="resnet18 is no VGG"):
        VggBackbone("resnet18", "random")


@pytest.mark.parametrize("cell_px", [4, 8])
def test_averaging_is_resize_unfold_and_mean(cell_px):
    generator = torch.Generator().manual_seed(0)
    maps = tuple(
        torch.randn(2, channels, *size, generator=generator, dtype=torch.float64)
        for channels, size in ((3, (32, 48)), (4, (16, 24)), (2, (7, 9)))
    )
    module = RegionalFeatures(((32, 48), (16, 24), (7, 9)), image_px=(32, 48), cell_px=cell_px).double()
    parts = []
    for item in maps:
        grown = F.interpolate(item, (32, 48), mode="bilinear", align_corners=True)
        windows = F.unfold(grown, cell_px, stride=cell_px).reshape(2, item.shape[1], cell_px**2, -1)
        parts.append(windows.mean(2).reshape(2, item.shape[1], 32 // cell_px, 48 // cell_px))
    np.testing.assert_allclose(module(maps).numpy(), torch.cat(parts, 1).numpy(), atol=1e-6)


@pytest.mark.parametrize("settings", [{"backbone": "vgg11"}, {"backbone": "resnet18"}, {"cell_px": 2}])
def test_first_layer_commutes_with_the_averaging(settings):
    detector = small(latent_size=5, **settings)
    randomise_norms(detector.autoencoder)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    lowered = detector.lower().eval()
    with torch.inference_mode():
        want, got = detector(images), lowered(images)
    for value, wanted in zip(got, want, strict=True):
        np.testing.assert_allclose(value.numpy(), wanted.numpy(), rtol=0, atol=1e-5 * float(wanted.max()))


def test_layers_smaller_than_the_grid_share_a_convolution_of_their_own():
    vgg19 = tuple((h, 3 * h) for h in (256, 256, 128, 128, 64, 64, 64, 64, 32, 32, 32, 32))
    assert group_layers(vgg19, (64, 192)) == [(0, 8, False), (8, 12, True)]
    assert group_layers(((16, 4), (8, 2), (4, 1)), (32, 8)) == [(0, 1, True), (1, 2, True), (2, 3, True)]
    assert group_layers(((32, 32), (16, 16), (16, 16)), (8, 8)) == [(0, 3, False)]


def test_components_are_counted_as_scikit_learn_counts_them():
    decomposition = pytest.importorskip("sklearn.decomposition")
    generator = np.random.default_rng(0)
    values = generator.normal(size=(3 * 16, 12)) @ np.diag(0.7 ** np.arange(12)) @ generator.normal(size=(12, 12))
    features = torch.from_numpy(values.reshape(3, 4, 4, 12).transpose(0, 3, 1, 2).copy()).float()
    for variance in (0.5, 0.9, 0.99):
        fitted = decomposition.PCA(n_components=variance, svd_solver="full").fit(values)
        assert num_components(features, variance) == fitted.n_components_
    assert num_components(torch.ones(2, 3, 4, 4), 0.9) == 1


@pytest.mark.parametrize("settings", [{"batch_size": 1}, {"batch_size": 3}, {"batch_size": 3, "latent_size": 4}])
def test_features_computed_at_every_step_train_as_those_kept(dataset, settings, monkeypatch):
    """Alone an image has the same bits; beside others convolutions may sum in another order."""
    states, reports = [], []
    for caches in (True, False):
        torch.manual_seed(0)
        detector = small(epochs=2, learning_rate=1e-3, caches_features=caches, **settings)
        fitted, held_out = split_good(dataset, TrainOptions())
        if not caches:
            monkeypatch.setattr("lineproof.detectors.reconstruction.dfr.cache_features", None)
        reports.append(
            detector.fit(image_set(detector, fitted), image_set(detector, held_out), context=FitContext(seed=1))
        )
        states.append({name: item.numpy() for name, item in detector.state_dict().items()})
    assert reports[0]["latent_size"] == reports[1]["latent_size"]
    assert reports[0]["epochs"] == 2
    for name, value in states[0].items():
        np.testing.assert_allclose(
            states[1][name], value, err_msg=name, rtol=0, atol=0 if settings["batch_size"] == 1 else 1e-4
        )


def test_a_checkpoint_carries_its_latent_size(tmp_path):
    from lineproof.bundle.manifest import DetectorRecord

    detector = small()
    detector.autoencoder = Autoencoder(detector.num_channels, 7)
    randomise_norms(detector.autoencoder)
    save_weights(detector.eval(), tmp_path / "w.safetensors")
    parameters = {"backbone": "resnet18", "weights": "random", "resize_px": 64, "crop_px": 64}
    loaded = load_detector(DetectorRecord("dfr", parameters), tmp_path / "w.safetensors")
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        np.testing.assert_array_equal(loaded(images)[1].numpy(), detector(images)[1].numpy())
    with pytest.raises(BadInputError, match="does not fit dfr"):
        load_detector(DetectorRecord("dfr", {**parameters, "backbone": "resnet34"}), tmp_path / "w.safetensors")


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(UsageError, match="crop_px 64x64 is no multiple of cell_px 5 on each side"):
        small(cell_px=5)
    with pytest.raises(UsageError, match="variance is 1; expected above 0 and below 1"):
        small(variance=1.0)

"""PANDA's training against steps computed by hand, its score and map against brute force; what is refused."""

from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.torch import save_file
from scipy.ndimage import gaussian_filter

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

from lineproof.core.errors import BadInputError, UsageError  # noqa: E402
from lineproof.core.progress import silent  # noqa: E402
from lineproof.detectors.base import FitContext, build_detector, make_config  # noqa: E402
from lineproof.detectors.distance.panda import (  # noqa: E402
    compactness,
    diagonal_fisher,
    elastic_penalty,
    read_fisher,
    sum_of_squares,
)
from lineproof.detectors.training.train import image_set  # noqa: E402

SMALL = {"backbone": "resnet18", "weights": "random", "resize_px": 64, "crop_px": 64, "num_retrieved": 3, "epochs": 1}
#: Steps that are large enough to be seen, over all six images at once.
STEPS = {"batch_size": 6, "learning_rate": 0.5, "weight_decay": 1e-2, "largest_norm": 0.1}
LITE0 = "tf_efficientnet_lite0"


@pytest.fixture(scope="module")
def paths(dataset):
    return [sample.path for sample in dataset.train]


def unfitted(**settings):
    """The same random weights every time, residual branches included: timm begins them at zero."""
    torch.manual_seed(0)
    detector = build_detector("panda", make_config("panda", SMALL | settings))
    for module in detector.backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    return detector


def fitted(paths, context=None, **settings):
    """A detector fitted on six images; the weights before, and the report."""
    detector = unfitted(**settings)
    before = {name: item.clone() for name, item in detector.backbone.network.state_dict().items()}
    images = image_set(detector, paths[:6])
    report = detector.fit(images, image_set(detector, paths[6:]), context=context or FitContext())
    return SimpleNamespace(detector=detector.eval(), images=images, before=before, report=report)


def weights(fit):
    return fit.detector.backbone.network.state_dict()


@pytest.fixture(scope="module")
def early(paths):
    return fitted(paths, epochs=2, **STEPS)


@pytest.fixture(scope="module")
def fisher_file(tmp_path_factory):
    """A Fisher information of random values, larger than the estimate's, for a penalty that can be seen."""
    detector = unfitted()
    generator = torch.Generator().manual_seed(3)
    shapes = {name: detector.backbone.network.get_parameter(name).shape for name in detector.trained}
    path = tmp_path_factory.mktemp("fisher") / "fisher.safetensors"
    save_file({name: torch.rand(shape, generator=generator) for name, shape in shapes.items()}, path)
    return path


def by_hand(before, images, *, num_steps, fisher=None, penalty=0.0):
    """The weights after steps of SGD with momentum, in float64: clip, then decay, then momentum."""
    network = timm.create_model("resnet18", pretrained=False, num_classes=0).eval()
    network.load_state_dict(before)
    network.double()
    batch = images.batch(range(6)).double()
    trained = {name: item for name, item in network.named_parameters() if name.startswith(("layer3", "layer4"))}
    start = {name: item.detach().clone() for name, item in trained.items()}
    with torch.no_grad():
        centre = network(batch).mean(0)
    velocity = {name: torch.zeros_like(item) for name, item in trained.items()}
    for _ in range(num_steps):
        features = network(batch)
        loss = sum(((row - centre) ** 2).sum() / len(centre) for row in features) / 6
        for name, item in trained.items() if fisher else ():
            loss = loss + penalty / 2 * (fisher[name].double() * (item - start[name]) ** 2).sum()
        gradients = torch.autograd.grad(loss, list(trained.values()))
        norm = float(torch.sqrt(sum((item**2).sum() for item in gradients)))
        assert norm > STEPS["largest_norm"], "the case must clip"
        with torch.no_grad():
            for (name, item), gradient in zip(trained.items(), gradients, strict=True):
                clipped = gradient * STEPS["largest_norm"] / norm + STEPS["weight_decay"] * item
                velocity[name] = 0.9 * velocity[name] + clipped
                item -= STEPS["learning_rate"] * velocity[name]
    return {name: item.detach() for name, item in trained.items()}, start


def assert_moved_as(fit, want, start):
    for name, item in want.items():
        moved = (weights(fit)[name].double() - start[name]).numpy()
        wanted = (item - start[name]).numpy()
        np.testing.assert_allclose(moved, wanted, rtol=0, atol=2e-3 * np.abs(wanted).max(), err_msg=name)


def test_early_stopping_takes_the_steps_of_the_definition(early):
    want, start = by_hand(early.before, early.images, num_steps=2)
    assert_moved_as(early, want, start)


def test_elastic_penalty_takes_part_in_the_steps(paths, fisher_file, early):
    """The first step is that of early stopping: the penalty's gradient is zero at the pretrained weights."""
    fit = fitted(paths, adaptation="ewc", fisher=str(fisher_file), epochs=2, ewc_weight=1e3, **STEPS)
    shapes = {name: early.before[name].shape for name in early.detector.trained}
    fisher = read_fisher(fisher_file, shapes)
    want, start = by_hand(fit.before, fit.images, num_steps=2, fisher=fisher, penalty=1e3)
    assert_moved_as(fit, want, start)
    name = "layer4.1.conv2.weight"
    assert not np.allclose(weights(fit)[name], weights(early)[name], rtol=0, atol=1e-5)
    assert fit.report["fisher"] == str(fisher_file)


@pytest.mark.parametrize(
    ("backbone", "trained"),
    [("resnet18", ("layer3", "layer4")), (LITE0, ("blocks.3", "blocks.4", "blocks.5", "blocks.6"))],
)
def test_only_parameters_of_late_stages_change(paths, backbone, trained):
    fit = fitted(paths, backbone=backbone, **STEPS)
    after, parameters = weights(fit), dict(fit.detector.backbone.network.named_parameters())
    changed = {name for name, item in fit.before.items() if not torch.equal(item, after[name])}
    assert changed == {name for name in parameters if name.startswith(trained)}
    assert fit.report["num_adapted_parameters"] == sum(parameters[name].numel() for name in changed)
    assert not [name for name, item in fit.detector.named_parameters() if item.requires_grad]
    assert fit.detector.extra_parameters() == 0


def test_wide_resnet50_trains_62_7_of_66_8_million():
    detector = build_detector("panda", make_config("panda", {"weights": "random", "num_retrieved": 2}))
    network = detector.backbone.network
    assert sum(network.get_parameter(name).numel() for name in detector.trained) == 62_707_712
    assert sum(item.numel() for item in network.parameters()) == 66_834_240
    assert detector.extra_parameters() == 0


def test_good_images_come_closer(paths):
    report = fitted(paths, epochs=15, learning_rate=0.05, largest_norm=0.05).report
    assert 0.0 < report["holdout_loss_after"] < 0.8 * report["holdout_loss_before"]
    assert report["best_holdout_loss"] <= report["holdout_loss_after"]


def test_the_last_epoch_is_kept_unless_the_best_is_asked_for(paths):
    """At a rate that overshoots the losses rise and fall, so that the two differ."""
    wild = {"epochs": 5, "learning_rate": 0.1, "largest_norm": 1.0}
    last, best = (fitted(paths, keep=keep, **wild).report for keep in ("last", "best"))
    assert best["best_epoch"] < 4
    assert best["holdout_loss_after"] == best["best_holdout_loss"] < last["holdout_loss_after"]


@pytest.mark.parametrize(("adaptation", "epochs"), [("early_stopping", 15), ("ewc", 50)])
def test_epochs_are_the_authors_unless_given(paths, fisher_file, adaptation, epochs):
    fisher = str(fisher_file) if adaptation == "ewc" else ""
    report = fitted(paths, adaptation=adaptation, fisher=fisher, epochs=0).report
    assert report["epochs"] == epochs


def test_score_and_map_are_those_of_the_definition(early, paths):
    """By brute force in float64, with the adapted network as timm runs it."""
    detector = early.detector
    network = timm.create_model("resnet18", pretrained=False, num_classes=0).eval()
    network.load_state_dict(weights(early))
    queries = image_set(detector, paths[6:8]).batch([0, 1])
    with torch.no_grad():
        bank, features = (network(item).double().numpy() for item in (early.images.batch(range(6)), queries))
        gallery, maps = (
            [item.double().numpy() for item in network.forward_intermediates(given, indices=[1, 2, 3])[1]]
            for given in (early.images.batch(range(6)), queries)
        )
        score, anomaly_map = detector(queries)
    for n in range(2):
        squares = ((bank - features[n]) ** 2).sum(1)
        nearest = np.argsort(squares)[:3]
        np.testing.assert_allclose(score[n], squares[nearest[:2]].sum(), rtol=1e-5)
        want = np.zeros((64, 64))
        for stored, level in zip(gallery, maps, strict=True):
            size = level.shape[2]
            known = stored[nearest].transpose(0, 2, 3, 1).reshape(-1, level.shape[1])
            asked = level[n].reshape(level.shape[1], -1).T
            distances = np.sqrt([((known - row) ** 2).sum(1).min() for row in asked])
            grown = torch.nn.functional.interpolate(
                torch.from_numpy(distances.reshape(1, 1, size, size)), (64, 64), mode="bilinear", align_corners=False
            )
            want += gaussian_filter(grown[0, 0].numpy(), 4.0, mode="reflect") / 3.0
        np.testing.assert_allclose(anomaly_map[n], want, rtol=0, atol=1e-5 * want.max())


def test_score_may_come_from_the_map(early, paths):
    detector = unfitted(image_score="map")
    detector.restore(early.detector.state_dict())
    batch = image_set(detector, paths[6:8]).batch([0, 1])
    for module in (detector, detector.lower().eval()):
        with torch.no_grad():
            score, anomaly_map = module(batch)
        np.testing.assert_array_equal(score, anomaly_map.amax((1, 2)))


def test_adapted_weights_are_in_the_checkpoint(early, paths):
    """Restored into other weights, of which nothing is left."""
    torch.manual_seed(7)
    restored = build_detector("panda", make_config("panda", SMALL)).eval()
    restored.restore(early.detector.state_dict())
    batch = image_set(restored, paths[6:8]).batch([0, 1])
    with torch.no_grad():
        for value, wanted in zip(restored(batch), early.detector(batch), strict=True):
            np.testing.assert_array_equal(value, wanted)


def test_a_training_that_was_cut_off_goes_on_to_the_same_bits(paths, tmp_path):
    """Centre, Fisher information and anchors are those of the pretrained network, not of the state."""
    settings = {"adaptation": "ewc", "epochs": 3, "batch_size": 4, "learning_rate": 0.1, "largest_norm": 1.0}
    cut = fitted(paths, FitContext(run=tmp_path, time_limit_s=1e-9), **settings)
    assert (cut.report["epochs"], cut.report["stopped"]) == (1, "time limit")
    resumed, whole = fitted(paths, FitContext(run=tmp_path), **settings), fitted(paths, **settings)
    assert resumed.report["epochs"] == 3
    assert resumed.report["holdout_loss_before"] == whole.report["holdout_loss_before"]
    state = whole.detector.state_dict()
    for name, item in resumed.detector.state_dict().items():
        np.testing.assert_array_equal(item, state[name], err_msg=name)


def test_compactness_penalty_and_score_by_hand():
    assert float(compactness(torch.tensor([[1.0, 2.0], [3.0, 5.0]]), torch.tensor([1.0, 2.0]))) == 13 / 4
    penalty = elastic_penalty(
        {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([[5.0]])},
        {"a": torch.tensor([0.0, 4.0]), "b": torch.tensor([[2.0]])},
        {"a": torch.tensor([10.0, 0.5]), "b": torch.tensor([[1.0]])},
        weight=4.0,
    )
    assert float(penalty) == 2.0 * (10.0 + 2.0 + 9.0)
    distances = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.5, 9.0]])
    assert sum_of_squares(distances, num_neighbours=2).tolist() == [5.0, 0.25]
    assert sum_of_squares(distances, num_neighbours=1).tolist() == [1.0, 0.0]


class Given:
    """Tensors in the place of an image set."""

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def batch(self, indices):
        return self.images[list(indices)]


def test_fisher_information_of_a_fair_coin():
    """Two classes at p = ½: the gradient of each row is ± x / 2 whatever is drawn, so that F = mean of x² / 4."""
    images = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    classifier = torch.nn.Linear(3, 2)
    torch.nn.init.zeros_(classifier.weight)
    torch.nn.init.zeros_(classifier.bias)
    fisher = diagonal_fisher(classifier, ("weight", "bias"), Given(images), seed=0, progress=silent)
    want = (images**2).mean(0) / 4
    np.testing.assert_allclose(fisher["weight"], torch.stack([want, want]), rtol=1e-6)
    np.testing.assert_allclose(fisher["bias"], [0.25, 0.25], rtol=1e-6)


def test_fisher_information_draws_from_the_classifiers_own_predictions():
    """F of a bias is p (1 − p); labels that are always the likeliest class would give (1 − p)² and p²."""
    classifier = torch.nn.Linear(1, 3)
    torch.nn.init.zeros_(classifier.weight)
    p = torch.tensor([0.7, 0.2, 0.1])
    with torch.no_grad():
        classifier.bias.copy_(p.log())
    fisher = diagonal_fisher(classifier, ("bias",), Given(torch.zeros(4000, 1)), seed=1, progress=silent)
    np.testing.assert_allclose(fisher["bias"], p * (1 - p), rtol=0.08)


def test_estimated_fisher_information_is_that_of_the_network_before(paths, tmp_path):
    """The same bits as with a file that holds the estimate; a classifier of random weights shares the trunk's."""
    settings = {"adaptation": "ewc", "epochs": 2, "ewc_weight": 1e6} | STEPS
    estimated = fitted(paths, **settings)
    detector = unfitted()
    classifier = timm.create_model("resnet18", pretrained=False).eval()
    classifier.load_state_dict(detector.backbone.network.state_dict(), strict=False)
    images = image_set(detector, paths[:6])
    fisher = diagonal_fisher(classifier, detector.trained, images, seed=0, progress=silent)
    path = tmp_path / "fisher.safetensors"
    save_file(fisher | {"conv1.weight": torch.zeros(1)}, path)
    given = fitted(paths, fisher=str(path), **settings)
    assert (estimated.report["fisher"], given.report["fisher"]) == ("good images", str(path))
    assert all(float(item.max()) > 0.0 for item in fisher.values())
    for name, item in weights(given).items():
        np.testing.assert_array_equal(weights(estimated)[name], item, err_msg=name)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"fisher": "f.safetensors"}, "fisher is 'f.safetensors', which ewc alone uses"),
        ({"num_neighbours": 4}, "num_neighbours is 4; expected at most num_retrieved = 3"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, words):
    with pytest.raises(UsageError, match=words):
        unfitted(**settings)


@pytest.mark.parametrize(
    ("num_images", "words"),
    [(7, "num_images is 7; expected 1 to 6"), (1, "The gallery holds 1 image, but num_neighbours is 2")],
)
def test_a_gallery_that_cannot_be_is_refused_before_the_training(paths, num_images, words):
    def unwanted(*_):
        pytest.fail("the training has begun")

    with pytest.raises(UsageError, match=words):
        fitted(paths, FitContext(progress=unwanted), num_images=num_images)


def test_a_gallery_smaller_than_what_is_retrieved_gives_all(paths):
    report = fitted(paths, num_retrieved=7).report
    assert report["num_retrieved"] == 6
    assert report["notice"] == "6 images are retrieved, not the 7 of num_retrieved: the gallery holds no more."


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("layer3.0.conv1.weight"), r"for 1 of 30 adapted parameters, such as layer3\.0\.conv1"),
        (lambda state: state.update({"layer4.1.bn2.bias": torch.zeros(3)}), r"such as layer4\.1\.bn2\.bias \(512,\)"),
        (lambda state: state["layer4.1.bn2.bias"].fill_(torch.nan), "is no Fisher information: .*512 values"),
        (lambda state: state["layer4.1.bn2.bias"].fill_(-1.0), r"layer4\.1\.bn2\.bias has negative values"),
    ],
)
def test_a_file_that_is_no_fisher_information_is_refused(tmp_path, change, words):
    detector = unfitted()
    shapes = {name: detector.backbone.network.get_parameter(name).shape for name in detector.trained}
    state = {name: torch.ones(shape) for name, shape in shapes.items()}
    change(state)
    save_file(state, tmp_path / "fisher.safetensors")
    with pytest.raises(BadInputError, match=words):
        read_fisher(tmp_path / "fisher.safetensors", shapes)


def test_a_fisher_file_that_is_not_there_is_named(tmp_path):
    (tmp_path / "broken.safetensors").write_bytes(b"not a file of tensors")
    for name in ("none.safetensors", "broken.safetensors"):
        with pytest.raises(BadInputError, match=rf"{name} cannot be read as a Fisher information"):
            read_fisher(tmp_path / name, {})


def test_defaults_are_the_authors():
    config = make_config("panda", {})
    assert (config.backbone, config.resize_px, config.crop_px) == ("wide_resnet50_2.tv_in1k", (256, 256), (224, 224))
    assert (config.adaptation, config.keep, config.patience, config.num_neighbours) == ("early_stopping", "last", 0, 2)
    assert (config.batch_size, config.learning_rate, config.momentum) == (32, 1e-2, 0.9)
    assert (config.weight_decay, config.largest_norm, config.ewc_weight) == (5e-5, 1e-3, 1e4)

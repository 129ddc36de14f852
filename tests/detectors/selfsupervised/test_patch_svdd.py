"""Patch SVDD: embeddings, spreading and score against patch by patch; pairs and losses against their definition."""

import io
import math
from itertools import pairwise

import numpy as np
import pytest

torch = pytest.importorskip("torch")
F = torch.nn.functional

from lineproof.bundle.runs.folder import CHECKPOINT  # noqa: E402
from lineproof.core.errors import UsageError  # noqa: E402
from lineproof.core.spec import Preprocessing  # noqa: E402
from lineproof.data.dataset import open_dataset  # noqa: E402
from lineproof.detectors.base import FitContext  # noqa: E402
from lineproof.detectors.selfsupervised.patch_svdd import (  # noqa: E402
    Centring,
    PatchSvdd,
    PatchSvddConfig,
    _Training,
    spread_matrix,
)
from lineproof.detectors.selfsupervised.patch_svdd_networks import (  # noqa: E402
    DenseEncoder,
    DirectionClassifier,
    PatchEncoder,
)
from lineproof.detectors.selfsupervised.patch_svdd_pairs import (  # noqa: E402
    DIRECTIONS,
    PairSource,
    PatchPairs,
    apart_corners,
    near_corners,
)
from lineproof.detectors.training.options import TrainOptions  # noqa: E402
from lineproof.detectors.training.task import Draw  # noqa: E402
from lineproof.detectors.training.train import image_set, train  # noqa: E402
from lineproof.export.figures import count_flops  # noqa: E402
from lineproof.export.to_onnx import _quiet, export_onnx  # noqa: E402

SIZE = (80, 112)
TINY = {
    "resize_px": SIZE,
    "crop_px": SIZE,
    "epochs": 2,
    "patches_per_image": 2,
    "batch_size": 8,
    "initial_weights": "he",
    "svdd_weight": 0.1,
    "coreset_ratio": 0.2,
}


def encoder_with_large_weights():
    """An encoder whose embeddings fill (−1, 1), so that an error has nowhere to hide."""
    torch.manual_seed(0)
    encoder = PatchEncoder(keeps_variance=True)
    return encoder.eval()


def embed_one(encoder, patch):
    """One patch (3, side, side) by the paper's recursion, quarter by quarter."""
    if patch.shape[-1] == 32:
        return encoder.small(patch[None]).reshape(64)
    quarters = [[embed_one(encoder, patch[:, y : y + 32, x : x + 32]) for x in (0, 32)] for y in (0, 32)]
    square = torch.stack([torch.stack(row, 1) for row in quarters], 1)[None]
    return encoder.big(square).reshape(64)


def patch_by_patch(encoder, image, side, stride):
    height, width = image.shape[1:]
    rows = []
    for y in range(0, height - side + 1, stride):
        across = [embed_one(encoder, image[:, y : y + side, x : x + side]) for x in range(0, width - side + 1, stride)]
        rows.append(torch.stack(across, 1))
    return torch.stack(rows, 1)


def test_the_encoders_have_the_papers_size():
    assert sum(item.numel() for item in PatchEncoder().parameters()) == 401_984
    assert PatchSvdd(PatchSvddConfig()).extra_parameters() == 401_984
    classifier = DirectionClassifier()
    assert sum(item.numel() for item in classifier.parameters()) + classifier.last.numel() == 25_864


@torch.no_grad()
def test_dense_embeddings_equal_those_of_single_patches():
    encoder = encoder_with_large_weights()
    image = torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(1)) - 0.5
    want = [patch_by_patch(encoder, image, 32, 4), patch_by_patch(encoder, image, 64, 16)]
    assert [tuple(item.shape) for item in want] == [(64, 13, 21), (64, 2, 4)]
    for module in (encoder, DenseEncoder(encoder)):
        for got, wanted in zip(module(image[None]), want, strict=True):
            np.testing.assert_allclose(got[0].numpy(), wanted.numpy(), rtol=0, atol=2e-6)
    assert min(float(item.std()) for item in want) > 0.05


@torch.no_grad()
def test_training_embeds_patches_as_inference_does():
    encoder = encoder_with_large_weights()
    patches = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(1)) - 0.5
    for side in (32, 64):
        cut = patches[:, :, :side, :side]
        want = torch.stack([embed_one(encoder, patch) for patch in cut])
        np.testing.assert_allclose(encoder.embed(cut).numpy(), want.numpy(), rtol=0, atol=2e-6)


def test_no_position_is_computed_that_is_not_used():
    encoder = DenseEncoder(PatchEncoder())
    seen = []
    for module in encoder.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(lambda _module, _inputs, output: seen.append(tuple(output.shape[2:])))
    with torch.no_grad():
        encoder(torch.zeros(1, 3, 256, 256))
    assert seen == [(side, side) for side in (127, 125, 123, 121, 119, 117, 115, 57, 13, 13)]


def spread_slowly(scores, size, side, stride):
    """Each patch adds its score to all its pixels; sums are divided by counts."""
    total, count = np.zeros(size), np.zeros(size)
    for (row, column), value in np.ndenumerate(scores):
        window = (slice(row * stride, row * stride + side), slice(column * stride, column * stride + side))
        total[window] += value
        count[window] += 1
    assert count.min() > 0
    return total / count


def test_spreading_is_two_matrices():
    scores = np.random.default_rng(0).random((13, 21))
    rows, columns = (spread_matrix(length, 32, 4).double().numpy() for length in SIZE)
    np.testing.assert_allclose(rows @ scores @ columns.T, spread_slowly(scores, SIZE, 32, 4), rtol=1e-6)
    # Pixels 0 to 15 lie in the first patch alone, pixels 16 to 63 in both, the rest in the last.
    want = np.repeat([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]], [16, 48, 16], axis=0)
    np.testing.assert_array_equal(spread_matrix(80, 64, 16).numpy(), want)


@pytest.fixture(scope="module")
def images(sample_folder):
    dataset = open_dataset(sample_folder, category="flange")
    return image_set(PatchSvdd(PatchSvddConfig(**TINY)), [sample.path for sample in dataset.train])


def centred_slowly(batch, images, centring):
    """Minus the mean of the good images, or by each image's own mean colours and contrast, image by image."""
    good = images.batch(range(len(images))).double().numpy()
    if centring == "mean_image":
        return [image - good.mean(0) for image in batch.double().numpy()]
    own = [image - image.mean((1, 2), keepdims=True) for image in (*good, *batch.double().numpy())]
    contrast = np.mean([image.std() for image in own[: len(good)]])
    return [image * contrast / image.std() for image in own[len(good) :]]


@pytest.mark.parametrize(
    ("combination", "centring"), [("product", "mean_image"), ("sum", "mean_image"), ("product", "own")]
)
@torch.no_grad()
def test_map_and_score_equal_a_direct_computation(images, combination, centring):
    detector = PatchSvdd(PatchSvddConfig(**TINY | {"combination": combination, "centring": centring})).eval()
    detector.encoder = encoder_with_large_weights()
    generator = torch.Generator().manual_seed(2)
    detector.centre.learn(images)
    detector.small_bank, detector.big_bank = (torch.rand(num, 64, generator=generator) - 0.5 for num in (90, 7))
    batch = images.batch([0, 3])
    maps = []
    for image in map(torch.from_numpy, centred_slowly(batch, images, centring)):
        both = []
        for bank, side, stride in ((detector.small_bank, 32, 4), (detector.big_bank, 64, 16)):
            queries = patch_by_patch(detector.encoder, image.float(), side, stride).double().numpy()
            differences = queries[None] - bank.double().numpy()[:, :, None, None]
            both.append(spread_slowly(np.sqrt((differences**2).sum(1)).min(0), SIZE, side, stride))
        maps.append(both[0] * both[1] if combination == "product" else both[0] + both[1])
    for module in (detector, detector.lower().eval()):
        score, anomaly_map = module(batch)
        np.testing.assert_allclose(anomaly_map.numpy(), np.stack(maps), rtol=2e-5)
        np.testing.assert_allclose(score.numpy(), [item.max() for item in maps], rtol=2e-5)


def test_its_own_centring_takes_light_away(images):
    centre = Centring(SIZE, is_own=True)
    centre.learn(images)
    image = images.batch([0])
    tint = torch.tensor([0.3, -0.1, 0.2])[:, None, None]
    torch.testing.assert_close(centre(0.5 * image + tint), centre(image), rtol=0, atol=1e-6)
    assert float(centre(torch.full((1, 3, *SIZE), 0.7)).abs().max()) < 1e-3


def test_engines_centre_a_bright_image_as_float64_does():
    """Summed pixel by pixel in float32, the mean is off by twice as much, and by rows first by 2e-5."""
    ort, openvino = pytest.importorskip("onnxruntime"), pytest.importorskip("openvino")
    centre = Centring((256, 256), is_own=True).eval()
    centre.contrast.fill_(0.15)
    image = torch.full((1, 3, 256, 256), 200 / 255)
    # A dark part on a bright ground: rounding goes the same way for every pixel of the ground.
    image[:, :, 100:150, 80:200] = 30 / 255
    content = io.BytesIO()
    with _quiet():
        program = torch.onnx.export(centre, (image,), dynamo=True, input_names=["f"], output_names=["i"], verbose=False)
    program.save(content)
    session = ort.InferenceSession(content.getvalue(), providers=["CPUExecutionProvider"])
    core = openvino.Core()
    hint = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(content.getvalue()), "CPU", hint)
    centred = image.double().numpy() - image.double().numpy().mean((2, 3), keepdims=True)
    want = 0.15 * centred / centred.std()
    for got in (session.run(None, {"f": image.numpy()})[0], compiled({"f": image.numpy()})["i"]):
        np.testing.assert_allclose(got, want, rtol=0, atol=3.5e-6)


def test_neighbours_are_a_pixel_or_two_apart():
    size = torch.tensor([200, 300])
    for side, reach in ((32, 1), (64, 2)):
        first, second = near_corners(20_000, size, side, torch.Generator().manual_seed(0))
        assert first.amin(0).tolist() == [0, 0]
        assert first.amax(0).tolist() == [200 - side, 300 - side]
        assert second.min() >= 0
        assert (second <= size - side).all()
        inner = ((first >= reach) & (first <= size - side - reach)).all(1)
        moves, counts = np.unique((second - first)[inner].numpy(), axis=0, return_counts=True)
        want = [(y, x) for y in range(-reach, reach + 1) for x in range(-reach, reach + 1) if y or x]
        assert moves.tolist() == [list(item) for item in want]
        # Each as likely as the others: five standard deviations of a count.
        mean = counts.mean()
        assert np.abs(counts - mean).max() < 5 * math.sqrt(mean)


def test_the_second_patch_lies_in_its_direction():
    size = torch.tensor([400, 500])
    assert len(set(map(tuple, DIRECTIONS.tolist()))) == 8
    for side in (32, 64):
        first, second, direction = apart_corners(20_000, size, side, torch.Generator().manual_seed(0))
        assert second.min() >= 0
        assert (second <= size - side).all()
        inner = ((first >= side) & (first <= size - 2 * side)).all(1)
        moved, towards = (second - first)[inner], DIRECTIONS[direction][inner]
        np.testing.assert_array_equal(moved.sign().numpy(), towards.numpy())
        distances = moved.abs()[towards != 0]
        assert sorted(set(distances.tolist())) == list(range(side * 3 // 4, side))
        assert set(direction.tolist()) == set(range(8))


def draw(step=0, indices=(0, 3, 11, 3)):
    return Draw(indices=torch.tensor(indices), epoch=0, step=step, seed=5)


def source_of(images, colour_shift=0.0, noise=0.0):
    centre = Centring(SIZE, is_own=False)
    centre.learn(images)
    mean = centre.mean_image
    return PairSource(images, centre, patches_per_image=3, colour_shift=colour_shift, noise=noise), mean


def test_patches_are_cut_from_the_images_drawn(images):
    source, mean = source_of(images)
    assert len(source) == 3 * len(images)
    pairs = source[draw()]
    assert [tuple(item.near.shape) for item in pairs] == [(2, 4, 3, 64, 64), (2, 4, 3, 32, 32)]
    for item, side in zip(pairs, (64, 32), strict=True):
        for number, index in enumerate((0, 3, 11 % len(images), 3)):
            image = (images.batch([index])[0] - mean).numpy()
            windows = np.lib.stride_tricks.sliding_window_view(image, (side, side), axis=(1, 2))
            for patch in (*item.near[:, number].numpy(), *item.apart[:, number].numpy()):
                differences = np.abs(windows - patch[:, None, None]).max((0, 3, 4))
                assert differences.min() == 0.0


def test_a_batch_follows_from_its_draw_alone(images):
    source, _ = source_of(images, 0.02, 0.02)
    torch.manual_seed(0)
    first = source[draw()]
    again = source[draw()]
    other = source[draw(step=1)]
    for item, repeated, changed in zip(first, again, other, strict=True):
        for name in ("near", "apart", "direction"):
            np.testing.assert_array_equal(getattr(item, name).numpy(), getattr(repeated, name).numpy())
        assert not torch.equal(item.near, changed.near)
    torch.testing.assert_close(torch.rand(1), torch.rand(1, generator=torch.Generator().manual_seed(0)))


def test_noise_is_one_shift_per_colour_and_one_value_per_pixel(images):
    plain, noisy = (source_of(images, *added)[0][draw(indices=[0] * 64)] for added in ((0.0, 0.0), (0.05, 0.02)))
    for clean, item in zip(plain, noisy, strict=True):
        np.testing.assert_array_equal(item.near.numpy(), clean.near.numpy())
        added = item.apart - clean.apart
        shifts = added.mean((3, 4))
        np.testing.assert_allclose(float(shifts.std()), 0.05, rtol=0.2)
        np.testing.assert_allclose(float((added - shifts[..., None, None]).std()), 0.02, rtol=0.02)


def test_the_loss_is_its_definition():
    torch.manual_seed(0)
    trained = _Training(encoder_with_large_weights(), svdd_weight=0.3)
    generator = torch.Generator().manual_seed(1)
    pairs, want = [], 0.0
    for side, classifier in zip((64, 32), trained.classifiers, strict=True):
        near, apart = torch.rand(2, 2, 5, 3, side, side, generator=generator) - 0.5
        direction = torch.randint(8, (5,), generator=generator)
        pairs.append(PatchPairs(near=near, apart=apart, direction=direction))
        with torch.no_grad():
            vectors = [[embed_one(trained.encoder, p).double().numpy() for p in item] for item in (*near, *apart)]
            difference = torch.from_numpy(np.stack(vectors[2]) - np.stack(vectors[3])).float()
            logits = classifier(difference).double().numpy()
        entropy = np.log(np.exp(logits).sum(1)) - logits[np.arange(5), direction.numpy()]
        distance = np.sqrt(((np.stack(vectors[0]) - np.stack(vectors[1])) ** 2).sum(1))
        want += entropy.mean() + 0.3 * distance.mean()
    np.testing.assert_allclose(trained.loss(tuple(pairs)).item(), want, rtol=1e-5)


def test_he_weights_keep_the_variance():
    torch.manual_seed(0)
    images = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        spreads = [float(PatchEncoder(keeps_variance=keeps)(images)[0].std()) for keeps in (False, True)]
    assert spreads[0] < 0.1 < 0.4 < spreads[1]


def test_equal_neighbours_leave_finite_gradients():
    """A patch at the border can be moved back onto itself, where a norm has no derivative."""
    trained = _Training(PatchEncoder(), svdd_weight=1.0)
    patches = torch.rand(1, 2, 3, 64, 64).expand(2, -1, -1, -1, -1)
    item = PatchPairs(near=patches, apart=patches, direction=torch.zeros(2, dtype=torch.int64))
    trained.loss((item, item)).backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in trained.parameters())


def test_the_last_layer_of_a_classifier_stays_as_drawn():
    classifier = DirectionClassifier()
    np.testing.assert_allclose(classifier.last.norm(dim=0).numpy(), 1.0, rtol=1e-6)
    assert "last" not in dict(classifier.named_parameters())
    assert "bias" in dict(classifier.named_parameters())


def test_banks_hold_all_embeddings_or_cover_them(images):
    for settings, small, big in (
        ({"coreset_ratio": 0.1}, round(27.3 * len(images)), round(0.8 * len(images))),
        ({"coreset_ratio": 1.0, "coreset_size": 100}, 100, 8 * len(images)),
    ):
        torch.manual_seed(0)
        detector = PatchSvdd(PatchSvddConfig(**TINY | settings | {"epochs": 1, "patches_per_image": 1}))
        report = detector.fit(images, images, context=FitContext())
        assert (len(detector.small_bank), report["small_vectors"]) == (small, 273 * len(images))
        assert (len(detector.big_bank), report["big_vectors"]) == (big, 8 * len(images))
        mean = images.batch(range(len(images))).double().mean(0).float()
        torch.testing.assert_close(detector.centre.mean_image, mean)
        with torch.no_grad():
            embedded = detector.encoder(detector.centre(images.batch(range(len(images)))))
        for vectors, name in zip(embedded, ("small", "big"), strict=True):
            flat = vectors.movedim(1, -1).reshape(-1, 64).double()
            nearest = torch.cdist(flat, detector.get_buffer(f"{name}_bank").double()).amin(1)
            np.testing.assert_allclose(float(nearest.max()), report[f"{name}_radius"], rtol=1e-3, atol=1e-6)


def test_the_graph_costs_what_its_positions_cost(fit):
    """Rectangles too: nothing is padded, so that a frame costs its positions and no square around it."""
    channels = (3, 32, 64, 128, 128, 64, 32, 32, 64)
    for size in ((64, 64), (64, 192)):
        detector = fit("patch_svdd", size).detector
        graph = export_onnx(
            detector, Preprocessing.of((*size, 3), size, size, normalisation=detector.normalisation), max_batch=2
        )
        height, width = (side // 2 - 1 for side in size)
        want = 0
        for number, (before, after) in enumerate(pairwise(channels)):
            positions = (height - 2 * number) * (width - 2 * number)
            if number == 7:
                positions = math.prod((side - 32) // 4 + 1 for side in size)
                want += 2 * positions * 64 * len(detector.small_bank)
            want += 2 * positions * before * after * 9
        big = math.prod((side - 64) // 16 + 1 for side in size)
        want += 2 * big * (4 * 64 * 128 + 128 * 64 + 64 * len(detector.big_bank))
        assert count_flops(graph)["head"] == want


def test_a_resumed_run_takes_the_steps_of_an_unbroken_one(sample_folder, tmp_path):
    from safetensors.torch import load_file

    dataset = open_dataset(sample_folder, category="flange")

    class KilledError(Exception):
        pass

    def kill(stage, done, *_):
        if stage == "training" and done == 3:
            raise KilledError

    config = PatchSvddConfig(**TINY)
    train("patch_svdd", config, dataset=dataset, run=tmp_path / "whole")
    often = TrainOptions(save_every_s=1e-9)
    with pytest.raises(KilledError):
        train("patch_svdd", config, dataset=dataset, run=tmp_path / "broken", options=often, progress=kill)
    assert (tmp_path / "broken" / "trainer.safetensors").exists()
    train("patch_svdd", config, dataset=dataset, run=tmp_path / "broken")
    whole, broken = (load_file(tmp_path / name / CHECKPOINT) for name in ("whole", "broken"))
    assert not [name for name in whole if "classifier" in name]
    for name, value in whole.items():
        np.testing.assert_array_equal(broken[name].numpy(), value.numpy(), err_msg=name)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_workers_change_no_bit(sample_folder, tmp_path):
    from safetensors.torch import load_file

    dataset = open_dataset(sample_folder, category="flange")
    for num_workers in (0, 2):
        options = TrainOptions(num_workers=num_workers)
        train("patch_svdd", PatchSvddConfig(**TINY), dataset=dataset, run=tmp_path / str(num_workers), options=options)
    alone, helped = (load_file(tmp_path / name / CHECKPOINT) for name in ("0", "2"))
    for name, value in alone.items():
        np.testing.assert_array_equal(helped[name].numpy(), value.numpy(), err_msg=name)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backbone": "resnet18"}, "backbone is 'resnet18' and weights 'none', but it is trained from scratch"),
        ({"crop_px": (128, 100)}, r"crop_px is 128x100; patches of 64 px every 16 px must cover it. Give multiples"),
        ({"crop_px": (48, 128)}, r"crop_px is 48x128; patches of 64 px"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        PatchSvdd(PatchSvddConfig(**settings))

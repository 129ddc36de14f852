"""CFlow: lowered flows equal FrEIA's away from the initialisation, constants come from training images alone."""

import dataclasses
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("FrEIA")

from torch import nn  # noqa: E402

from lineproof.bundle.runs.folder import epochs_kept  # noqa: E402
from lineproof.core.errors import UsageError  # noqa: E402
from lineproof.detectors.base import FitContext, build_detector, make_config  # noqa: E402
from lineproof.detectors.flow.cflow import (  # noqa: E402
    CFlow,
    _subnet,
    improbability_map,
    position_code,
)
from lineproof.detectors.flow.flows import LoweredConditionalFlow, build_conditional_flow, draw_rotations  # noqa: E402
from lineproof.detectors.flow.vectors import CachedVectors, TurnedImages, deal, num_steps  # noqa: E402
from lineproof.detectors.nn.graph import SmoothUpsample  # noqa: E402
from lineproof.detectors.training.task import Draw  # noqa: E402
from lineproof.detectors.training.train import image_set  # noqa: E402

SIZE = (3, 5)
#: channels, blocks
FLOWS = [(16, 4), (7, 3), (9, 1), (2, 3), (3, 8)]
SMALL = {"backbone": "resnet18", "weights": "random", "resize_px": 64, "crop_px": 64, "steps": 2}


def random_flow(channels, steps, *, seed=0, rotates=True):
    """A flow as after long training: scales and offsets away from one and zero."""
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    flow = build_conditional_flow(channels, 128, steps=steps, clamp=1.9, subnet=_subnet)
    if rotates:
        draw_rotations(flow, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        for block in flow.module_list:
            # 0.1 · softplus(g, beta 0.5) lies around one where g lies around ten.
            block.global_scale.copy_(10.0 + 4.0 * torch.randn_like(block.global_scale))
            block.global_offset.copy_(0.7 * torch.randn_like(block.global_offset))
            for layer in (block.subnet[0], block.subnet[2]):
                layer.weight.mul_(2.0)
                layer.bias.copy_(torch.randn_like(layer.bias))
    return flow.eval()


def random_maps(channels):
    return torch.randn(2, channels, *SIZE, generator=torch.Generator().manual_seed(1))


def reference_likelihood(flow, maps):
    """log N(z; 0, 1) + log|J|, over C, per position, by FrEIA in float64: (N, h, w)."""
    vectors = maps.double().permute(0, 2, 3, 1).reshape(-1, maps.shape[1])
    codes = position_code(SIZE).double().permute(1, 2, 0).reshape(-1, 128).repeat(len(maps), 1)
    with torch.no_grad():
        z, log_jacobian = flow.double()(vectors, c=[codes])
    density = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1)
    return ((density + log_jacobian) / maps.shape[1]).view(len(maps), *SIZE)


def error_over_range(lowered, want, maps):
    with torch.no_grad():
        return float((lowered(maps).double() - want).abs().max() / (want.max() - want.min()))


@pytest.mark.parametrize(("channels", "steps"), FLOWS)
def test_lowered_likelihood_equals_freia(channels, steps):
    flow, maps = random_flow(channels, steps), random_maps(channels)
    lowered = LoweredConditionalFlow(flow, position_code(SIZE))
    want = reference_likelihood(flow, maps)
    assert want.shape == (2, *SIZE)
    assert error_over_range(lowered, want, maps) < 1e-5


@pytest.mark.parametrize(("channels", "steps"), FLOWS)
def test_permutations_that_only_renumber_become_gathers(channels, steps):
    flow, maps = random_flow(channels, steps, rotates=False), random_maps(channels)
    lowered = LoweredConditionalFlow(flow, position_code(SIZE))
    names = {name.partition(".mix.")[2] for name in lowered.state_dict() if ".mix." in name}
    assert names == ({"order", "gain", "shift"} if steps > 1 else set())
    assert error_over_range(lowered, reference_likelihood(flow, maps), maps) < 1e-5


@pytest.mark.parametrize("place", ["condition", "first", "last", "last_bias", "mix.rotation", "mix.bias"])
def test_a_broken_fold_is_seen(place):
    flow, maps = random_flow(16, 4), random_maps(16)
    want = reference_likelihood(flow, maps)
    lowered = LoweredConditionalFlow(flow, position_code(SIZE))
    with torch.no_grad():
        lowered.state_dict()[f"couplings.1.{place}"].mul_(1.01)
    assert error_over_range(lowered, want, maps) > 1e-4


def test_constant_of_the_jacobian_counts_every_block():
    flow, maps = random_flow(16, 4), random_maps(16)
    before = LoweredConditionalFlow(flow, position_code(SIZE)).constant
    with torch.no_grad():
        flow.module_list[1].global_scale.add_(3.0)
    lowered = LoweredConditionalFlow(flow, position_code(SIZE))
    assert abs(lowered.constant - before) > 0.1
    assert error_over_range(lowered, reference_likelihood(flow, maps), maps) < 1e-5


def test_the_last_rotation_is_left_out():
    lowered = LoweredConditionalFlow(random_flow(6, 3), position_code(SIZE))
    names = [name for name, _ in lowered.named_buffers() if name.endswith("rotation")]
    assert names == ["couplings.0.mix.rotation", "couplings.1.mix.rotation"]
    assert not [name for name, item in lowered.named_parameters() if item.requires_grad]


def test_huge_features_have_no_likelihood_instead_of_nan():
    lowered = LoweredConditionalFlow(random_flow(16, 8), position_code(SIZE))
    with torch.no_grad():
        likelihood = lowered(1e30 * random_maps(16))
        halved = lowered.to(torch.float16)(torch.full((1, 16, *SIZE), torch.inf).half())
    assert float(likelihood.max()) < -1e3
    assert not torch.isnan(halved).any()
    assert float(halved.float().max()) < -1e3


@pytest.mark.parametrize("channels", [2, 5, 40])
def test_rotations_are_rotations(channels):
    flow = build_conditional_flow(channels, 128, steps=3, clamp=1.9, subnet=_subnet)
    draw_rotations(flow, torch.Generator().manual_seed(0))
    first, second, third = (block.w_perm.double() for block in flow.module_list)
    for matrix in (first, second, third):
        np.testing.assert_allclose((matrix @ matrix.T).numpy(), np.eye(channels), rtol=0, atol=1e-6)
        np.testing.assert_allclose(torch.linalg.det(matrix).item(), 1.0, rtol=0, atol=1e-5)
    assert not torch.equal(first, second)
    draw_rotations(flow, torch.Generator().manual_seed(0))
    np.testing.assert_array_equal(flow.module_list[2].w_perm.double().numpy(), third.numpy())


def test_position_code_is_sines_and_cosines_of_x_then_y():
    code = position_code((3, 5)).numpy()
    assert code.shape == (128, 3, 5)
    for channel in (0, 1, 2, 7, 62, 63, 64, 65, 126, 127):
        half, place = divmod(channel, 64)
        frequency = 10000.0 ** (-(place // 2 * 2) / 64)
        wave = math.sin if place % 2 == 0 else math.cos
        want = [[wave(frequency * (x if half == 0 else y)) for x in range(5)] for y in range(3)]
        np.testing.assert_allclose(code[channel], want, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("backbone", "count"), [("resnet18", 8_620_032), ("wide_resnet50_2", 81_647_616)]
)  # fmt: skip
def test_extra_parameters_are_the_flows(backbone, count):
    """Per block over C channels: d = C/2 + 128 → 2d → C with biases, and 2C scales and offsets."""
    channels = {"resnet18": (128, 256, 512), "wide_resnet50_2": (512, 1024, 2048)}[backbone]
    widths = [(size, size // 2 + 128) for size in channels]
    assert sum(8 * (d * 2 * d + 2 * d + 2 * d * c + c + 2 * c) for c, d in widths) == count
    settings = {"backbone": backbone, "weights": "random", "resize_px": 32, "crop_px": 32}
    assert build_detector("cflow", make_config("cflow", settings)).extra_parameters() == count


def test_map_is_upsampled_with_aligned_corners():
    likelihoods = [torch.randn(2, 4, 4) - 1.0, torch.randn(2, 2, 2) - 1.0]
    ceilings = torch.tensor([-0.5, -0.2])
    upsamples = nn.ModuleList(SmoothUpsample((size, size), (16, 16), sigma=0.0, align_corners=True) for size in (4, 2))
    score, anomaly_map = improbability_map(likelihoods, ceilings, upsamples)
    want = torch.zeros(2, 16, 16)
    for likelihood, ceiling in zip(likelihoods, ceilings, strict=True):
        improbability = 1.0 - torch.exp(torch.minimum(likelihood - ceiling, torch.zeros(())))
        want += nn.functional.interpolate(improbability[:, None], (16, 16), mode="bilinear", align_corners=True)[:, 0]
    np.testing.assert_allclose(anomaly_map.numpy(), want.numpy(), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(score.numpy(), anomaly_map.flatten(1).max(1).values.numpy())
    assert float(anomaly_map.min()) >= 0.0
    assert float(anomaly_map.max()) <= 2.0


def test_likelier_than_any_training_vector_is_no_anomaly():
    upsamples = nn.ModuleList([SmoothUpsample((2, 2), (4, 4), sigma=0.0, align_corners=True)])
    score, _ = improbability_map([torch.full((1, 2, 2), 5.0)], torch.tensor([1.0]), upsamples)
    assert score.item() == 0.0


def test_an_image_may_be_compared_with_itself():
    """The sum of exp(likelihood − the image's largest one), upsampled, subtracted from its own largest value."""
    generator = torch.Generator().manual_seed(0)
    likelihoods = [5.0 * torch.randn(3, side, side, generator=generator) for side in (4, 2)]
    upsamples = nn.ModuleList(SmoothUpsample((size, size), (16, 16), sigma=0.0, align_corners=True) for size in (4, 2))
    score, anomaly_map = improbability_map(likelihoods, None, upsamples)
    for number in range(3):
        total = torch.zeros(16, 16, dtype=torch.float64)
        for likelihood in likelihoods:
            values = likelihood[number].double()
            probability = torch.exp(values - values.max())[None, None]
            total += nn.functional.interpolate(probability, (16, 16), mode="bilinear", align_corners=True)[0, 0]
        want = (total.max() - total).numpy()
        np.testing.assert_allclose(anomaly_map[number].numpy(), want, rtol=0, atol=1e-6)
        np.testing.assert_allclose(score[number].item(), want.max(), rtol=0, atol=1e-6)


def test_its_own_ceilings_come_from_the_frame_alone():
    torch.manual_seed(0)
    settings = SMALL | {"num_levels": 2, "likeliest": "image"}
    detector = build_detector("cflow", make_config("cflow", settings)).eval()
    detector.ceilings.fill_(torch.nan)
    images = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        together, lowered = detector(images), detector.lower().eval()(images)
        alone = [detector(image[None]) for image in images]
    for value, lowered_value, parts in zip(together, lowered, zip(*alone, strict=True), strict=True):
        np.testing.assert_allclose(value.numpy(), torch.cat(parts).numpy(), rtol=0, atol=1e-5)
        np.testing.assert_allclose(lowered_value.numpy(), value.numpy(), rtol=0, atol=1e-5)


def test_checkpoints_have_the_names_that_they_had():
    """Those of the release before an image could be compared with itself, whichever it is compared with."""
    for likeliest in ("training", "image"):
        names = set(CFlow(make_config("cflow", SMALL | {"num_levels": 1, "likeliest": likeliest})).state_dict())
        assert {name.partition(".")[0] for name in names} == {"backbone", "flows", "upsamples", "ceilings"}


def fitted_cflow(dataset, context=None, **settings):
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    config = make_config("cflow", SMALL | {"epochs": 1, "num_levels": 2} | settings)
    detector = build_detector("cflow", config)
    paths = [sample.path for sample in dataset.train]
    images, kept = image_set(detector, paths[:4]), image_set(detector, paths[4:6])
    report = detector.fit(images, kept, context=context or FitContext())
    return detector.eval(), images, report


@pytest.mark.parametrize("is_standardised", [False, True])
def test_ceilings_are_the_training_maxima(dataset, is_standardised):
    detector, images, report = fitted_cflow(dataset, is_standardised=is_standardised)
    with torch.no_grad():
        maps = detector.standardise(detector.backbone(images.batch(range(len(images)))))
        lowered = detector.lower().eval()
        likelihoods = lowered.head(lowered.backbone(images.batch(range(len(images)))))
    np.testing.assert_allclose(detector.ceilings, [item.max() for item in likelihoods], rtol=0, atol=1e-4)
    assert report["ceilings"] == detector.ceilings.tolist()
    assert report["steps_per_epoch"] == sum(max(1, 4 * h * w // 256) for h, w in detector.sizes)
    for item in maps:
        deviation, mean = torch.std_mean(item.transpose(0, 1).flatten(1), 1)
        is_unit = bool((mean.abs().max() < 1e-4) & ((deviation - 1.0).abs().median() < 1e-4))
        assert is_unit == is_standardised


def test_constants_do_not_depend_on_the_batch(dataset):
    detector, images, _ = fitted_cflow(dataset)
    odd = 3.0 * torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        alone = [detector(image[None]) for image in (*images.batch([0, 1]), odd[0])]
        together = detector(torch.cat([images.batch([0, 1]), odd]))
    for value, parts in zip(together, zip(*alone, strict=True), strict=True):
        np.testing.assert_allclose(value.numpy(), torch.cat(parts).numpy(), rtol=0, atol=1e-5)


def test_a_channel_that_never_varies_is_only_centred():
    module = CFlow(make_config("cflow", SMALL | {"num_levels": 1, "is_standardised": True})).standardise
    vectors = torch.randn(2, 64, 128, generator=torch.Generator().manual_seed(0)) * 3.0 + 1.0
    vectors[:, :, 5] = 0.25
    module.learn([vectors])
    assert float(module.scale0[5]) == 1.0
    assert float(module.centre0[5]) == 0.25
    np.testing.assert_array_equal(vectors[:, :, 5], 0.0)
    np.testing.assert_allclose(vectors[:, :, :5].flatten(0, 1).std(0), 1.0, rtol=0, atol=1e-5)


def test_every_vector_is_dealt_once_and_what_is_left_over_is_left_out():
    orders = deal([1000, 130], 256, torch.Generator().manual_seed(0))
    assert [tuple(order.shape) for order in orders] == [(3, 256), (1, 130)]
    for order, count in zip(orders, (1000, 130), strict=True):
        dealt = order.flatten().tolist()
        assert len(set(dealt)) == len(dealt)
        assert set(dealt) <= set(range(count))
        assert dealt != sorted(dealt)
    # Two batches of 32 and one of 6: 32 · 64 / 256 and 32 · 16 / 256 steps, then 1 of 384 vectors and 1 of 96.
    assert num_steps(70, 32, counts=[64, 16], per_step=256) == 2 * (8 + 2) + 2


def draw_of(indices, step):
    return Draw(indices=torch.tensor(indices), epoch=step, step=step, seed=3)


def test_vectors_are_dealt_anew_at_every_draw():
    features = [torch.arange(4.0 * 30).view(4, 30, 1), torch.arange(4.0 * 8).view(4, 8, 1)]
    source = CachedVectors(features, 20)
    (levels, first), (_, second), (_, again) = (source[draw_of([2, 0], step)] for step in (0, 1, 0))
    np.testing.assert_array_equal(levels[0][:, 0, 0], [60.0, 0.0])
    assert [tuple(order.shape) for order in first] == [(3, 20), (1, 16)]
    assert not torch.equal(first[0], second[0])
    assert torch.equal(first[0], again[0])


def test_images_are_turned_by_a_few_degrees_anew(dataset):
    detector = CFlow(make_config("cflow", SMALL))
    images = image_set(detector, [sample.path for sample in dataset.train])
    black = [-2.0, -1.9, -1.8]
    source = TurnedImages(images, (64, 64), largest_deg=5.0, black=black, sizes=detector.sizes, per_step=256)
    ((first,), orders), ((second,), _), ((again,), _) = (source[draw_of([1, 1, 4], step)] for step in (0, 1, 0))
    assert first.shape == (3, 3, 64, 64)
    assert [tuple(order.shape) for order in orders] == [(1, 192), (1, 48), (1, 12)]
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert not torch.equal(first[0], first[1])
    # Within 5° the middle hardly moves; corners come from outside.
    original = images.batch([1])[0]
    for turned in (first[0], second[0]):
        np.testing.assert_array_equal(turned[:, 31:33, 31:33], original[:, 31:33, 31:33])
        outside = (turned == torch.tensor(black)[:, None, None]).all(0)
        assert 0 < int(outside.sum()) < 0.1 * outside.numel()
    still = TurnedImages(images, (64, 64), largest_deg=0.0, black=black, sizes=detector.sizes, per_step=256)
    assert torch.equal(still[draw_of([1], 0)][0][0][0], original)


def test_levels_learn_from_their_own_vectors_and_positions(dataset, monkeypatch):
    seen, likelihood = [], CFlow.log_likelihood

    def noted(detector, level, vectors, positions):
        if torch.is_grad_enabled():
            seen.append((level, vectors.clone(), positions.clone()))
        return likelihood(detector, level, vectors, positions)

    monkeypatch.setattr(CFlow, "log_likelihood", noted)
    detector, images, report = fitted_cflow(dataset, rotation_deg=0.0, vectors_per_step=64, batch_size=3)
    assert len(seen) == report["steps_per_epoch"] == (3 + 1) + (1 + 1)
    with torch.no_grad():
        levels = detector.vectors(images.batch(range(len(images))))
    for level, vectors, positions in seen:
        at = levels[level][:, positions]
        assert ((at - vectors).abs().amax(2) < 1e-4).any(0).all()


class KilledError(Exception):
    pass


def test_a_killed_training_goes_on_to_the_same_bits(dataset, tmp_path):
    """Also within an epoch, whose images are turned and dealt out as they would have been."""

    def kill(stage, done, *_):
        if stage == "training" and done == 3:
            raise KilledError

    settings = {"batch_size": 2, "epochs": 2, "vectors_per_step": 64}
    whole, _, report = fitted_cflow(dataset, **settings)
    context = FitContext(run=tmp_path, save_every_s=1e-9)
    with pytest.raises(KilledError):
        fitted_cflow(dataset, context=dataclasses.replace(context, progress=kill), **settings)
    assert epochs_kept(tmp_path) == (1, 1, 2)
    resumed, _, again = fitted_cflow(dataset, context=context, **settings)
    assert again["best_holdout_loss"] == report["best_holdout_loss"]
    for name, value in whole.state_dict().items():
        np.testing.assert_array_equal(resumed.state_dict()[name].numpy(), value.numpy(), err_msg=name)


def test_each_category_has_the_authors_size():
    by_category = CFlow.presets()["paper"].by_category
    sides = {category: values["crop_px"] for category, values in by_category.items()}
    assert len(sides) == 15
    assert (sides["transistor"], sides["hazelnut"], sides["screw"]) == (128, 256, 512)
    assert all(values["crop_px"] == values["resize_px"] for values in by_category.values())


@pytest.mark.parametrize("num_levels", [0, 4])
def test_levels_that_are_not_there(num_levels):
    with pytest.raises(UsageError, match=rf"num_levels is {num_levels}; expected from 1 to 3"):
        CFlow(make_config("cflow", SMALL | {"num_levels": num_levels}))

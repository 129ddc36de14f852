"""The converted models against small references in float64, written from the papers' formulas and the structure."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lineproof.core.errors import BadInputError
from lineproof.importers.anomalib.padim import covariance_factor

SIGMA = 4.0


def smoothed(maps):
    """A Gaussian of sigma 4, cut off at 16 pixels, over maps (N, H, W) whose outermost pixels are not repeated."""
    taps = torch.arange(-16, 17, dtype=torch.float64)
    taps = torch.exp(-0.5 * (taps / SIGMA) ** 2)
    taps = taps / taps.sum()
    grown = F.pad(maps[:, None], (16, 16, 16, 16), mode="reflect")
    return F.conv2d(F.conv2d(grown, taps.view(1, 1, 33, 1)), taps.view(1, 1, 1, 33))[:, 0]


def grown(maps, size, mode):
    extra = {} if mode == "nearest" else {"align_corners": False}
    return F.interpolate(maps[:, None], size=size, mode=mode, **extra)[:, 0]


def test_padim_is_the_mahalanobis_distance_at_each_position(rebuild, model_tensors, features, check_equal):
    tensors = model_tensors("padim")
    mean, inverse = tensors["gaussian.mean"].double(), tensors["gaussian.inv_covariance"].double()

    def reference(images):
        maps = features(images)
        joined = torch.cat([F.interpolate(item, size=maps[0].shape[2:], mode="nearest") for item in maps], 1)
        away = joined[:, tensors["idx"]].flatten(2) - mean
        distance = torch.einsum("nip,pij,njp->np", away, inverse, away).sqrt()
        anomaly_map = smoothed(grown(distance.unflatten(1, maps[0].shape[2:]), images.shape[2:], "bilinear"))
        return anomaly_map.amax((1, 2)), anomaly_map

    check_equal(rebuild("padim"), reference)


def test_an_inverse_covariance_that_rounding_made_indefinite_counts_as_zero_there():
    exact = torch.diag(torch.tensor([2.0, 1.0, -1e-3]))[None]
    factor = covariance_factor(exact)
    np.testing.assert_allclose((factor[0].T @ factor[0]).numpy(), np.diag([2.0, 1.0, 0.0]), atol=1e-6)


@pytest.mark.parametrize("num_neighbours", [5, 1])
def test_patchcore_is_the_reweighted_distance_to_the_bank(
    num_neighbours, rebuild, model_tensors, features, check_equal
):
    bank = model_tensors("patchcore")["memory_bank"].double()

    def reference(images):
        fine, coarse = (F.avg_pool2d(item, 3, 1, 1) for item in features(images)[1:])
        joined = torch.cat([fine, F.interpolate(coarse, fine.shape[2:], mode="bilinear", align_corners=False)], 1)
        patches = joined.flatten(2).transpose(1, 2)
        distances = torch.cdist(patches, bank[None], compute_mode="donot_use_mm_for_euclid_dist")
        nearest, where = distances.min(2)
        scores = []
        for image, worst in enumerate(nearest.argmax(1)):
            own = bank[where[image, worst]]
            around = (bank - own).norm(dim=1).argsort()[:num_neighbours]
            from_worst = (bank[around] - patches[image, worst]).norm(dim=1)
            weight = 1 - torch.exp(from_worst[0]) / torch.exp(from_worst).sum() if num_neighbours > 1 else 1.0
            scores.append(weight * nearest[image, worst])
        anomaly_map = smoothed(grown(nearest.unflatten(1, fine.shape[2:]), images.shape[2:], "nearest"))
        return torch.stack(scores), anomaly_map

    check_equal(rebuild("patchcore", num_neighbors=num_neighbours), reference)


def test_fastflow_is_the_likelihood_under_its_flows(rebuild, model_tensors, features, check_equal):
    tensors = {name: tensor.double() for name, tensor in model_tensors("fastflow").items()}

    def flow(item, level):
        size = item.shape[1:]
        item = F.layer_norm(item, size, tensors[f"norms.{level}.weight"], tensors[f"norms.{level}.bias"])
        for step in range(2):

            def part(name, below=f"fast_flow_blocks.{level}.module_list.{step}"):
                return tensors[f"{below}.{name}"]

            kept, changed = item.chunk(2, 1)
            padding = part("subnet.0.weight").shape[2] // 2
            hidden = F.conv2d(kept, part("subnet.0.weight"), part("subnet.0.bias"), padding=padding).relu()
            steer = 0.1 * F.conv2d(hidden, part("subnet.2.weight"), part("subnet.2.bias"), padding=padding)
            log_scale, shift = steer.chunk(2, 1)
            changed = changed * torch.exp(2.0 * torch.tanh(log_scale)) + shift
            gain = 0.2 * torch.log1p(torch.exp(0.5 * part("global_scale")))
            item = F.conv2d(torch.cat([kept, changed], 1) * gain + part("global_offset"), part("w_perm"))
        return item

    def reference(images):
        likelihoods = [
            torch.exp(-0.5 * flow(item, level).square().mean(1)) for level, item in enumerate(features(images))
        ]
        anomaly_map = -torch.stack([grown(item, images.shape[2:], "bilinear") for item in likelihoods]).mean(0)
        return anomaly_map.amax((1, 2)), anomaly_map

    check_equal(rebuild("fastflow"), reference)


def test_fastflow_with_modules_for_padding_is_the_same(rebuild, contents, write, convert_file):
    values = contents("fastflow")
    for name in list(values["state_dict"]):
        for present, former in (("subnet.0.", "subnet.1."), ("subnet.2.", "subnet.4.")):
            if present in name:
                values["state_dict"][name.replace(present, former)] = values["state_dict"].pop(name)
    expected = rebuild("fastflow").state_dict()
    found = convert_file(write(values)).state_dict()
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_fastflow_with_a_dense_permutation_is_refused(contents, write, convert_file):
    values = contents("fastflow")
    name = "model.fast_flow_blocks.1.module_list.0.w_perm"
    values["state_dict"][name] = values["state_dict"][name] * 0.9
    with pytest.raises(BadInputError, match=r"fast_flow_blocks\.1\.module_list\.0\.w_perm, which is no permutation"):
        convert_file(write(values))

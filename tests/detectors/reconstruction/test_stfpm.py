"""STFPM against the equations of its paper, in float64."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.nn import functional as F  # noqa: E402

from lineproof.detectors.base import build_detector, make_config  # noqa: E402
from lineproof.detectors.reconstruction.stfpm import distance, matching_loss  # noqa: E402


def small(**settings):
    torch.manual_seed(0)
    settings = {"backbone": "resnet18", "weights": "random", "resize_px": (64, 96), "crop_px": (64, 96), **settings}
    return build_detector("stfpm", make_config("stfpm", settings))


def plain_distance(a, b):
    """Equation 1 written out: half the squared distance of the vectors of length 1 at each position."""
    a, b = (item.double().numpy() for item in (a, b))
    unit_a, unit_b = (item / np.sqrt((item**2).sum(1, keepdims=True)) for item in (a, b))
    return 0.5 * ((unit_a - unit_b) ** 2).sum(1)


def test_map_is_the_product_of_the_upsampled_distances():
    detector = small()
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        score, anomaly_map = detector(images)
        maps = detector.backbone(images), detector.student(images)
        wanted = np.ones((2, 64, 96))
        for a, b in zip(*maps, strict=True):
            layer = torch.from_numpy(plain_distance(a, b))[:, None]
            wanted *= F.interpolate(layer, (64, 96), mode="bilinear", align_corners=False)[:, 0].numpy()
    assert [item.shape[1] for item in maps[0]] == [64, 128, 256]
    np.testing.assert_allclose(anomaly_map.numpy(), wanted, rtol=1e-4, atol=1e-6 * wanted.max())
    np.testing.assert_array_equal(score.numpy(), anomaly_map.numpy().max((1, 2)))


def test_the_loss_is_the_mean_over_positions_summed_over_stages():
    generator = torch.Generator().manual_seed(2)
    maps = [tuple(torch.randn(3, 5, size, size + 1, generator=generator) for size in (8, 4)) for _ in range(2)]
    wanted = sum(plain_distance(a, b).mean() for a, b in zip(*maps, strict=True))
    assert float(matching_loss(*maps)) == pytest.approx(wanted, rel=1e-5)
    np.testing.assert_allclose(distance(3.0 * maps[0][0], maps[0][0]).numpy(), 0.0, atol=1e-12)


def test_where_one_of_the_two_sees_nothing_the_distance_is_a_half():
    nothing, something = torch.zeros(1, 4, 2, 2), torch.ones(1, 4, 2, 2)
    assert distance(nothing, something).tolist() == [[[0.5, 0.5], [0.5, 0.5]]]
    assert distance(nothing, nothing).tolist() == [[[0.0, 0.0], [0.0, 0.0]]]


def test_the_student_is_a_trained_network_of_the_teachers_kind_and_the_teacher_is_frozen():
    detector = small()
    teacher, student = detector.backbone.network.state_dict(), detector.student.network.state_dict()
    assert {name: item.shape for name, item in teacher.items()} == {name: item.shape for name, item in student.items()}
    assert not torch.equal(teacher["conv1.weight"], student["conv1.weight"])
    assert detector.extra_parameters() == sum(item.numel() for item in detector.student.parameters())
    assert not any(item.requires_grad for item in detector.backbone.parameters())

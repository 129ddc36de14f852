import numpy as np
import pytest

torch = pytest.importorskip("torch")
F = torch.nn.functional

from lineproof.core.errors import UsageError  # noqa: E402
from lineproof.detectors.base import build_detector, make_config  # noqa: E402
from lineproof.detectors.reconstruction.reverse_distillation import (  # noqa: E402
    Student,
    distillation_loss,
    paper_blocks,
    signed_maps,
)
from lineproof.detectors.training.train import train  # noqa: E402

ADAM = torch.optim.Adam
UNSIGNED = (False, False, False)


def small(**settings):
    torch.manual_seed(0)
    settings = {"backbone": "resnet18", "weights": "random", "resize_px": 64, "crop_px": 64, **settings}
    return build_detector("reverse_distillation", make_config("reverse_distillation", settings))


@pytest.mark.parametrize(
    ("channels", "published"),
    [((256, 512, 1024), 83.8e6), ((64, 128, 256), 15.4e6)],
    ids=["wide_resnet50_2", "resnet18"],
)
def test_student_has_the_papers_size(channels, published):
    with torch.device("meta"):
        student = Student(channels, signed=UNSIGNED, blocks=paper_blocks(channels))
    count = sum(item.numel() for item in student.parameters())
    np.testing.assert_allclose(count, published, rtol=5e-3)


def test_extra_parameters_are_the_students():
    detector = small()
    assert detector.extra_parameters() == sum(item.numel() for item in detector.student.parameters())


def test_student_restores_every_shape():
    maps = (torch.randn(2, 8, 16, 16), torch.randn(2, 16, 8, 8), torch.randn(2, 24, 4, 4))
    with torch.no_grad():
        restored = Student((8, 16, 24), signed=UNSIGNED, blocks=paper_blocks((8, 16, 24)))(maps)
    assert [item.shape for item in restored] == [item.shape for item in maps]
    assert all(float(item.min()) >= 0.0 for item in restored)


def test_student_can_restore_negative_maps_of_a_teacher_that_has_them():
    assert signed_maps(small().backbone) == UNSIGNED
    detector = small(backbone="tf_efficientnet_lite0")
    assert signed_maps(detector.backbone) == (True, True, True)
    with torch.no_grad():
        restored = detector.student(detector.backbone(torch.randn(1, 3, 64, 64)))
    assert all(float(item.min()) < 0.0 for item in restored)


@pytest.mark.parametrize(("border", "mode"), [("symmetric", "reflect"), ("reflect", "mirror")])
def test_map_is_the_sum_of_smoothed_cosines(border, mode):
    detector = small(border=border)
    ndimage = pytest.importorskip("scipy.ndimage")
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        score, anomaly_map = detector(images)
        maps = detector.backbone(images)
        wanted = np.zeros((2, 64, 64))
        for a, b in zip(maps, detector.student(maps), strict=True):
            a, b = a.double(), b.double()
            cosine = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))
            grown = F.interpolate(1.0 - cosine[:, None], (64, 64), mode="bilinear", align_corners=True)[:, 0].numpy()
            wanted += np.stack([ndimage.gaussian_filter(item, 4.0, mode=mode) for item in grown])
    np.testing.assert_allclose(anomaly_map.numpy(), wanted, atol=2e-6)
    np.testing.assert_array_equal(score.numpy(), anomaly_map.numpy().max((1, 2)))


@pytest.mark.parametrize(("border", "mode"), [("symmetric", "reflect"), ("reflect", "mirror")])
def test_map_may_be_the_smoothed_product_of_cosines(border, mode):
    detector = small(combination="product", border=border)
    ndimage = pytest.importorskip("scipy.ndimage")
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        score, anomaly_map = detector(images)
        lowered = detector.lower().eval()(images)
        maps = detector.backbone(images)
        product = torch.ones(2, 64, 64, dtype=torch.float64)
        for a, b in zip(maps, detector.student(maps), strict=True):
            difference = 1.0 - F.cosine_similarity(a.double(), b.double())
            product *= F.interpolate(difference[:, None], (64, 64), mode="bilinear", align_corners=True)[:, 0]
    wanted = np.stack([ndimage.gaussian_filter(item, 4.0, mode=mode) for item in product.numpy()])
    np.testing.assert_allclose(anomaly_map.numpy(), wanted, atol=2e-6)
    np.testing.assert_array_equal(score.numpy(), anomaly_map.numpy().max((1, 2)))
    np.testing.assert_allclose(lowered[1].numpy(), wanted, atol=4e-6)


@pytest.mark.parametrize(
    ("backbone", "depths", "width", "extra"),
    [
        ("resnet18", [2, 2, 2], None, 15_383_168),
        ("resnet34", [3, 4, 6], None, 17_450_624),
        ("resnet50", [3, 4, 6], 64, 46_651_392),
        ("wide_resnet50_2", [3, 4, 6], 128, 55_747_072),
    ],
)
def test_blocks_may_be_the_teachers(backbone, depths, width, extra):
    """Counts of trained parameters as in anomalib's bottleneck and decoder."""
    detector = small(backbone=backbone, blocks="teacher")
    assert [len(stage) for stage in detector.student.decoder] == depths
    assert detector.extra_parameters() == extra
    if width:
        assert detector.student.decoder[-1][0].body[0].conv.out_channels == width
        assert detector.student.embedding[0].body[0].conv.out_channels == 512


@pytest.mark.parametrize("backbone", ["tf_efficientnet_lite0", "resnext50_32x4d"])
def test_a_teacher_whose_blocks_cannot_be_mirrored_is_refused(backbone):
    with pytest.raises(UsageError, match=r"blocks is 'teacher' and the backbone a \w+ whose blocks cannot be mirrored"):
        small(backbone=backbone, blocks="teacher")


def test_checkpoints_have_the_names_that_they_had():
    """Those of the release before levels could be multiplied: no other module holds tensors by default."""
    names = set(small().state_dict())
    assert {name.partition(".")[0] for name in names} == {"backbone", "student", "upsamples"}
    assert {f"upsamples.{level}.rows" for level in range(3)} < names


def test_a_perfect_student_finds_nothing():
    maps = tuple(torch.rand(2, 4, size, size) + 0.1 for size in (8, 4, 2))
    assert float(distillation_loss(maps, tuple(3.0 * item for item in maps))) == pytest.approx(0.0, abs=1e-6)
    assert float(distillation_loss(maps, tuple(-item for item in maps))) == pytest.approx(6.0, abs=1e-5)


@pytest.mark.slow
def test_the_learning_rate_falls_only_where_it_is_asked_to(dataset, tmp_path, monkeypatch):
    rates = {}
    for anneals in (False, True):
        seen = rates[anneals] = []

        class Recorder(ADAM):
            def step(self, closure=None, seen=seen):
                seen.append(self.param_groups[0]["lr"])
                return super().step(closure)

        monkeypatch.setattr(torch.optim, "Adam", Recorder)
        config = small(epochs=2, batch_size=4, anneals=anneals).config
        train("reverse_distillation", config, dataset=dataset, run=tmp_path / str(anneals))
    assert rates[False] == [5e-3] * 4
    # The last of four steps: a quarter of the cosine is left.
    assert len(rates[True]) == 4
    assert rates[True][-1] == pytest.approx(5e-3 * (1e-3 + 0.999 * 0.5 * (1.0 + np.cos(0.75 * np.pi))))


@pytest.mark.parametrize("size", [32, 100])
def test_a_size_that_cannot_be_halved_is_refused(size):
    with pytest.raises(UsageError, match=rf"crop_px is {size}x128; .*multiple of 32, at least 64\. Use such as"):
        small(resize_px=128, crop_px=(size, 128))

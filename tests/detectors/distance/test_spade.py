"""SPADE against brute force in float64; its gallery, whole and compressed."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

torch = pytest.importorskip("torch")

from lineproof.core.errors import UsageError  # noqa: E402
from lineproof.detectors.base import FitContext, build_detector, make_config  # noqa: E402
from lineproof.detectors.distance.pyramid import retrieve  # noqa: E402
from lineproof.detectors.distance.spade import Spade  # noqa: E402
from lineproof.detectors.nn import neighbours  # noqa: E402
from lineproof.detectors.nn.neighbours import GallerySearch, covering_radius, nearest_distance  # noqa: E402
from lineproof.detectors.training.train import image_set  # noqa: E402

SMALL = {"backbone": "resnet18", "weights": "random", "resize_px": 64, "crop_px": 64, "num_retrieved": 3}


def gauss(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def brute_force(queries, bank):
    """Distance to the nearest bank vector, float64, by explicit differences."""
    return np.sqrt(((queries[:, None, :] - bank[None, :, :]) ** 2).sum(2)).min(1)


@pytest.fixture(scope="module")
def paths(dataset):
    return [sample.path for sample in dataset.train]


def fitted_spade(paths, **settings):
    torch.manual_seed(0)
    detector = build_detector("spade", make_config("spade", SMALL | settings))
    images = image_set(detector, paths[:6])
    report = detector.fit(images, image_set(detector, paths[6:]), context=FitContext())
    return detector.eval(), images, report


@pytest.fixture(scope="module")
def whole(paths):
    return fitted_spade(paths)


@pytest.fixture(scope="module")
def queries(whole, paths):
    detector, _, _ = whole
    return image_set(detector, paths[6:8]).batch([0, 1])


def described(detector, batch):
    """Vectors of the three levels (N, h·w, C) and pooled features (N, D), float64."""
    with torch.no_grad():
        maps = [item.double().numpy() for item in detector.backbone(batch)]
    vectors = [item.reshape(*item.shape[:2], -1).transpose(0, 2, 1) for item in maps[:3]]
    return vectors, maps[3].mean((2, 3))


def test_score_and_map_are_those_of_the_definition(whole, queries):
    detector, images, _ = whole
    gallery, globals_ = described(detector, images.batch(range(6)))
    vectors, pooled = described(detector, queries)
    with torch.no_grad():
        score, anomaly_map = detector(queries)
    for n in range(2):
        distance = np.sqrt(((globals_ - pooled[n]) ** 2).sum(1))
        nearest = np.argsort(distance)[:3]
        np.testing.assert_allclose(score[n], distance[nearest].mean(), rtol=1e-5)
        want = np.zeros((64, 64))
        for level, size in enumerate((16, 8, 4)):
            distances = brute_force(vectors[level][n], gallery[level][nearest].reshape(-1, gallery[level].shape[2]))
            grown = torch.nn.functional.interpolate(
                torch.from_numpy(distances.reshape(1, 1, size, size)), (64, 64), mode="bilinear", align_corners=False
            )
            want += gaussian_filter(grown[0, 0].numpy(), 4.0, mode="reflect") / 3.0
        np.testing.assert_allclose(anomaly_map[n], want, rtol=0, atol=1e-5 * want.max())


def test_score_may_come_from_the_map(paths, whole, queries):
    detector, _, _ = fitted_spade(paths, image_score="map")
    with torch.no_grad():
        score, anomaly_map = detector(queries)
        lowered_score, _ = detector.lower().eval()(queries)
        retrieval_score, same_map = whole[0](queries)
    np.testing.assert_array_equal(score, anomaly_map.flatten(1).max(1).values)
    np.testing.assert_allclose(lowered_score, score, rtol=1e-6)
    np.testing.assert_array_equal(anomaly_map, same_map)
    assert not np.allclose(score, retrieval_score)


def test_a_gallery_image_has_a_map_of_zeros(whole):
    """The matrix form alone would leave about 1e-3 of the features' norm here."""
    detector, images, _ = whole
    batch = images.batch([2, 4])
    for module in (detector, detector.lower().eval()):
        with torch.no_grad():
            score, anomaly_map = module(batch)
        assert float(score.min()) > 0.0
        np.testing.assert_allclose(anomaly_map, 0.0, rtol=0, atol=1e-5)


@pytest.mark.parametrize("at_once", [1, 2, 3, 100])
@pytest.mark.parametrize("shift", [0.0, 30.0])
def test_search_in_parts_equals_brute_force(monkeypatch, at_once, shift):
    monkeypatch.setattr(neighbours, "_PRODUCT_LIMIT_BYTES", at_once * 4 * 20 * 7)
    gallery, maps = gauss(9, 7, 12) + shift, gauss(2, 12, 4, 5, seed=1) + shift
    centre = gallery.reshape(-1, 12).mean(0)
    search = GallerySearch(
        torch.from_numpy(gallery - centre).float(),
        torch.from_numpy(centre[:, None]).float(),
        num_positions=20,
        num_images=5,
    )
    assert [len(part) for part in search.parts] == {
        1: [1] * 5, 2: [2, 2, 1], 3: [3, 2], 100: [5]
    }[at_once]  # fmt: skip
    images = torch.tensor([[0, 3, 8, 1, 5], [7, 6, 2, 4, 0]])
    distances = search(torch.from_numpy(maps).float(), images)
    assert distances.shape == (2, 4, 5)
    for n in range(2):
        want = brute_force(maps[n].reshape(12, 20).T, gallery[images[n].numpy()].reshape(-1, 12))
        np.testing.assert_allclose(distances[n].flatten(), want, rtol=0, atol=1e-5 if shift == 0.0 else 3e-5)


def test_products_stay_below_64_mb_per_frame():
    """At 256 px the first level has 4096 positions: one image at a time, the coarsest all fifty at once."""
    counts = []
    for size in (64, 32, 16):
        gallery = torch.zeros(50, size * size, 1)
        search = GallerySearch(gallery, torch.zeros(1, 1), num_positions=size * size, num_images=50)
        counts.append(len(search.parts))
        assert sum(len(part) for part in search.parts) == 50
    assert counts == [50, 4, 1]


def test_lowered_form_keeps_one_copy_of_the_gallery(whole):
    detector, _, _ = whole
    lowered = detector.lower()
    for level in range(3):
        gallery = detector.get_buffer(f"gallery{level}")
        assert lowered.head.levels[level].products.gallery.data_ptr() == gallery.data_ptr()


def test_retrieval_does_not_cancel():
    """Images far from the origin and near each other: |q|² − 2qm + |m|² in float32 would not tell them apart."""
    gallery = 1000.0 + 0.01 * np.arange(6.0)[:, None] * np.ones((1, 32))
    query = gallery[3:4] + 0.001
    distance, index = retrieve(torch.from_numpy(query).float(), torch.from_numpy(gallery).float(), 3)
    assert index.tolist() == [[3, 4, 2]]
    want = np.array([[0.001, 0.009, 0.011]]) * np.sqrt(32)
    np.testing.assert_allclose(distance, want, rtol=0, atol=1e-3)


def test_which_of_two_twins_is_retrieved_does_not_matter(paths, queries):
    """Images stored twice tie in TopK; any choice among them gives the same answer."""
    single, _, _ = fitted_spade(paths)
    twins, _, _ = fitted_spade(paths, num_retrieved=5)
    order = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5])
    with torch.no_grad():
        want = single(queries)
        for level in range(3):
            twins.register_buffer(f"gallery{level}", twins.get_buffer(f"gallery{level}")[order])
        twins.globals = twins.globals[order]
        _, anomaly_map = twins(queries)
        _, lowered_map = twins.lower().eval()(queries)
    np.testing.assert_allclose(anomaly_map, want[1], rtol=0, atol=1e-5)
    np.testing.assert_allclose(lowered_map, want[1], rtol=0, atol=1e-5)


def test_fewer_vectors_per_image_lengthen_distances_by_the_radius_at_most(paths, whole, queries):
    detector, _, report = fitted_spade(paths, vectors_per_image=20)
    assert [detector.get_buffer(f"gallery{level}").shape[:2] for level in range(3)] == [(6, 20), (6, 20), (6, 16)]
    radii = [report[f"vector_radius{level}"] for level in range(3)]
    assert radii[0] > 0.0 < radii[1]
    assert radii[2] == 0.0
    with torch.no_grad():
        score, anomaly_map = detector(queries)
        full_score, full_map = whole[0](queries)
    np.testing.assert_array_equal(score, full_score)
    longer = (anomaly_map - full_map).numpy()
    assert longer.max() > 1e-3
    assert longer.min() >= -1e-5
    assert longer.max() <= sum(radii) / 3 + 1e-5


def test_fewer_images_are_a_coreset(paths, whole):
    detector, images, report = fitted_spade(paths, num_images=4)
    _, globals_ = described(detector, images.batch(range(6)))
    kept = detector.globals.double().numpy()
    rows = [int(np.abs(globals_ - row).sum(1).argmin()) for row in kept]
    assert len(set(rows)) == 4
    np.testing.assert_allclose(kept, globals_[rows], rtol=0, atol=1e-5)
    np.testing.assert_allclose(report["image_radius"], brute_force(globals_, globals_[rows]).max(), rtol=1e-4)
    for level in range(3):
        vectors = detector.get_buffer(f"gallery{level}") + detector.get_buffer(f"centre{level}").T
        full = whole[0].get_buffer(f"gallery{level}") + whole[0].get_buffer(f"centre{level}").T
        np.testing.assert_allclose(vectors, full[rows], rtol=0, atol=1e-5)


@pytest.mark.parametrize("settings", [{}, {"num_images": 6}, {"vectors_per_image": 256}])
def test_nothing_is_lost_where_nothing_is_dropped(paths, settings):
    detector, images, report = fitted_spade(paths, **settings)
    vectors, _ = described(detector, images.batch(range(6)))
    assert "image_radius" not in report
    for level in range(3):
        assert report[f"vector_radius{level}"] == 0.0
        stored = detector.get_buffer(f"gallery{level}") + detector.get_buffer(f"centre{level}").T
        np.testing.assert_allclose(stored, vectors[level], rtol=0, atol=1e-5)


def test_radius_is_the_largest_nearest_distance():
    vectors, chosen = gauss(3000, 6), gauss(40, 6, seed=1)
    want = brute_force(vectors, chosen)
    got = nearest_distance(torch.from_numpy(vectors).float(), torch.from_numpy(chosen).float())
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)
    radius = covering_radius(torch.from_numpy(vectors).float(), torch.from_numpy(chosen).float())
    assert radius == pytest.approx(want.max(), abs=1e-5)


@pytest.mark.parametrize(("settings", "size"), [({}, 6), ({"num_images": 2}, 2)])
def test_a_gallery_with_fewer_images_than_are_retrieved_gives_all(paths, queries, settings, size):
    """The paper's K = 50 on its smallest category, whose gallery holds 48 images: the mean over all of them."""
    detector, _, report = fitted_spade(paths, num_retrieved=50, **settings)
    assert (report["num_images"], report["num_retrieved"], detector.num_retrieved) == (size, size, size)
    assert report["notice"] == f"{size} images are retrieved, not the 50 of num_retrieved: the gallery holds no more."
    with torch.no_grad():
        score, anomaly_map = detector(queries)
        lowered = detector.lower()(queries)
    _, pooled = described(detector, queries)
    distances = np.sqrt(((pooled[:, None] - detector.globals.double().numpy()) ** 2).sum(2))
    assert distances.shape == (2, size)
    np.testing.assert_allclose(score, distances.mean(1), rtol=1e-5)
    np.testing.assert_allclose(lowered[0], score, rtol=1e-5)
    np.testing.assert_allclose(lowered[1], anomaly_map, rtol=1e-4, atol=1e-5)


def test_a_gallery_as_large_as_what_is_retrieved_needs_no_notice(paths):
    _, _, report = fitted_spade(paths, num_retrieved=6)
    assert report["num_retrieved"] == 6
    assert "notice" not in report


def test_a_gallery_larger_than_the_images_is_refused(paths):
    with pytest.raises(UsageError, match="num_images is 7; expected 1 to 6, the number of good images"):
        fitted_spade(paths, num_images=7)


def test_other_image_scores_are_refused():
    with pytest.raises(UsageError, match="image_score is 'mean'; expected retrieval or map"):
        Spade(make_config("spade", SMALL | {"image_score": "mean"}))


@pytest.mark.parametrize("backbone", ["resnet18", "wide_resnet50_2"])
def test_nothing_is_trained(backbone):
    detector = build_detector("spade", make_config("spade", SMALL | {"backbone": backbone}))
    assert detector.extra_parameters() == 0
    assert detector.backbone.channels[-1] == {"resnet18": 512, "wide_resnet50_2": 2048}[backbone]


def test_defaults_are_the_papers():
    config = make_config("spade", {})
    assert (config.num_retrieved, config.resize_px, config.crop_px) == (50, (256, 256), (224, 224))
    assert (config.image_score, config.num_images, config.vectors_per_image) == ("retrieval", 0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["spade", "panda"])
def test_rounding_in_fp16_does_not_exchange_the_last_of_the_images(name, tmp_path):
    """Sixteen images nearly equally far, of which eight are retrieved: another choice of them gives another map."""
    ir, ort = pytest.importorskip("onnx_ir"), pytest.importorskip("onnxruntime")
    from lineproof.core.spec import Preprocessing
    from lineproof.detectors.nn.graph import graph_part
    from lineproof.export.bundle import save_model
    from lineproof.export.passes.fp16 import to_half
    from lineproof.export.to_onnx import export_onnx

    torch.manual_seed(0)
    detector = build_detector(name, make_config(name, SMALL | {"num_retrieved": 8, "image_score": "map"})).eval()
    spec = Preprocessing.of((64, 64, 3), (64, 64), (64, 64), normalisation=detector.normalisation)
    frames = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    with torch.no_grad():
        *levels, pooled = detector.describe(detector.backbone(graph_part(spec)(torch.from_numpy(frames))))
    offsets = torch.nn.functional.normalize(torch.randn(16, pooled.shape[1]), dim=1)
    lengths = 0.1 * float(pooled.norm()) * (1.0 + 1e-4 * torch.arange(16))
    detector.globals = pooled + lengths[:, None] * offsets
    for level, vectors in enumerate(levels):
        gallery = vectors + float(vectors.std()) * torch.randn(16, *vectors.shape[1:])
        detector.register_buffer(f"gallery{level}", gallery)
        detector.register_buffer(f"centre{level}", torch.zeros(vectors.shape[2], 1))

    def anomaly_map(scopes):
        model = ir.load(tmp_path / "model.onnx")
        if scopes:
            to_half(model, scopes)
        save_model(model, tmp_path / "copy")
        session = ort.InferenceSession(str(tmp_path / "copy" / "model.onnx"), providers=["CPUExecutionProvider"])
        return session.run(["anomaly_map"], {"frames": frames})[0]

    (tmp_path / "copy").mkdir()
    save_model(export_onnx(detector, spec, max_batch=1), tmp_path)
    full = anomaly_map(())
    allowed = detector.tolerance("fp16").anomaly_map * np.ptp(full)
    assert np.abs(anomaly_map(detector.half_scopes) - full).max() < allowed
    assert np.abs(anomaly_map(("backbone", *detector.half_scopes)) - full).max() > allowed

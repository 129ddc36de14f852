"""PatchCore's embedding equals the paper's chain; scores equal a direct computation."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.nn import functional as F  # noqa: E402

from lineproof.core.errors import UsageError  # noqa: E402
from lineproof.detectors.base import FitContext, build_detector, make_config  # noqa: E402
from lineproof.detectors.distance.patchcore import Embedding  # noqa: E402


def papers_chain(maps, size):
    """Unfold 3×3, bilinear to the fine grid, 1-D pooling to 1024 values per layer, stacked, pooled to 1024."""
    layers = []
    for item in maps:
        num_images, channels, height, width = item.shape
        patches = F.unfold(item, 3, padding=1).reshape(num_images, channels * 9, height, width)
        if (height, width) != size:
            patches = F.interpolate(patches, size, mode="bilinear", align_corners=False)
        # (positions, channels · 9): each layer is flattened channel by channel, its nine values inside.
        layers.append(patches.permute(0, 2, 3, 1).reshape(-1, channels * 9))
    pooled = [F.adaptive_avg_pool1d(layer[:, None], 1024)[:, 0] for layer in layers]
    stacked = torch.stack(pooled, 1).reshape(len(pooled[0]), 1, -1)
    answer = F.adaptive_avg_pool1d(stacked, 1024)[:, 0]
    return answer.reshape(num_images, *size, 1024).permute(0, 3, 1, 2)


def test_pooled_embedding_equals_the_papers_chain():
    generator = torch.Generator().manual_seed(0)
    maps = (
        torch.randn(2, 512, 8, 6, generator=generator, dtype=torch.float64),
        torch.randn(2, 1024, 4, 3, generator=generator, dtype=torch.float64),
    )
    embedding = Embedding((512, 1024), ((8, 6), (4, 3)))
    assert embedding.dim == 1024
    got = embedding(tuple(item.float() for item in maps))
    np.testing.assert_allclose(got.numpy(), papers_chain(maps, (8, 6)).numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("channels", [(128, 256), (40, 112), (512, 512)])
def test_other_layers_are_averaged_and_concatenated(channels):
    sizes = ((6, 8), (3, 4))
    maps = tuple(torch.randn(1, count, *size) for count, size in zip(channels, sizes, strict=True))
    embedding = Embedding(channels, sizes)
    assert embedding.dim == sum(channels)
    fine, coarse = (
        F.unfold(F.pad(item, (1, 1, 1, 1)), 3).reshape(1, count, 9, *size).mean(2)
        for item, count, size in zip(maps, channels, sizes, strict=True)
    )
    grown = F.interpolate(coarse, (6, 8), mode="bilinear", align_corners=False)
    np.testing.assert_allclose(embedding(maps).numpy(), torch.cat([fine, grown], 1).numpy(), rtol=0, atol=1e-5)


def direct_scores(detector, batch):
    """Score and patch distances in float64 with NumPy, from the same embedding."""
    with torch.no_grad():
        queries = detector.embedding(detector.backbone(batch)).flatten(2).transpose(1, 2).double().numpy()
    bank = detector.bank.double().numpy()
    distances, scores = [], []
    for image in queries:
        all_distances = np.sqrt(np.maximum(((image[:, None] - bank[None]) ** 2).sum(2), 0))
        nearest = all_distances.min(1)
        worst = int(nearest.argmax())
        nearest_row = int(all_distances[worst].argmin())
        order = np.argsort(((bank - bank[nearest_row]) ** 2).sum(1), kind="stable")[: detector.config.num_neighbours]
        others = np.sqrt(((image[worst] - bank[order]) ** 2).sum(1))
        weight = 1.0 - np.exp(nearest[worst]) / np.exp(others).sum()
        scores.append(nearest[worst] * (weight if len(order) > 1 else 1.0))
        distances.append(nearest)
    return np.array(scores), np.array(distances)


def test_scores_equal_a_direct_computation(fit):
    fitted = fit("patchcore")
    batch = fitted.images.batch(range(4))
    want, distances = direct_scores(fitted.detector, batch)
    with torch.inference_mode():
        score, anomaly_map = fitted.detector(batch)
        head = fitted.detector.lower().head(fitted.detector.backbone(batch))
    np.testing.assert_allclose(score.numpy(), want, rtol=1e-5)
    np.testing.assert_allclose(head[0].numpy(), distances, rtol=1e-5, atol=1e-6)
    assert anomaly_map.shape == (4, 64, 64)


def test_the_bank_is_a_subset_of_the_patches(fit):
    fitted = fit("patchcore")
    detector = fitted.detector
    assert detector.bank.shape[0] == fitted.record.fit["bank_size"] == 60
    assert fitted.record.fit["num_vectors"] == 8 * 8 * 8
    assert len(torch.unique(detector.bank, dim=0)) == 60
    assert detector.extra_parameters() == 0
    np.testing.assert_array_equal(detector.table[:, 0].numpy(), np.arange(60))


@pytest.mark.parametrize(("size", "words"), [(5, "would hold 5 of 512"), (600, "would hold 600 of 512")])
def test_a_bank_that_cannot_be_is_refused(fit, size, words):
    fitted = fit("patchcore")
    settings = {**fitted.record.detector.parameters, "weights": "random", "coreset_size": size}
    detector = build_detector("patchcore", make_config("patchcore", settings))
    images = [fitted.images.batch([0])[0]] * 8

    class EightImages:
        def __len__(self):
            return 8

        def batch(self, indices):
            return torch.stack([images[index] for index in indices])

    with pytest.raises(UsageError, match=rf"{words} patch vectors.*num_neighbours = 9.*coreset_ratio"):
        detector.fit(EightImages(), EightImages(), context=FitContext())

"""Nearest neighbours against brute force in float64, the coreset against a naive one."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from lineproof.core.progress import silent  # noqa: E402
from lineproof.detectors.distance.patchcore import reweight  # noqa: E402
from lineproof.detectors.nn import neighbours  # noqa: E402
from lineproof.detectors.nn.neighbours import BankDistance, NearestNeighbour, greedy_coreset, neighbour_table  # noqa: E402


def gauss(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def brute_force(queries, bank):
    """Distance and index of the nearest bank vector, float64, by explicit differences."""
    distance = np.sqrt(((queries[:, None, :] - bank[None, :, :]) ** 2).sum(2))
    return distance.min(1), distance.argmin(1)


def naive_coreset(vectors, size, first):
    """k-centre greedy written from its definition, without any running minimum."""
    chosen = [first]
    while len(chosen) < size:
        distance = np.sqrt(((vectors[:, None, :] - vectors[None, chosen, :]) ** 2).sum(2)).min(1)
        distance[chosen] = -1.0
        chosen.append(int(distance.argmax()))
    return chosen


@pytest.mark.parametrize("shift", [0.0, 100.0])
def test_search_equals_brute_force(shift):
    bank, queries = gauss(50, 12) + shift, gauss(2, 12, 6, 5, seed=1) + shift
    nearest = NearestNeighbour(torch.from_numpy(bank).float())
    vectors, distance, index = nearest(torch.from_numpy(queries).float())
    flat = queries.reshape(2, 12, 30).transpose(0, 2, 1)
    for n in range(2):
        want_distance, want_index = brute_force(flat[n], bank)
        np.testing.assert_array_equal(index[n].numpy(), want_index)
        # Inputs near 100 are themselves rounded to 8e-6 per value.
        np.testing.assert_allclose(distance[n].numpy(), want_distance, rtol=0, atol=1e-6 if shift == 0.0 else 3e-5)
    np.testing.assert_allclose(vectors.numpy(), flat - bank.mean(0), rtol=0, atol=2e-5)


def test_the_reference_search_tells_near_twins_apart(monkeypatch):
    monkeypatch.setattr(neighbours, "_PRODUCT_LIMIT_BYTES", 1)
    bank, queries = gauss(20, 12), gauss(100, 12, seed=1)
    # In float32 a product of two such vectors is off by more than their difference.
    twins = np.concatenate([bank, bank + 1e-6 * gauss(20, 12, seed=2)]) + 30.0
    rounded = [item.astype(np.float32).astype(np.float64) for item in (queries + 30.0, twins)]
    got = neighbours.nearest_index(*(torch.from_numpy(item).float() for item in rounded))
    np.testing.assert_array_equal(got.numpy(), brute_force(*rounded)[1])


def test_distance_to_a_bank_vector_itself_is_zero():
    """The matrix form |q|² − 2qm + |m|² would leave about 1e-2 here; the re-taken difference leaves none."""
    bank = torch.from_numpy(gauss(20, 8) + 50.0).float()
    nearest = NearestNeighbour(bank)
    _, distance, index = nearest(bank.T.reshape(1, 8, 4, 5))
    np.testing.assert_array_equal(index[0].numpy(), np.arange(20))
    np.testing.assert_allclose(distance[0].numpy(), 0.0, rtol=0, atol=1e-5)


def test_search_hardly_depends_on_its_precision():
    """A winner picked in fp16 may be another near one, but its distance is exact: the error is the gap alone."""
    bank, queries = gauss(200, 16), gauss(1, 16, 10, 10, seed=1)
    exact = NearestNeighbour(torch.from_numpy(bank).float())
    halved = NearestNeighbour(torch.from_numpy(bank).float())
    halved.search = Rounded()
    values = torch.from_numpy(queries).float()
    _, want, _ = exact(values)
    _, got, index = halved(values)
    assert float((got - want).min()) >= -1e-6
    assert float((got - want).max()) < 5e-3
    flat = queries.reshape(16, 100).T
    own = np.sqrt(((flat - bank[index[0].numpy()]) ** 2).sum(1))
    np.testing.assert_allclose(got[0].numpy(), own, rtol=0, atol=1e-5)


class Rounded(torch.nn.Module):
    def forward(self, queries, bank, bias):
        products = torch.nn.functional.conv2d(queries.half().float(), bank.half().float(), bias.half().float())
        return products.half().float()


def test_bank_is_no_parameter():
    assert not list(NearestNeighbour(torch.from_numpy(gauss(4, 3)).float()).parameters())


@pytest.mark.parametrize("seed", [0, 1])
def test_coreset_equals_the_naive_one(seed):
    vectors = gauss(120, 6, seed=seed)
    chosen = greedy_coreset(
        torch.from_numpy(vectors).float(), 40, projected_dim=6, seed=seed, progress=silent
    ).tolist()  # fmt: skip
    assert chosen == naive_coreset(vectors, 40, chosen[0])


def test_coreset_takes_every_vector_once():
    vectors = torch.from_numpy(np.repeat(gauss(10, 4), 3, axis=0)).float()
    chosen = greedy_coreset(vectors, 30, projected_dim=4, seed=0, progress=silent)
    assert sorted(chosen.tolist()) == list(range(30))
    # The ten different vectors come before any repetition.
    assert len({int(index) // 3 for index in chosen[:10]}) == 10


def test_coreset_is_projected_by_a_seeded_gauss():
    vectors = torch.from_numpy(gauss(80, 64)).float()
    make = {"projected_dim": 8, "progress": silent}
    first, again = (greedy_coreset(vectors, 20, seed=3, **make) for _ in range(2))
    np.testing.assert_array_equal(first.numpy(), again.numpy())
    generator = torch.Generator().manual_seed(3)
    projected = vectors.numpy() @ (torch.randn(64, 8, generator=generator) / 8**0.5).numpy()
    assert first.tolist() == naive_coreset(projected.astype(np.float64), 20, int(first[0]))
    assert first.tolist() != greedy_coreset(vectors, 20, projected_dim=64, seed=3, progress=silent).tolist()


def test_table_holds_the_nearest_with_itself_first():
    bank = gauss(60, 5)
    table = neighbour_table(torch.from_numpy(bank).float(), 7).numpy()
    np.testing.assert_array_equal(table[:, 0], np.arange(60))
    distance = np.sqrt(((bank[:, None] - bank[None]) ** 2).sum(2))
    np.testing.assert_array_equal(table, np.argsort(distance, axis=1, kind="stable")[:, :7])


def test_table_has_itself_first_among_twins():
    bank = torch.from_numpy(np.repeat(gauss(4, 3), 5, axis=0)).float()
    np.testing.assert_array_equal(neighbour_table(bank, 3)[:, 0].numpy(), np.arange(20))


def test_reweighting_is_equation_seven():
    others = np.abs(gauss(5, 9)) * 3
    want = 1.0 - np.exp(others[:, 0]) / np.exp(others).sum(1)
    np.testing.assert_allclose(reweight(torch.from_numpy(others)).numpy(), want, rtol=1e-12)


def test_reweighting_does_not_overflow():
    weight = reweight(torch.tensor([[1000.0, 1000.0, 999.0]]))
    np.testing.assert_allclose(weight.numpy(), 1.0 - 1.0 / (2.0 + np.exp(-1.0)), rtol=1e-6)


def test_a_bank_in_parts_equals_brute_force(monkeypatch):
    monkeypatch.setattr(neighbours, "_PRODUCT_LIMIT_BYTES", 4 * 30 * 7)
    bank, queries = gauss(50, 12), gauss(2, 12, 6, 5, seed=1)
    module = BankDistance(torch.from_numpy(bank).float(), num_positions=30)
    assert [len(part.bank) for part in module.parts] == [7] * 7 + [1]
    got = module(torch.from_numpy(queries).float())
    for n in range(2):
        want, _ = brute_force(queries[n].reshape(12, 30).T, bank)
        np.testing.assert_allclose(got[n].numpy(), want.reshape(6, 5), rtol=0, atol=1e-6)

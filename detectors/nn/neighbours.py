"""Nearest neighbours in a memory bank: the greedy coreset, and distances in a form for export."""

from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.progress import Progress

_PRODUCT_LIMIT_BYTES = 64 << 20
_ROWS_AT_ONCE = 4096
_QUERIES_AT_LEAST = 64
#: Share of the largest squared distance down to which vectors are kept up to date.
_LEVEL = 0.85


def greedy_coreset(vectors: Tensor, size: int, *, projected_dim: int, seed: int, progress: Progress) -> Tensor:
    """Return the indices of a greedy k-centre coreset: each next vector is the one farthest from those chosen.

    Distances are computed after a Gaussian random projection (PatchCore, Roth et al. 2022, §3.2; Johnson–
    Lindenstrauss), in float32.

    Args:
        vectors: float32 (num_vectors, D).
        size: number of vectors to choose.
        projected_dim: dimension after the projection; at least D means none.
        seed: seed of the projection and of the choice of the first vector.
        progress: called as vectors are chosen.

    Returns:
        int64 (size,), in the order chosen, without repetition.
    """
    generator = torch.Generator().manual_seed(seed)
    dim = vectors.shape[1]
    if projected_dim < dim:
        matrix = torch.randn(dim, projected_dim, generator=generator) / projected_dim**0.5
        vectors = vectors @ matrix.to(vectors.device)
    cover = _Cover(vectors.contiguous(), size, int(torch.randint(len(vectors), (1,), generator=generator)))
    while cover.count < size:
        cover.extend()
        progress("coreset", cover.count, size)
    return cover.chosen


class _Cover:
    """A growing set of centres, and for every vector a bound of its squared distance to the nearest of them.

    A distance to the nearest centre only shrinks as centres are added, so a stale one is an upper bound, and vectors
    whose bound lies below the present radius cannot be the farthest: they are not looked at until the radius has come
    down to them, and then against all missed centres in one product. The choice is that of the plain algorithm.
    """

    def __init__(self, vectors: Tensor, size: int, first: int) -> None:
        self._vectors = vectors
        self._squares = vectors.square().sum(1)
        self._bound = torch.full_like(self._squares, torch.inf)
        self._seen = torch.zeros(len(vectors), dtype=torch.int64, device=vectors.device)
        self.chosen = torch.empty(size, dtype=torch.int64)
        self.chosen[0] = first
        self._bound[first] = -torch.inf
        self.count = 1

    def extend(self) -> None:
        """Bring the farthest vectors up to date, then add centres while the farthest is among them."""
        level = _LEVEL * float(self._bound.max()) if self.count > 1 else -torch.inf
        active = (self._bound >= level).nonzero().squeeze(1)
        self._refresh(active)
        active = active[self._bound[active] >= level]
        if len(active) == 0:
            return
        vectors, squares, nearest = self._vectors[active], self._squares[active], self._bound[active]
        # The first round is over all vectors: it sets the level of the second.
        level = max(level, _LEVEL * float(nearest.max()))
        while self.count < len(self.chosen):
            farthest = int(nearest.argmax())
            if not float(nearest[farthest]) >= level:
                break
            self.chosen[self.count] = active[farthest]
            self.count += 1
            distance = torch.addmv(squares, vectors, vectors[farthest], alpha=-2.0).add_(squares[farthest])
            torch.minimum(nearest, distance.clamp_(min=0.0), out=nearest)
            nearest[farthest] = -torch.inf
        self._bound[active] = nearest
        self._seen[active] = self.count

    def _refresh(self, active: Tensor) -> None:
        """Take the centres that each of these vectors has missed into account."""
        for part in active.split(_ROWS_AT_ONCE):
            missed = self.chosen[int(self._seen[part].min()) : self.count].to(part.device)
            if len(missed) == 0:
                continue
            product = self._vectors[part] @ self._vectors[missed].T
            distance = (self._squares[missed] - 2.0 * product).amin(1) + self._squares[part]
            self._bound[part] = torch.minimum(self._bound[part], distance.clamp_(min=0.0))
            self._seen[part] = self.count


def neighbour_table(bank: Tensor, num_neighbours: int) -> Tensor:
    """Return the indices of each bank vector's nearest ones, itself first: int64 (M, num_neighbours)."""
    rows, bank = [], bank.double()
    for itself in torch.arange(len(bank), device=bank.device).split(1024):
        distance = torch.cdist(bank[itself], bank)
        # First even where another vector is its twin, or so near that rounding cannot tell them apart.
        distance.scatter_(1, itself[:, None], -1.0)
        rows.append(distance.topk(num_neighbours, largest=False).indices)
    return torch.cat(rows)


class NearestNeighbour(nn.Module):
    """Nearest bank vector of every position, and the exact distance to it.

    The search is one 1×1 convolution ``q·m − |m|²/2`` and an ArgMax: no cdist, no transposes. Queries and bank
    are centred, which changes no distance and cancels less. The distance is then computed anew from the
    nearest vector, ``sqrt(sum (q − m)²)``: it suffers no cancellation and hardly depends on the search's precision.

    Args:
        bank: vectors of the memory bank, float32 (M, D).
    """

    centre: Tensor
    bank: Tensor
    bias: Tensor

    def __init__(self, bank: Tensor) -> None:
        super().__init__()
        centre = bank.double().mean(0)
        centred = bank.double() - centre
        self.register_buffer("centre", centre.float().reshape(1, -1, 1, 1))
        # Buffers, not parameters: a memory bank is a constant of the method, not a trained weight.
        self.register_buffer("bank", centred.float()[:, :, None, None].contiguous())
        self.register_buffer("bias", (-0.5 * centred.square().sum(1)).float())
        self.search = _Search()

    def forward(self, queries: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Search.

        Args:
            queries: float32 (N, D, h, w).

        Returns:
            centred queries float32 (N, h·w, D), distance float32 (N, h·w), index int64 (N, h·w).
        """
        queries = queries - self.centre
        index = self.search(queries, self.bank, self.bias).flatten(2).argmax(1)
        vectors = queries.flatten(2).transpose(1, 2)
        return vectors, self.distance(vectors, index), index

    def distance(self, vectors: Tensor, index: Tensor) -> Tensor:
        """Return the distances of centred vectors, float32 (…, D), to the bank vectors at index, int64 (…)."""
        near = self.bank.index_select(0, index.flatten()).view(*index.shape, -1)
        return (vectors - near).square().sum(-1).sqrt()


class BankDistance(nn.Module):
    """Distance of every position to the nearest vector of a bank of any size.

    The bank is searched in parts, each by a ``NearestNeighbour``, so that no product exceeds 64 MB per frame.

    Args:
        bank: vectors of the memory bank, float32 (M, D).
        num_positions: number of positions h·w of the queries.
    """

    def __init__(self, bank: Tensor, *, num_positions: int) -> None:
        super().__init__()
        at_once = max(1, _PRODUCT_LIMIT_BYTES // (4 * num_positions))
        self.parts = nn.ModuleList(NearestNeighbour(part) for part in bank.split(at_once))

    def forward(self, queries: Tensor) -> Tensor:
        """float32 (N, D, h, w) → distances float32 (N, h, w)."""
        distances = [part(queries)[1] for part in self.parts]
        nearest: Tensor = reduce(torch.minimum, distances).unflatten(1, queries.shape[2:])
        return nearest


class _Search(nn.Module):
    """The product of all queries with all bank vectors, in a scope of its own: the part that may be fp16."""

    def forward(self, queries: Tensor, bank: Tensor, bias: Tensor) -> Tensor:
        """Queries float (N, D, h, w) → products float (N, M, h, w)."""
        return F.conv2d(queries, bank, bias)


def nearest_index(queries: Tensor, bank: Tensor) -> Tensor:
    """Return which vector of the bank (M, D) is nearest to each query (Q, D), searched in float64: int64 (Q,)."""
    wide = bank.double()
    half_squares = 0.5 * wide.square().sum(1)
    # Fewer queries would read a large bank more often than they multiply it.
    at_once = max(_QUERIES_AT_LEAST, _PRODUCT_LIMIT_BYTES // (8 * len(bank)))
    return torch.cat([(part.double() @ wide.T - half_squares).argmax(1) for part in queries.split(at_once)])


def nearest_distance(queries: Tensor, bank: Tensor) -> Tensor:
    """Return the distance of each query (Q, D) to its nearest vector of the bank (M, D): float32 (Q,).

    The nearest vector is searched by matrix products; its distance is then computed without cancellation.
    """
    at_once = max(1, _PRODUCT_LIMIT_BYTES // (4 * len(bank)))
    nearest = torch.cat([torch.cdist(part, bank).argmin(1) for part in queries.split(at_once)])
    return (queries - bank[nearest]).square().sum(1).sqrt()


def covering_radius(vectors: Tensor, chosen: Tensor) -> float:
    """Return the largest distance from a vector (M, D) to the nearest of those chosen (m, D)."""
    return float(nearest_distance(vectors, chosen).max())


class GallerySearch(nn.Module):
    """Distance of every position to the nearest vector of those gallery images that were retrieved for its frame.

    The gallery is gathered and multiplied some images at a time, so that no product exceeds 64 MB per frame; each
    distance is computed anew from the nearest vector, as in ``NearestNeighbour``.

    Args:
        gallery: centred vectors, float32 (num_gallery, M, C); used without a copy.
        centre: vector that is subtracted from the queries, float32 (C, 1).
        num_positions: number of positions h·w of the queries.
        num_images: number K of images retrieved per frame.
    """

    centre: Tensor

    def __init__(self, gallery: Tensor, centre: Tensor, *, num_positions: int, num_images: int) -> None:
        super().__init__()
        self.register_buffer("centre", centre)
        at_once = max(1, _PRODUCT_LIMIT_BYTES // (4 * num_positions * gallery.shape[1]))
        self.parts = [range(num_images)[start : start + at_once] for start in range(0, num_images, at_once)]
        self.products = _GalleryProducts(gallery)

    def forward(self, maps: Tensor, images: Tensor) -> Tensor:
        """float32 (N, C, h, w) and indices int64 (N, K) → float32 (N, h, w)."""
        queries = maps.flatten(2) - self.centre
        vectors = queries.transpose(1, 2)
        squares = []
        for part in self.parts:
            products, gallery = self.products(queries, images[:, part.start : part.stop], len(part))
            index = products.argmax(1)
            near = torch.gather(gallery, 1, index[:, :, None].expand(-1, -1, gallery.shape[2]))
            squares.append((vectors - near).square().sum(2))
        nearest: Tensor = reduce(torch.minimum, squares).sqrt().unflatten(1, maps.shape[2:])
        return nearest


class _GalleryProducts(nn.Module):
    """``g·q − |g|²/2`` for the vectors g of some gallery images: the part that may be fp16."""

    gallery: Tensor
    bias: Tensor

    def __init__(self, gallery: Tensor) -> None:
        super().__init__()
        self.register_buffer("gallery", gallery)
        self.register_buffer("bias", 0.5 * gallery.square().sum(2, keepdim=True))

    def forward(self, queries: Tensor, images: Tensor, num_images: int) -> tuple[Tensor, Tensor]:
        """Float (N, C, h·w) and int64 (N, num_images) → products (N, M', h·w) and gallery (N, M', C)."""
        order = images.flatten()
        gallery, bias = (
            values.index_select(0, order).unflatten(0, (-1, num_images)).flatten(1, 2)
            for values in (self.gallery, self.bias)
        )
        return gallery @ queries - bias, gallery

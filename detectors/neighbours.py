"""Nearest neighbours in a memory bank: the greedy coreset, and distances that export well."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.progress import Progress


def greedy_coreset(vectors: Tensor, size: int, *, projected_dim: int, seed: int, progress: Progress) -> Tensor:
    """Indices of a k-centre coreset, greedy: each next vector is the one farthest from those chosen.

    Distances are taken after a Gaussian random projection (PatchCore, Roth et al. 2022, §3.2; Johnson–
    Lindenstrauss), in float32.

    Args:
        vectors: float32 (num_vectors, D).
        size: vectors to choose.
        projected_dim: dimension after the projection; at least D means none.
        seed: of the projection and of the first vector.
        progress: told every hundred vectors.

    Returns:
        int64 (size,), in the order chosen, without repetition.
    """
    generator = torch.Generator().manual_seed(seed)
    dim = vectors.shape[1]
    if projected_dim < dim:
        matrix = torch.randn(dim, projected_dim, generator=generator) / projected_dim**0.5
        vectors = vectors @ matrix.to(vectors.device)
    vectors = vectors.contiguous()
    squares = vectors.square().sum(1)
    chosen = torch.empty(size, dtype=torch.int64)
    chosen[0] = torch.randint(len(vectors), (1,), generator=generator)
    nearest = torch.full_like(squares, torch.inf)
    for i in range(1, size):
        last = int(chosen[i - 1])
        distance = torch.addmv(squares, vectors, vectors[last], alpha=-2.0).add_(squares[last])
        distance[last] = -torch.inf
        torch.minimum(nearest, distance, out=nearest)
        chosen[i] = nearest.argmax()
        if i % 100 == 0 or i == size - 1:
            progress("coreset", i + 1, size)
    return chosen


def neighbour_table(bank: Tensor, num_neighbours: int) -> Tensor:
    """For each vector of the bank, its nearest ones, itself first: int64 (M, num_neighbours)."""
    rows = []
    for itself in torch.arange(len(bank), device=bank.device).split(1024):
        distance = torch.cdist(bank[itself].double(), bank.double())
        # First even where another vector is its twin, or so near that rounding cannot tell them apart.
        distance.scatter_(1, itself[:, None], -1.0)
        rows.append(distance.topk(num_neighbours, largest=False).indices)
    return torch.cat(rows)


class NearestNeighbour(nn.Module):
    """Nearest bank vector of every position, and the exact distance to it.

    The search is one 1×1 convolution ``q·m − |m|²/2`` and an ArgMax: no cdist, no transposes. Queries and bank
    are centred, which changes no distance and cancels less. The distance is then taken anew from the vector
    found, ``sqrt(sum (q − m)²)``, so it suffers no cancellation and hardly depends on the search's precision.

    Args:
        bank: float32 (M, D).
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
        """Distance from centred vectors float32 (…, D) to the bank vectors of that index (…)."""
        near = self.bank.index_select(0, index.flatten()).view(*index.shape, -1)
        return (vectors - near).square().sum(-1).sqrt()


class _Search(nn.Module):
    """The product of all queries with all bank vectors, in a scope of its own: the part that may be fp16."""

    def forward(self, queries: Tensor, bank: Tensor, bias: Tensor) -> Tensor:
        """Queries float (N, D, h, w) → products float (N, M, h, w)."""
        return F.conv2d(queries, bank, bias)

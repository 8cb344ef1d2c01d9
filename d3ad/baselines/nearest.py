"""Nearest neighbours among many vectors, and the k-center choice of a few that stand for them."""
import torch
from torch import Tensor

CHUNK = 8192    # rows of points at a time
TABLE = 2 ** 20  # distances at a time: 4 MB, which a processor's cache holds
POOL = 0.05     # share of the points among which the farthest is looked for
WAITING = 256   # centres that wait, at most, until all points hear of them


def nearest(points: Tensor, among: Tensor) -> tuple[Tensor, Tensor]:
    """Distance (N,) of each of points (N, D) to its nearest of `among` (M, D), and which one that is, (N,)."""
    best = points.new_full((len(points),), torch.inf)
    which = torch.zeros(len(points), dtype=torch.long, device=points.device)
    rows = max(TABLE // max(len(points), 1), 1)
    for start in range(0, len(among), rows):
        part = among[start:start + rows]
        # |x|^2 is missing, the same for all
        values, index = torch.addmm(part.square().sum(1), points, part.T, alpha=-2).min(1)
        closer = values < best
        best, which = torch.where(closer, values, best), torch.where(closer, index + start, which)
    return (best + points.square().sum(1)).clamp_min(0).sqrt(), which


def k_center(points: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Indices (count,) of points (N, D), each the farthest from those before it, the first at random.

    The greedy choice, exactly, but with few passes over all points: what a point's distance was some centres ago is
    never less than what it is now.  So the farthest of a pool of points with the largest old distances is the farthest
    of all, as long as it is farther than the largest old distance outside the pool.  Only when it isn't do all points
    hear of the centres that were added meanwhile, in one product of matrices.
    """
    points = points.float()
    squares = points.square().sum(1)
    chosen = [int(torch.randint(len(points), (1,), generator=generator))]
    old, waiting = torch.full_like(squares, torch.inf), [chosen[0]]
    size = min(max(int(POOL * len(points)), 256), len(points))
    while len(chosen) < count:
        for start in range(0, len(points), CHUNK):
            rows = slice(start, start + CHUNK)
            old[rows] = torch.minimum(old[rows], _squared(points[rows], squares[rows], points[waiting]).amin(1))
        old[chosen] = -1.0  # never again
        distances, pool = old.topk(size)
        border = float(distances[-1]) if size < len(points) else -torch.inf
        near, near_squares, waiting = points[pool], squares[pool], []
        while len(chosen) < count and len(waiting) < WAITING:
            best = int(distances.argmax())
            if distances[best] < border:
                break
            centre = int(pool[best])
            chosen.append(centre)
            waiting.append(centre)
            distances = torch.minimum(distances, _squared(near, near_squares, points[centre:centre + 1])[:, 0])
            distances[best] = -1.0
    return torch.tensor(chosen, device=points.device)


def _squared(points: Tensor, squares: Tensor, centres: Tensor) -> Tensor:
    """Squared distances (N, M)."""
    return torch.addmm(squares.unsqueeze(1) + centres.square().sum(1), points, centres.T, alpha=-2)

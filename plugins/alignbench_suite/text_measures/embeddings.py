"""Diversity of a set of texts by their embeddings: unit vectors, one row a text, [K, D] float64.

Cosines are taken as 1 - |u - v|^2 / 2, which is exactly 1 for equal vectors where a dot product is only nearly so."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float64]


def cosines(vectors: Vectors) -> Vectors:
    """[K, K], exactly 1 on the diagonal and for equal vectors."""
    differences = vectors[:, None] - vectors[None]
    found: Vectors = 1 - (differences**2).sum(-1) / 2
    return found


def cosine_distance(vectors: Vectors) -> float | None:
    """Mean of 1 - cosine over the K (K - 1) / 2 pairs: one minus the mean similarity of Kirk et al. (2023).

    Exactly 0 for equal vectors, 1 for orthogonal ones. None of fewer than two."""
    pairs = np.triu_indices(len(vectors), k=1)
    return float((1 - cosines(vectors)[pairs]).mean()) if len(vectors) > 1 else None


def vendi(vectors: Vectors) -> float | None:
    """exp of the entropy of the eigenvalues of the cosine kernel / K (Friedman & Dieng 2022, arXiv 2210.02410): the
    effective number of different texts, exactly 1 for equal vectors and K for orthogonal ones. None of fewer than two.

    Equal vectors are taken together: m copies in K are one vector of probability m / K, which changes no eigenvalue but
    leaves out the zeros (section 3 of the paper)."""
    if len(vectors) < 2:
        return None
    different, copies = np.unique(vectors, axis=0, return_counts=True)
    weights = np.sqrt(copies / len(vectors))
    eigenvalues = np.linalg.eigvalsh(cosines(different) * weights[:, None] * weights[None])
    present = eigenvalues[eigenvalues > 0]  # rounding may leave zeros a little below
    return float(np.exp(-(present * np.log(present)).sum()))

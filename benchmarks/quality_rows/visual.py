"""Hand-made features with 1-NN: bag of visual words, colour and texture (the Valavanis recipe)."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotator.encoders.local_runner import cpu_count
from index import FlatIndex
from index.progress import track
from quality_rows.data import Data

SIZE = 128
WORDS = 256
_WORDS_FROM = 1000  # training images whose descriptors the words are clustered from
_GREYS = 16  # of the co-occurrence matrices
_CHUNK = 64


class VisualWords:
    """1-NN on visual words, colour and texture, after Valavanis and Kalamboukis (IPL).

    Of each image at 128 px: dense upright SIFT-like descriptors (4 x 4 cells of 8 px with 8
    orientations, every 8 px, L2-Hys normalised: `skimage.feature.hog` with overlapping blocks) as a
    histogram of 256 words (mini-batch k-means on the descriptors of 1,000 training images); the
    4 x 4 x 4 RGB histogram; a 16-bin histogram of greys in each quadrant; uniform local binary
    patterns at radius 1 and 2; contrast, dissimilarity, homogeneity, energy, correlation and second
    moment of the grey-level co-occurrence matrices at distances 1 and 4, mean over four angles.
    Roots of histograms (Hellinger) and standardised co-occurrence features, each part scaled to the
    same length, make one vector; the most similar image by cosine gives its label set.
    """

    name = "visual words, colour, texture, 1-NN"

    def __init__(self) -> None:
        self.chosen: dict[str, Any] = {}

    def fit(self, train: Data) -> None:
        """Cluster the words and index the training side."""
        from sklearn.cluster import MiniBatchKMeans

        self._labels = train.labels
        rows = np.random.default_rng(0).permutation(len(train))[:_WORDS_FROM]
        descriptors = np.concatenate(_of_each(train, rows, _descriptors, "Visual words"))
        clusters = min(WORDS, len(descriptors))
        self._words = MiniBatchKMeans(clusters, batch_size=4096, n_init=1, random_state=0)
        self._words.fit(descriptors)
        histograms, texture = self._features(train)
        self._mean, self._deviation = texture.mean(axis=0), texture.std(axis=0) + 1e-9
        self._index = FlatIndex(self._joined(histograms, texture))

    def predict(self, test: Data) -> list[set[str]]:
        """The label set of the most similar training image."""
        found = self._index.search(self._joined(*self._features(test)), 1)
        return [set(self._labels[row]) for row in found.rows[:, 0]]

    def _features(self, data: Data) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        features = _of_each(data, np.arange(len(data)), self._describe, "Colour and texture")
        return np.stack([f for f, _ in features]), np.stack([t for _, t in features])

    def _describe(
        self, pixels: NDArray[np.uint8]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        words = np.bincount(self._words.predict(_descriptors(pixels)), minlength=WORDS)
        parts = [words, *_histograms(pixels)]
        # The root of a histogram with sum 1 has length 1.
        histograms = np.concatenate([np.sqrt(p / p.sum()) for p in parts], dtype=np.float32)
        return histograms, _glcm(pixels)

    def _joined(
        self, histograms: NDArray[np.float32], texture: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """float32[n, dim] of unit norm."""
        standard = (texture - self._mean) / self._deviation / np.sqrt(texture.shape[1])
        joined: NDArray[np.float64] = np.hstack([histograms, standard])
        joined /= np.linalg.norm(joined, axis=1, keepdims=True)
        return joined.astype(np.float32)


def _of_each(
    data: Data, rows: NDArray[np.int64], describe: Callable[[NDArray[np.uint8]], Any], label: str
) -> list[Any]:
    chunks = [rows[i : i + _CHUNK] for i in range(0, len(rows), _CHUNK)]

    def work(chunk: NDArray[np.int64]) -> list[Any]:
        return [describe(pixels) for pixels in data.pixels(SIZE, chunk)]

    data.pixels(SIZE, rows[:1])  # decoded here, before threads ask for it at once
    with ThreadPoolExecutor(cpu_count()) as pool:
        results = (result for chunk in pool.map(work, chunks) for result in chunk)
        return list(track(results, total=len(rows), label=label))


def _grey(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    grey: NDArray[np.float64] = pixels @ np.array([0.299, 0.587, 0.114])
    return grey.astype(np.uint8)


def _descriptors(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """float32[169, 128]."""
    blocks: NDArray[np.float64] = _skimage().hog(
        _grey(pixels),
        orientations=8,
        pixels_per_cell=(8, 8),
        cells_per_block=(4, 4),
        block_norm="L2-Hys",
        feature_vector=False,
    )
    return blocks.reshape(-1, 4 * 4 * 8).astype(np.float32)


def _histograms(pixels: NDArray[np.uint8]) -> list[NDArray[np.int64]]:
    grey, half = _grey(pixels), SIZE // 2
    colour = (pixels.astype(np.int64) // 64) @ np.array([16, 4, 1])
    parts = [np.bincount(colour.ravel(), minlength=64)]
    for part in (grey[:half], grey[half:]):
        for quadrant in (part[:, :half], part[:, half:]):
            parts.append(np.bincount(quadrant.ravel() // 16, minlength=16))
    for points, radius in ((8, 1), (16, 2)):
        codes = _skimage().local_binary_pattern(grey, points, radius, "uniform").astype(np.int64)
        parts.append(np.bincount(codes.ravel(), minlength=points + 2))
    return parts


def _glcm(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """float32[12]."""
    angles = [0, np.pi / 4, np.pi / 2, 3 * np.pi / 4]
    levels = _grey(pixels) // (256 // _GREYS)
    feature = _skimage()
    table = feature.graycomatrix(levels, [1, 4], angles, levels=_GREYS, symmetric=True, normed=True)
    names = ("contrast", "dissimilarity", "homogeneity", "energy", "correlation", "ASM")
    properties = [feature.graycoprops(table, name).mean(axis=1) for name in names]
    return np.concatenate(properties, dtype=np.float32)


def _skimage() -> Any:
    import skimage.feature

    return skimage.feature

"""Bootstrap intervals of ratio metrics, resampling whole images.

Every metric of the referring benchmarks is a ratio of sums over samples (gIoU: summed IoU over the number
of samples; cIoU: summed intersection over summed union). Expressions of one image share its pixels and
are not independent, so images are drawn, not samples (cluster bootstrap; Davison & Hinkley 1997, §3.8).
Comparing two systems under the same draws is the paired bootstrap.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Interval(NamedTuple):
    """A figure with its confidence interval; NaN where the figure is undefined (nothing to average)."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ImageBootstrap:
    """R resamples of the images behind N samples.

    cluster_N: index of each sample's image. weights_RC: how often each image is drawn in each resample.
    """

    cluster_N: NDArray[np.int64]  # noqa: N815
    weights_RC: NDArray[np.float64]  # noqa: N815
    level: float

    @classmethod
    def draw(
        cls, image_ids: Sequence[str], *, resamples: int, seed: int, level: float = 0.95
    ) -> "ImageBootstrap":
        """`image_ids` names the image of each sample; the same ids and seed give the same draws."""
        names, cluster = np.unique(np.asarray(image_ids, dtype=str), return_inverse=True)
        images = len(names)
        weights = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=resamples)
        return cls(cluster.astype(np.int64), weights.astype(np.float64), level)

    def ratio(self, numerator: ArrayLike, denominator: ArrayLike) -> Interval:
        """sum(numerator) / sum(denominator) over the samples, with a percentile interval."""
        return self._interval(_ratio(numerator, denominator), self._resampled(numerator, denominator))

    def difference(
        self, challenger: tuple[ArrayLike, ArrayLike], reference: tuple[ArrayLike, ArrayLike]
    ) -> Interval:
        """Ratio of the challenger minus ratio of the reference, both under the same resamples."""
        return self._interval(
            _ratio(*challenger) - _ratio(*reference),
            self._resampled(*challenger) - self._resampled(*reference),
        )

    def _resampled(self, numerator: ArrayLike, denominator: ArrayLike) -> NDArray[np.float64]:
        above_R = self.weights_RC @ self._per_image(numerator)  # noqa: N806
        below_R = self.weights_RC @ self._per_image(denominator)  # noqa: N806
        return np.divide(above_R, below_R, out=np.full_like(above_R, np.nan), where=below_R > 0)

    def _per_image(self, values_N: ArrayLike) -> NDArray[np.float64]:  # noqa: N803
        sums_C = np.zeros(self.weights_RC.shape[1])  # noqa: N806
        np.add.at(sums_C, self.cluster_N, np.asarray(values_N, dtype=np.float64))
        return sums_C

    def _interval(self, value: float, resampled_R: NDArray[np.float64]) -> Interval:  # noqa: N803
        defined = resampled_R[np.isfinite(resampled_R)]
        if not np.isfinite(value) or not len(defined):
            return Interval(float("nan"), float("nan"), float("nan"))
        tail = (1 - self.level) / 2
        low, high = np.quantile(defined, [tail, 1 - tail])
        return Interval(value, float(low), float(high))


def _ratio(numerator: ArrayLike, denominator: ArrayLike) -> float:
    below = float(np.sum(denominator, dtype=np.float64))
    return float(np.sum(numerator, dtype=np.float64)) / below if below > 0 else float("nan")

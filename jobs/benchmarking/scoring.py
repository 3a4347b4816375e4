"""From answers to figures: rows of the sample table, and all metrics computed from that table alone."""

import math
from collections.abc import Callable

import numpy as np
import pandas as pd

from alto_models.bootstrap import ImageBootstrap, Interval
from alto_models.referring_scores import PRECISION_LEVELS, Ratio, SampleScores, metric_ratios
from jobs.benchmarking.questions import NO_TARGET, SEVERAL
from jobs.benchmarking.results import Comparison, Estimate, Slice, SystemMetrics

SIZE_EDGES = (0.01, 0.03, 0.1)
SIZES = ("under 1 %", "1-3 %", "3-10 %", "over 10 %", "no target")
OBJECTS = ("none", "one", "two", "three or more")
SAMPLE_KEY = ["image_id", "record_id", "expression_index"]

Run = tuple[str, str]
"""A system and the prompt mode it was asked in."""


class Scoreboard:
    """The sample table split into runs, all over the same samples in the same order."""

    def __init__(
        self, samples: pd.DataFrame, *, resamples: int, seed: int, level: float, codebook_size: int
    ) -> None:
        """samples: table of `SAMPLES_SCHEMA`. Raises ValueError when the runs cover different samples."""
        self.runs: dict[Run, pd.DataFrame] = {
            (str(system), str(mode)): part.sort_values(SAMPLE_KEY, ignore_index=True)
            for (system, mode), part in samples.groupby(["system", "mode"], sort=False, observed=True)
        }
        reference = next(iter(self.runs.values()))
        for run, part in self.runs.items():
            if not part[SAMPLE_KEY].equals(reference[SAMPLE_KEY]):
                raise ValueError(f"{run} was not evaluated on the samples of the other runs")
        self._bootstrap = ImageBootstrap.draw(
            reference["image_id"].tolist(), resamples=resamples, seed=seed, level=level
        )
        self._bits_per_code = math.log2(codebook_size)
        self._ratios: dict[Run, dict[str, Ratio]] = {
            run: metric_ratios(sample_scores(part)) for run, part in self.runs.items()
        }

    def metrics(self, run: Run) -> SystemMetrics:
        ratios = self._ratios[run]
        targets = int(ratios["miou"][1].sum())
        figures = {
            name: _estimate(self._bootstrap.ratio(*ratios[name]))
            for name in ("giou", "ciou", "miou", "n_acc", "t_acc", "boundary_iou", "mean_length")
        }
        mean_length = figures["mean_length"]
        malformed = int(ratios["malformed"][0].sum())
        precision = {}
        for level in PRECISION_LEVELS if targets else ():
            reached, _ = ratios[f"precision_{level}"]
            precision[str(level)] = float(reached.sum()) / targets
        return SystemMetrics(
            system=run[0],
            mode=run[1],
            samples=len(self.runs[run]),
            targets=targets,
            **figures,
            precision=precision,
            class_miou=class_miou(self.runs[run]),
            bits=mean_length.value * self._bits_per_code if mean_length else None,
            malformed=malformed / len(self.runs[run]),
            malformed_answers=malformed,
        )

    def compare(self, run: Run, reference: Run) -> Comparison:
        """Paired bootstrap of the difference in gIoU."""
        difference = self.difference("giou", run, reference)
        return Comparison(
            system=run[0],
            mode=run[1],
            reference=reference[0],
            reference_mode=reference[1],
            difference=Estimate(**difference._asdict()),
            better=difference.low > 0,
        )

    def difference(self, metric: str, run: Run, reference: Run) -> Interval:
        """Paired bootstrap of `run` minus `reference` in a metric of `metric_ratios`; NaN where undefined."""
        return self._bootstrap.difference(self._ratios[run][metric], self._ratios[reference][metric])

    def slices(self, run: Run) -> list[Slice]:
        """gIoU and mean length by category, by size and by number of objects meant."""
        samples = self.runs[run]
        dimensions: dict[str, Callable[[], pd.Series | pd.Categorical]] = {
            "category": lambda: samples["category"],
            "size": lambda: size_class(samples),
            "objects": lambda: objects_class(samples),
        }
        found = []
        for dimension, classify in dimensions.items():
            for value, part in samples.groupby(classify(), sort=True, observed=True):
                found.append(_slice(run, dimension, str(value), part))
        return found


def sample_scores(samples: pd.DataFrame) -> SampleScores:
    """The columns that metrics are made of, of a table of `SAMPLES_SCHEMA`."""
    return SampleScores(
        no_target=samples["no_target"].to_numpy(bool),
        empty=samples["predicted_area"].to_numpy() == 0,
        malformed=samples["malformed"].to_numpy(bool),
        intersection=samples["intersection"].to_numpy(np.int64),
        union=samples["union"].to_numpy(np.int64),
        boundary_iou=samples["boundary_iou"].to_numpy(np.float64),
        length=samples["length"].to_numpy(np.int64),
    )


def class_miou(samples: pd.DataFrame) -> float | None:
    """Mean over categories of summed intersection over summed union; None where no question is of one category."""
    of_one = samples[~samples["category"].isin((NO_TARGET, SEVERAL))]
    if of_one.empty:
        return None
    sums = of_one.groupby("category", observed=True)[["intersection", "union"]].sum()
    return float((sums["intersection"] / sums["union"]).mean())


def size_class(samples: pd.DataFrame) -> pd.Categorical:
    """Share of the image that the target covers, in classes; "no target" where there is none."""
    share = samples["target_area"] / (samples["width"] * samples["height"])
    codes = np.digitize(share, SIZE_EDGES)
    codes[samples["no_target"]] = SIZES.index("no target")
    return pd.Categorical.from_codes(codes, SIZES, ordered=True)


def objects_class(samples: pd.DataFrame) -> pd.Categorical:
    """How many objects the expression means."""
    return pd.Categorical.from_codes(samples["target_objects"].clip(upper=3), OBJECTS, ordered=True)


def _slice(run: Run, dimension: str, value: str, part: pd.DataFrame) -> Slice:
    with_codes = part.loc[part["length"] > 0, "length"]
    return Slice(
        dimension=dimension,
        value=value,
        system=run[0],
        mode=run[1],
        samples=len(part),
        giou=float(part["iou"].mean()),
        mean_length=float(with_codes.mean()) if len(with_codes) else None,
    )


def _estimate(interval: Interval) -> Estimate | None:
    return None if math.isnan(interval.value) else Estimate(**interval._asdict())

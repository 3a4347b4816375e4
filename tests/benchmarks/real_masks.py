"""Real masks: how well photographs are tokenized, before training on some of them and after.

Takes the sample data beside the project (`../shared/data`): photos in COCO layout, made a shard by
`jobs.acquisition.coco_shard`, and SA-1B pairs. They go through the pipeline's own stages: acquired, prepared (split
by image), mixed with sample scenes, trained on from a tokenizer that knows scenes only, and lengths learned. Reported
is what the held-out photos give, beside the start, trivial answers and the best that the mask's resolution allows.
Without --initial-weights the start is trained, too. At the defaults this takes about half an hour on one core.
"""

import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray

from alto_models.data.crops import eligible_masks
from alto_models.data.masks import MaskImages
from alto_models.data.squares import restore_whole
from alto_models.masks import decode
from alto_models.tokenizer.evaluation import CROP, WHOLE, Scores, evaluate
from alto_models.tokenizer.model import MaskTokenizer, load_tokenizer
from alto_models.tokenizer.whole_image import decode_to_image, embed_whole_image, mask_grids
from data_contracts.errors import InputError
from jobs import acquire_sa1b, prepare_sa1b, tokenizer_stage1, tokenizer_stage1_5
from jobs.acquisition.coco_shard import write_coco_shard
from jobs.sample_scenes.scene import SceneConfig
from jobs.tokenizer_training.data import TrainingBatches, read_held_out
from jobs.tokenizer_training.report import constant_baselines
from orchestration.profiles import override, render_profile
from tests.benchmarks.harness import arguments, machine, publish, table
from tests.benchmarks.scenes import draw_scenes, stage_context

ROOT = Path(__file__).parents[2]
REPORT = ROOT / "docs" / "experiments.md"
DATA = ROOT.parent / "shared" / "data"
SHARD = "sa_100000.tar"
HELD_OUT_SHARE = 0.25
SCENES_HELD_OUT = 0.1
ALL = 1_000_000  # held-out images
# Lower ends of the classes of size: the mask's share of the square.
SIZES = (0.0, 0.01, 0.02, 0.05, 0.15)
# What training on photos changes in the stage's section: every ability is there from the first step.
FINE_TUNING: dict[str, Any] = {
    "initial_weights": "base",
    "objective": {"images_from": 0.0, "quantize_from": 0.0, "shorten_from": 0.0, "image_dropout": 0.4},
}


def prepare_photos(folder: Path, data: Path) -> Path:
    """All real images of `data` as prepare_sa1b leaves them, one batch for each of both sources."""
    shards = folder / "shards"
    shards.mkdir()
    write_coco_shard(data / "coco_instances" / "instances.json", data / "coco_instances", shards / SHARD)
    prepared = folder / "photos"
    for batch, source in (("coco", shards), ("sa1b", data / "sa1b")):
        acquiring = stage_context(folder / batch, "acquire_sa1b", items=(SHARD,))
        acquire_sa1b.run(acquire_sa1b.Config(source="folder", folder=str(source)), acquiring)
        preparing = stage_context(folder / batch, "prepare_sa1b", inputs={"acquire_sa1b": acquiring.output})
        prepare_sa1b.run(prepare_sa1b.Config(held_out_share=HELD_OUT_SHARE), preparing)
        shutil.copytree(preparing.output, prepared / batch)
    return prepared


def stage_section(profile: str, stage: str, changes: dict[str, Any]) -> dict[str, Any]:
    """A stage's section of a profile, changed."""
    section: dict[str, Any] = yaml.safe_load(render_profile(ROOT, profile))[stage]
    return override(section, changes, stage)


def train_stage1(
    folder: Path, section: dict[str, Any], prepared: Path, initial_weights: Path | None = None
) -> Path:
    """Checkpoint that stage 1 leaves."""
    inputs = {"prepare_sa1b": prepared}
    if initial_weights is not None:
        inputs["base_weights"] = folder / "base_weights"
        shutil.copytree(initial_weights, inputs["base_weights"] / "tokenizer")
    context = stage_context(folder, "tokenizer_stage1", inputs=inputs)
    tokenizer_stage1.run(tokenizer_stage1.Config.model_validate(section), context)
    return context.output


def train_lengths(folder: Path, section: dict[str, Any], prepared: Path, stage1: Path) -> Path:
    """Checkpoint that stage 1.5 leaves."""
    context = stage_context(
        folder, "tokenizer_stage1_5", inputs={"prepare_sa1b": prepared, "tokenizer_stage1": stage1}
    )
    tokenizer_stage1_5.run(tokenizer_stage1_5.Config.model_validate(section), context)
    return context.output


class HeldOut:
    """Held-out photos, as the stages would evaluate them."""

    def __init__(self, folder: Path, photos: Path, section: dict[str, Any]) -> None:
        self.config = tokenizer_stage1.Config.model_validate(section)
        self._context = stage_context(folder, "held_out", inputs={"prepare_sa1b": photos})
        self.views = read_held_out(self.config.crops, self.config.tokenizer, self._context, ALL)
        self._settings = self.config.crops.settings(self.config.tokenizer)
        self._images = MaskImages(photos, "held_out")

    def scores(self, model: MaskTokenizer) -> Scores:
        longest = model.config.max_length
        lengths = sorted({1, 2, 4, 8, longest // 2, longest} & set(range(1, longest + 1)))
        return evaluate(model, self.views, lengths)

    def baselines(self) -> dict[str, float]:
        """Of trivial answers; the mean mask is that of the training photos."""
        batches = TrainingBatches(self.config.crops, self.config.tokenizer, self._context)
        return constant_baselines(batches, self.config.tokenizer, self.views)

    def original_ious(self, model: MaskTokenizer) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """IoU at the photos' own resolution of each object, all codes kept, and the best at the mask's resolution."""
        reached, best = [], []
        for image in self._images:
            rles = [mask.rle for mask in eligible_masks(image.masks, self._settings)]
            if not rles:
                continue
            height, width = image.image.shape[:2]
            grids = mask_grids(model, rles)
            with torch.no_grad():
                codes = model.encode(grids).codes
            lengths = torch.full((len(rles),), codes.shape[1])
            embedding = embed_whole_image(model, [image.image])
            decoded = decode_to_image(model, codes, lengths, embedding, [(height, width)] * len(rles))
            for rle, grid, ours in zip(rles, grids[:, 0].numpy(), decoded, strict=True):
                whole = decode(rle).astype(bool)
                reached.append(iou(ours, whole))
                best.append(iou(restore_whole(grid, height, width).astype(bool), whole))
        return np.array(reached), np.array(best)


def iou(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return float((one & other).sum() / (one | other).sum())


def by_length(named: dict[str, Scores]) -> str:
    """Table of mean IoUs by view and length; the start has not learned any lengths of its own."""
    lengths = next(iter(named.values())).lengths.tolist()
    rows = []
    for name, scores in named.items():
        for kind in (WHOLE, CROP, None):
            figures = [scores.mean_iou(kind, length) for length in lengths]
            chosen = f"{scores.mean_iou(kind):.3f} ({_mean_length(scores, kind):.1f})"
            rows.append([name, kind or "both", *(f"{figure:.3f}" for figure in figures), chosen])
    columns = ["tokenizer", "view", *(f"{length} codes" for length in lengths), "predicted (mean length)"]
    return table(columns, rows)


def _mean_length(scores: Scores, kind: str | None) -> float:
    return float(scores.predicted[[kind in (None, own) for own in scores.kinds]].mean())


def by_size(named: dict[str, Scores], mask_size: int) -> str:
    """Table of mean IoUs with all codes, by the size of the mask."""
    first = next(iter(named.values()))
    classes = np.searchsorted(SIZES, first.area / mask_size**2, side="right") - 1
    rows = []
    for index, least in enumerate(SIZES):
        chosen = classes == index
        if chosen.any():
            figures = [f"{scores.iou[chosen, -1].mean(dtype=np.float64):.3f}" for scores in named.values()]
            rows.append([f"{least:.0%} and more", str(chosen.sum()), *figures])
    return table(["share of the square", "masks", *named], rows)


def compare(
    data: Path, profile: str, scenes: int, steps: Sequence[int | None], initial_weights: Path | None
) -> str:
    """steps: of training on scenes, on photos, and of the lengths; None: the profile's."""
    on_scenes, on_photos, on_lengths = ({"steps": count} if count else {} for count in steps)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos = prepare_photos(folder, data)
        drawn = draw_scenes(folder / "scenes", scenes, SceneConfig(), SCENES_HELD_OUT).prepared
        mixture = folder / "mixture"
        shutil.copytree(photos, mixture)
        shutil.copytree(drawn, mixture / "scenes")
        if initial_weights is None:
            section = stage_section(profile, "tokenizer_stage1", on_scenes)
            initial_weights = train_stage1(folder / "start", section, drawn)
        start = load_tokenizer(initial_weights)
        sizes = {"tokenizer": start.config.model_dump(mode="json")}
        section = stage_section(profile, "tokenizer_stage1", FINE_TUNING | on_photos) | sizes
        tuned = train_stage1(folder / "tuned", section, mixture, initial_weights)
        lengths = stage_section(profile, "tokenizer_stage1_5", on_lengths)
        model = load_tokenizer(train_lengths(folder / "tuned", lengths, mixture, tuned))
        return _report(HeldOut(folder, photos, section), start, model)


def _report(held_out: HeldOut, start: MaskTokenizer, model: MaskTokenizer) -> str:
    named = {"scenes only": held_out.scores(start), "trained on photos": held_out.scores(model)}
    trivial = ", ".join(
        f"{name.replace('_', ' ')} {value:.3f}" for name, value in held_out.baselines().items()
    )
    reached, best = held_out.original_ious(model)
    images = len({view.image_id for view in held_out.views})
    masks = sum(len(view.masks) for view in held_out.views)
    return "\n\n".join(
        [
            f"{masks} masks of {images} held-out photos, {held_out.config.steps:,} steps on photos and scenes "
            f"({machine()}). IoU at {model.config.mask_size} pixels; trivial answers: {trivial}.",
            by_length(named),
            "All codes, by size:",
            by_size(named, model.config.mask_size),
            f"Whole-image objects at the photos' own resolution: IoU {reached.mean():.3f}; a perfect mask of "
            f"{model.config.mask_size} pixels would have {best.mean():.3f}.",
        ]
    )


def main() -> None:
    parser = arguments(__doc__, "real_masks", repeats=1)
    parser.add_argument("--data", type=Path, default=DATA, help="sample data (default ../shared/data)")
    parser.add_argument("--profile", default="small", help="whose stages are run (default small)")
    parser.add_argument("--scenes", type=int, default=80, help="sample scenes beside the photos (default 80)")
    parser.add_argument("--initial-weights", type=Path, help="stage 1 of a tokenizer to start from")
    parser.add_argument("--scene-steps", type=int, help="of training the start (default: the profile's)")
    parser.add_argument("--steps", type=int, help="of training on photos (default: the profile's)")
    parser.add_argument("--length-steps", type=int, help="of training the lengths (default: the profile's)")
    options = parser.parse_args()
    steps = (options.scene_steps, options.steps, options.length_steps)
    try:
        text = compare(options.data, options.profile, options.scenes, steps, options.initial_weights)
    except InputError as error:
        sys.exit(f"error: {error}")
    publish("real_masks", text, options.write, REPORT)


if __name__ == "__main__":
    main()

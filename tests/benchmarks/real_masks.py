"""Real masks: how well photographs are tokenized, before training on some of them and after.

Takes the sample data beside the project (`../shared/data`): photos in COCO layout, made a shard by
`jobs.acquisition.coco_shard`, and SA-1B pairs. They go through the pipeline's own stages: acquired, prepared (split
by image), mixed with about as many sample scenes, stages 1 and 1.5 trained on both. Reported is what the held-out
photos give, with and without the photo, beside a tokenizer that knows scenes only, trivial answers and the best that
the mask's resolution allows. At the defaults this takes about half an hour on one core.
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
from torch import Tensor

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
LENGTHS = (1, 2, 4, 8, 16, 32)
# What training on photos changes in the stage's section. So few photos teach little about where objects end, so that
# the codes have to say it: there are more of them, and they learn longer without the photo.
ON_PHOTOS: dict[str, Any] = {
    "tokenizer": {"max_length": 32, "codebook_size": 1024},
    "objective": {"images_from": 0.45, "shorten_from": 0.4, "image_dropout": 0.7, "full_length_share": 0.5},
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


def train_stage1(folder: Path, section: dict[str, Any], prepared: Path) -> Path:
    """Checkpoint that stage 1 leaves."""
    context = stage_context(folder, "tokenizer_stage1", inputs={"prepare_sa1b": prepared})
    tokenizer_stage1.run(tokenizer_stage1.Config.model_validate(section), context)
    return context.output


def train_lengths(folder: Path, section: dict[str, Any], prepared: Path, stage1: Path) -> Path:
    """Checkpoint that stage 1.5 leaves."""
    context = stage_context(
        folder, "tokenizer_stage1_5", inputs={"prepare_sa1b": prepared, "tokenizer_stage1": stage1}
    )
    tokenizer_stage1_5.run(tokenizer_stage1_5.Config.model_validate(section), context)
    return context.output


class WithoutImages(MaskTokenizer):
    """A tokenizer that is never shown an image."""

    def encode_image(self, images: Tensor) -> Tensor:
        return self.embedding_without_image(len(images))


def blinded(model: MaskTokenizer) -> MaskTokenizer:
    """The same tokenizer without images."""
    blind = WithoutImages(model.config)
    blind.load_state_dict(model.state_dict())
    return blind.eval()


class HeldOut:
    """Held-out photos, as the stages would evaluate them."""

    def __init__(self, folder: Path, photos: Path, section: dict[str, Any]) -> None:
        self.config = tokenizer_stage1.Config.model_validate(section)
        self._context = stage_context(folder, "held_out", inputs={"prepare_sa1b": photos})
        self.views = read_held_out(self.config.crops, self.config.tokenizer, self._context, ALL)
        self._settings = self.config.crops.settings(self.config.tokenizer)
        self._images = MaskImages(photos, "held_out")

    def scores(self, model: MaskTokenizer) -> Scores:
        """At those LENGTHS that the tokenizer has, and its full one."""
        longest = model.config.max_length
        return evaluate(model, self.views, [*(length for length in LENGTHS if length < longest), longest])

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
    """Table of mean IoUs by view and length."""
    lengths = sorted({int(length) for scores in named.values() for length in scores.lengths})
    rows = []
    for name, scores in named.items():
        for kind in (WHOLE, CROP, None):
            figures = [
                f"{scores.mean_iou(kind, length):.3f}" if length in scores.lengths else ""
                for length in lengths
            ]
            of_kind = [kind in (None, own) for own in scores.kinds]
            chosen = f"{scores.mean_iou(kind):.3f} ({scores.predicted[of_kind].mean():.1f})"
            rows.append([name, kind or "both", *figures, chosen])
    columns = ["tokenizer", "view", *(f"{length} codes" for length in lengths), "predicted (mean length)"]
    return table(columns, rows)


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
    data: Path, profile: str, scenes: int, steps: Sequence[int | None], scenes_only: Path | None
) -> str:
    """steps: of stage 1 and 1.5, None for the profile's; scenes_only: a tokenizer to compare with."""
    of_stage1, of_lengths = ({"steps": count} if count else {} for count in steps)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos = prepare_photos(folder, data)
        drawn = draw_scenes(folder / "scenes", scenes, SceneConfig(), SCENES_HELD_OUT).prepared
        mixture = folder / "mixture"
        shutil.copytree(photos, mixture)
        shutil.copytree(drawn, mixture / "scenes")
        section = stage_section(profile, "tokenizer_stage1", ON_PHOTOS | of_stage1)
        stage1 = train_stage1(folder, section, mixture)
        lengths = stage_section(profile, "tokenizer_stage1_5", of_lengths)
        models = {"photos and scenes": load_tokenizer(train_lengths(folder, lengths, mixture, stage1))}
        if scenes_only is not None:
            models["scenes only"] = load_tokenizer(scenes_only)
        return _report(HeldOut(folder, photos, section), models)


def _report(held_out: HeldOut, models: dict[str, MaskTokenizer]) -> str:
    named: dict[str, Scores] = {}
    for name, model in models.items():
        named |= {name: held_out.scores(model), f"{name}, no photo": held_out.scores(blinded(model))}
    trivial = ", ".join(
        f"{name.replace('_', ' ')} {value:.3f}" for name, value in held_out.baselines().items()
    )
    (ours, *_), size = models.values(), held_out.config.tokenizer.mask_size
    reached, best = held_out.original_ious(ours)
    images = len({view.image_id for view in held_out.views})
    masks = sum(len(view.masks) for view in held_out.views)
    return "\n\n".join(
        [
            f"{masks} masks of {images} held-out photos, {held_out.config.steps:,} steps on photos and scenes "
            f"({machine()}). IoU at {size} pixels; trivial answers: {trivial}.",
            by_length(named),
            "All codes, by size:",
            by_size(named, size),
            f"Whole-image objects at the photos' own resolution: IoU {reached.mean():.3f}; a perfect mask of "
            f"{size} pixels would have {best.mean():.3f}.",
        ]
    )


def main() -> None:
    parser = arguments(__doc__, "real_masks", repeats=1)
    parser.add_argument("--data", type=Path, default=DATA, help="sample data (default ../shared/data)")
    parser.add_argument("--profile", default="small", help="whose stages are run (default small)")
    parser.add_argument("--scenes", type=int, default=80, help="sample scenes beside the photos (default 80)")
    parser.add_argument("--steps", type=int, help="of stage 1 (default: the profile's)")
    parser.add_argument("--length-steps", type=int, help="of stage 1.5 (default: the profile's)")
    parser.add_argument("--scenes-only", type=Path, help="tokenizer trained on scenes, to compare with")
    options = parser.parse_args()
    steps = (options.steps, options.length_steps)
    try:
        text = compare(options.data, options.profile, options.scenes, steps, options.scenes_only)
    except InputError as error:
        sys.exit(f"error: {error}")
    publish("real_masks", text, options.write, REPORT)


if __name__ == "__main__":
    main()

"""Quality after equally many masks: K masks from each crop against one, with the stage's own training.

Stage 1 of a profile is trained twice for each seed, in steps of as many masks, on sample scenes, and both results
are scored on the same held-out masks. At the defaults this takes about 15 minutes on one idle core; `--repeats` is
the number of seeds.
"""

import tempfile
import time
from pathlib import Path
from statistics import mean

import yaml

from alto_models.tokenizer.evaluation import evaluate
from alto_models.tokenizer.model import load_tokenizer
from jobs import tokenizer_stage1
from jobs.sample_scenes.scene import SceneConfig
from jobs.tokenizer_training.data import read_held_out
from orchestration.profiles import render_profile
from tests.benchmarks.harness import arguments, machine, publish, table
from tests.benchmarks.scenes import draw_scenes, stage_context

ROOT = Path(__file__).parents[2]
MASKS_PER_CROP = (1, 8)
MASKS_PER_STEP = 32
HELD_OUT_SHARE = 0.1


def stage_config(profile: str, masks_per_crop: int, steps: int | None) -> tokenizer_stage1.Config:
    """Stage 1 of a profile with K masks a crop, and as many masks a step whatever K is."""
    section = yaml.safe_load(render_profile(ROOT, profile))["tokenizer_stage1"]
    crops = {"masks_per_crop": masks_per_crop, "crops_per_step": MASKS_PER_STEP // masks_per_crop}
    section["crops"] |= crops
    section["steps"] = steps or section["steps"]
    return tokenizer_stage1.Config.model_validate(section)


def trained_iou(config: tokenizer_stage1.Config, folder: Path, prepared: Path, seed: int) -> float:
    """Train, then the mean held-out IoU at full length, on masks that do not depend on how was trained."""
    context = stage_context(folder, "tokenizer_stage1", inputs={"prepare_sa1b": prepared}, seed=seed)
    tokenizer_stage1.run(config, context)
    same_for_all = config.crops.model_copy(update={"masks_per_crop": max(MASKS_PER_CROP)})
    views = read_held_out(same_for_all, config.tokenizer, context, config.evaluated_images)
    longest = config.tokenizer.max_length
    return evaluate(load_tokenizer(context.output), views, [longest]).mean_iou(length=longest)


def compare(profile: str, images: int, steps: int | None, seeds: int) -> str:
    """Table of the IoUs, a row a seed."""
    rows, differences = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scenes = draw_scenes(folder, images, SceneConfig(), HELD_OUT_SHARE)
        for seed in range(seeds):
            ious, seconds = [], []
            for masks_per_crop in MASKS_PER_CROP:
                config = stage_config(profile, masks_per_crop, steps)
                start = time.process_time()
                ious.append(trained_iou(config, folder / f"{seed}_{masks_per_crop}", scenes.prepared, seed))
                seconds.append(time.process_time() - start)
            differences.append(ious[-1] - ious[0])
            rows.append(
                [
                    str(seed),
                    *(f"{iou:.4f}" for iou in ious),
                    f"{differences[-1]:+.4f}",
                    *(f"{second:.0f}" for second in seconds),
                ]
            )
    trained = stage_config(profile, 1, steps).steps * MASKS_PER_STEP
    columns = [
        "seed",
        *(f"IoU, K = {count}" for count in MASKS_PER_CROP),
        "difference",
        *(f"seconds, K = {count}" for count in MASKS_PER_CROP),
    ]
    summary = f"Profile `{profile}`, {trained:,} masks seen, {images} scenes ({machine()})."
    return f"{summary} Mean difference {mean(differences):+.4f}.\n\n{table(columns, rows)}"


def main() -> None:
    parser = arguments(__doc__, "masks_per_crop", repeats=1)
    parser.add_argument("--profile", default="small", help="whose stage 1 is trained (default small)")
    parser.add_argument(
        "--images", type=int, default=600, help="sample scenes, a tenth held out (default 600)"
    )
    parser.add_argument("--steps", type=int, help="of training (default: the profile's)")
    options = parser.parse_args()
    publish(
        "masks_per_crop",
        compare(options.profile, options.images, options.steps, seeds=options.repeats),
        options.write,
    )


if __name__ == "__main__":
    main()

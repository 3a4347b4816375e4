"""Recipe of the committed base weights: a tiny InternVL, pre-trained on sample scenes of its own seed.

    python -m jobs.base_pretraining --out infra/base_weights/internvl_tiny --work .work/base_pretraining

Not a stage of the lineage: it stands in for the pre-training that InternVL has behind it when ALToLLM
starts. Two phases: the vision tower learns dense labels, then the whole model learns to caption scenes, to
give the boxes of what an expression means, and to name what is in a box. No masks. Run it again with the
same `--work` folder and it goes on where it stopped. Takes 50 minutes on one core.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from tqdm import tqdm

from alto_models.altollm.checkpoint import save_llm
from alto_models.altollm.network import NetworkConfig, build_network, embed_patches, hidden_states
from alto_models.altollm.optimizer import build_optimizer
from alto_models.altollm.processor import normalise
from alto_models.altollm.supervised import score_hidden
from alto_models.altollm.vocabulary import build_word_tokenizer
from alto_models.training.loop import StepResult, Training
from alto_models.training.schedule import LearningRate
from jobs.base_pretraining.batches import BaseBatches
from jobs.base_pretraining.evaluation import locating
from jobs.base_pretraining.questions import words
from jobs.base_pretraining.scenes import SCENES_A_FILE, ScenePool, read_scenes, write_scenes
from jobs.base_pretraining.vision import DenseHead, PointingHead, cell_labels, image_token_words, naming_loss

VISION_BATCH = 16  # scenes a step
LANGUAGE_BATCH = 8
PLACES = 8  # asked for in one visit to a scene
DENSE_WEIGHT = 0.3  # of the dense labels in the second phase
TOWER_RATE = 0.25  # of the learning rate, for the vision tower in the second phase
POINTING_WEIGHT = 0.5  # of pointing at the targets in the second phase
NAMING_WEIGHT = 0.3  # of the words for image tokens in the second phase
VISION_RATE = LearningRate(peak=6e-3, final=6e-4, warmup_steps=50)
LANGUAGE_RATE = LearningRate(peak=4e-3, final=1e-4, warmup_steps=50)


def main(argv: Sequence[str] | None = None) -> None:
    arguments = _parse(argv)
    torch.manual_seed(arguments.seed)
    network = NetworkConfig()
    pool, held_out = _scenes(arguments.work / "scenes", arguments.seed, arguments.scenes, network.image_size)
    tokenizer = build_word_tokenizer(words())
    model = build_network(network, tokenizer)
    head = DenseHead(network.vision_width, network.patch_size)
    pointer = PointingHead(network.text_width)
    maker = BaseBatches(tokenizer, model.config.image_seq_length, PLACES)

    def dense(scenes: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        patches, image = embed_patches(model, normalise(pool.images[scenes]))
        labels = cell_labels(pool.cells[scenes], [pool.notes[scene] for scene in scenes])
        loss, accuracy = head(patches, *labels)
        return image, loss, accuracy

    def vision_step(step: int) -> StepResult:
        scenes = batch_of(step, VISION_BATCH, len(pool))
        _, loss, accuracy = dense(scenes)
        return StepResult(loss=loss, samples=[str(scene) for scene in scenes], figures=_attributes(accuracy))

    def language_step(step: int) -> StepResult:
        scenes = batch_of(step, LANGUAGE_BATCH, len(pool))
        image, dense_loss, accuracy = dense(scenes)
        batch, pointing = maker.batch(pool, scenes, np.random.default_rng([arguments.seed, step]))
        hidden = hidden_states(model, image, batch)
        scores = score_hidden(model, hidden, batch)
        found = pointer(hidden[pointing.row, pointing.position], image[pointing.row], pointing.tokens)
        names = image_token_words(
            pool.cells[scenes],
            [pool.notes[scene] for scene in scenes],
            tokenizer,
            round(image.shape[1] ** 0.5),
        )
        naming = naming_loss(model.lm_head(image), names)
        return StepResult(
            loss=scores.loss + DENSE_WEIGHT * dense_loss + NAMING_WEIGHT * naming + POINTING_WEIGHT * found,
            samples=[str(scene) for scene in scenes],
            figures={
                "language": scores.loss.detach(),
                "tokens": scores.token_accuracy,
                "naming": naming.detach(),
                "pointing": found.detach(),
            }
            | _attributes(accuracy),
        )

    trained = nn.ModuleDict({"model": model, "head": head, "pointer": pointer})
    tower = {model.model.vision_tower: TOWER_RATE, head: TOWER_RATE}
    vision = build_optimizer(trained)
    _train(trained, vision, arguments.work / "vision", vision_step, arguments.vision_steps, VISION_RATE)
    language = build_optimizer(trained, rate_scales=tower)
    _train(
        trained, language, arguments.work / "language", language_step, arguments.language_steps, LANGUAGE_RATE
    )
    figures = locating(model.eval(), maker, held_out)
    print(json.dumps(figures))
    save_llm(arguments.out, model.half(), tokenizer)


def batch_of(step: int, size: int, scenes: int) -> np.ndarray:
    """Scenes of a step (size,): passes over all of them, each in an order of its own."""
    a_pass = scenes // size
    order = np.random.default_rng(step // a_pass).permutation(scenes)
    start = step % a_pass * size
    return order[start : start + size]


def _attributes(accuracy: Tensor) -> dict[str, Tensor]:
    return dict(zip(("shape", "colour", "fill"), accuracy.detach(), strict=True))


def _train(
    trained: nn.Module,
    optimizer: Optimizer,
    folder: Path,
    forward: Callable[[int], StepResult],
    steps: int,
    rate: LearningRate,
) -> None:
    folder.mkdir(parents=True, exist_ok=True)

    def log(step: int, figures: Mapping[str, float]) -> None:
        point = {"step": step, **{name: round(value, 4) for name, value in figures.items()}}
        with (folder / "curve.jsonl").open("a") as file:
            file.write(json.dumps(point) + "\n")

    training = Training(
        model=trained,
        optimizer=optimizer,
        learning_rate=rate,
        total_steps=steps,
        forward=forward,
        folder=folder,
        save_every=100,
        log=log,
        log_every=50,
    )
    done = training.restore()
    with tqdm(total=steps, initial=done, desc=folder.name, unit="step", mininterval=5) as bar:
        training.run(done, bar)


def _scenes(folder: Path, seed: int, count: int, image_size: int) -> tuple[ScenePool, ScenePool]:
    """Scenes to train on, and the first file's, held out; drawn where they are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"scenes-{index:04d}.npz" for index in range(count // SCENES_A_FILE + 1)]
    missing = [(index, path) for index, path in enumerate(paths) if not path.exists()]
    with ProcessPoolExecutor() as workers:
        drawn = [
            workers.submit(write_scenes, path, seed, index * SCENES_A_FILE, image_size)
            for index, path in missing
        ]
        for future in tqdm(drawn, desc="Drawing scenes", unit="file"):
            future.result()
    return read_scenes(paths[1:]), read_scenes(paths[:1])


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="checkpoint folder to write (float16)")
    parser.add_argument("--work", type=Path, required=True, help="folder for scenes, curves and checkpoints")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--scenes", type=int, default=19_500)
    parser.add_argument("--vision-steps", type=int, default=1_600)
    parser.add_argument("--language-steps", type=int, default=4_500)
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()

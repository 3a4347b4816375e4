"""Stage 1 as it trains: in several processes, in passes, in half precision, without waiting for the device."""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch._subclasses.fake_tensor import FakeTensorMode

from alto_models.data.crops import CropBatch
from alto_models.tokenizer.model import MaskTokenizer
from alto_models.tokenizer.optimizer import build_optimizer
from alto_models.tokenizer.quantizer import nearest_codes
from alto_models.tokenizer.stage1 import BatchTensors, Stage1, Stage1Settings, settle_statistics
from alto_models.tokenizer.stage1_5 import PredictorSettings, PredictorTraining
from alto_models.training.loop import StepResult, Training
from alto_models.training.processes import own_share
from alto_models.training.schedule import LearningRate
from tests.alto_models.tokenizer.tiny import TINY

STEPS, CROPS, MASKS = 20, 4, 2
SETTINGS = Stage1Settings(
    images_from=0.1,
    quantize_from=0.3,
    shorten_from=0.5,
    image_dropout=0.3,
    full_length_share=0.4,
    revive_every=3,
    revive_until=0.9,
    codebook_batches=4,
    bce_weight=1.0,
    dice_weight=1.0,
    edge_weight=0.2,
    quantizer_weight=1.0,
    common_part_weight=0.003,
)


class Bar:
    def update(self, n: float = 1) -> None:
        pass


def crops_of(step: int, crops: range) -> BatchTensors:
    """Some crops of a step: noisy images with discs."""
    images, masks = [], []
    for crop in crops:
        rng = np.random.default_rng([step, crop])
        images.append(rng.integers(0, 256, (3, 64, 64), np.uint8))
        rows, columns = np.indices((32, 32))
        centres, radii = rng.uniform(8, 24, (MASKS, 2)), rng.uniform(3, 12, MASKS)
        discs = [np.hypot(rows - y, columns - x) < r for (y, x), r in zip(centres, radii, strict=True)]
        masks.append(np.stack(discs).astype(np.float32))
    ids = tuple(f"{step}-{crop}" for crop in crops)
    batch = CropBatch(image_ids=ids, images=np.stack(images), masks=np.stack(masks))
    return BatchTensors(batch, crops, step_crops=CROPS, device=torch.device("cpu"))


def doubled(batch: BatchTensors) -> BatchTensors:
    batch.images, batch.masks = batch.images.double(), batch.masks.double()
    return batch


def train(folder: Path, crops_per_pass: int | None = None, steps: int = STEPS, **options: object) -> Training:
    """In float64, in which rounding cannot tip the choice of a code, so that equal means equal."""
    torch.manual_seed(0)
    model = MaskTokenizer(TINY).double()
    stage = Stage1(model, SETTINGS, STEPS, seed=3)
    own = own_share(CROPS)
    size = crops_per_pass or len(own)

    def batches() -> Iterator[BatchTensors]:
        for step in range(steps):
            if step == stage.quantizer_starts_at():
                stage.fit_codebook([doubled(crops_of(step + ahead, range(CROPS))) for ahead in range(4)])
            for start in range(own.start, own.stop, size):
                yield doubled(crops_of(step, range(start, start + size)))

    upcoming = batches()
    curve: dict[int, Mapping[str, float]] = {}
    training = Training(
        model=model,
        optimizer=build_optimizer(model, 0.02),
        learning_rate=LearningRate(peak=2e-3, final=1e-4, warmup_steps=2),
        total_steps=steps,
        forward=lambda step: stage.forward(step, next(upcoming)),
        folder=folder,
        save_every=1000,
        log=curve.__setitem__,
        log_every=1,
        passes=len(own) // size,
        **options,
    )
    training.run(0, Bar())
    settle_statistics(model, [doubled(crops_of(step, own)) for step in range(4)])
    (folder / "curve.json").write_text(json.dumps(curve))
    return training


def train_in_process(rank: int, processes: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder / 'meeting'}", rank=rank, world_size=processes)
    (folder / str(rank)).mkdir()
    training = train(folder / str(rank))
    torch.save(training.model.state_dict(), folder / str(rank) / "model.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_give_the_curve_of_one(tmp_path: Path) -> None:
    """Through all phases: without images, with, quantised, shortened; with codes revived."""
    (tmp_path / "one").mkdir()
    one = train(tmp_path / "one")
    mp.spawn(train_in_process, args=(2, tmp_path), nprocs=2)
    expected, found = (json.loads((tmp_path / name / "curve.json").read_text()) for name in ("one", "0"))
    assert len(found) == STEPS
    for step, point in expected.items():
        assert found[step] == pytest.approx(point, abs=1e-6, rel=1e-6)
    for name, value in torch.load(tmp_path / "0" / "model.pt").items():
        torch.testing.assert_close(value, one.model.state_dict()[name], atol=1e-4, rtol=1e-4)
    # Only the first process writes checkpoints.
    assert (tmp_path / "0" / "training_state.pt").exists()
    assert not (tmp_path / "1" / "training_state.pt").exists()


def test_random_choices_do_not_depend_on_how_a_step_is_divided() -> None:
    torch.manual_seed(0)
    stage = Stage1(MaskTokenizer(TINY), SETTINGS, STEPS, seed=3)
    whole = stage._lengths(crops_of(15, range(4)), 15 / STEPS, stage._generator(15, stream=0))
    halves = [
        stage._lengths(crops_of(15, part), 15 / STEPS, stage._generator(15, stream=0))
        for part in (range(2), range(2, 4))
    ]
    assert len(set(whole.tolist())) > 1
    assert torch.equal(whole, torch.cat(halves))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_learns_about_as_well(precision: str, tmp_path: Path) -> None:
    """Fewer bits in products, float32 where it counts: the same curve to a few per cent."""
    last = {}
    for name in ("fp32", precision):
        (tmp_path / name).mkdir()
        torch.manual_seed(0)
        model = MaskTokenizer(TINY)
        stage = Stage1(model, SETTINGS, STEPS, seed=3)
        training = Training(
            model=model,
            optimizer=build_optimizer(model, 0.0),
            learning_rate=LearningRate(peak=2e-3, final=2e-3, warmup_steps=0),
            total_steps=5,
            forward=lambda step, stage=stage: stage.forward(step, crops_of(step, range(CROPS))),
            folder=tmp_path / name,
            save_every=100,
            log=lambda step, figures, name=name: last.__setitem__(name, figures),
            precision=name,
        )
        training.run(0, Bar())
        assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    assert last[precision]["dice"] == pytest.approx(last["fp32"]["dice"], rel=0.03)


def test_codes_are_chosen_in_float32_even_under_autocast() -> None:
    generator = torch.Generator().manual_seed(0)
    latents = torch.nn.functional.normalize(torch.randn(500, 8, generator=generator), dim=-1)
    entries = torch.nn.functional.normalize(torch.randn(64, 8, generator=generator), dim=-1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        codes = nearest_codes(latents, entries)
    assert torch.equal(codes, (latents @ entries.T).argmax(-1))


@pytest.mark.parametrize("step", [0, 4, 9, 12])
def test_a_training_step_never_waits_for_the_device(step: int) -> None:
    """Fake tensors have shapes and no values: whatever needs a value on the host raises."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = MaskTokenizer(TINY)
        stage = Stage1(model, SETTINGS, STEPS, seed=3)
        run_one_step(model, lambda: stage.forward(step, crops_of(step, range(CROPS))))


@pytest.mark.parametrize("objective", ["oracle", "chunking"])
def test_a_step_of_the_length_predictor_never_waits_either(objective: str) -> None:
    settings = PredictorSettings(objective=objective, length_weight=0.1, prefixes=4, temperature=0.01)
    model = MaskTokenizer(TINY).eval()
    stage = PredictorTraining(model, settings)
    with FakeTensorMode(allow_non_fake_inputs=True):
        run_one_step(model, lambda: stage.forward(0, crops_of(0, range(CROPS))))


def run_one_step(model: MaskTokenizer, forward: object) -> None:
    result: StepResult = forward()  # type: ignore[operator]
    optimizer = build_optimizer(model, 0.02)
    result.loss.backward()
    torch.nn.utils.clip_grad_norm_([each for each in model.parameters() if each.requires_grad], 1.0)
    optimizer.step()
    result.after_update()


def test_settled_statistics_are_the_moments_of_the_final_weights() -> None:
    torch.manual_seed(0)
    model = MaskTokenizer(TINY).train()
    for step in range(5):
        model.encode(crops_of(step, range(CROPS)).masks)
    with torch.no_grad():  # weights that moved, and moments that lag behind
        model.project.linear.bias += 3.0
    batches = [crops_of(step, range(CROPS)) for step in range(3)]
    settle_statistics(model, batches)
    assert not model.training
    with torch.no_grad():
        projected = [model.project.linear(model.encoder(batch.masks).latents).flatten(1) for batch in batches]
    normalise = model.project.normalise
    torch.testing.assert_close(
        normalise.running_mean, torch.stack([each.mean(0) for each in projected]).mean(0)
    )
    torch.testing.assert_close(
        normalise.running_var, torch.stack([each.var(0) for each in projected]).mean(0)
    )


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling for a processor needs g++")
def test_compiled_parts_compute_the_same() -> None:
    losses = []
    for compiled in (False, True):
        torch.manual_seed(0)
        model = MaskTokenizer(TINY)
        if compiled:
            model.encoder.compile()
            model.detokenizer.compile()
        stage = Stage1(model, SETTINGS, STEPS, seed=3)
        result = stage.forward(12, crops_of(12, range(CROPS)))
        result.loss.backward()
        gradient = model.encoder.latents.grad
        assert gradient is not None
        losses.append((result.loss.item(), gradient.norm().item()))
        assert not any("_orig_mod" in name for name in model.state_dict())
    assert losses[1] == pytest.approx(losses[0], rel=2e-3)  # sums in another order, and few masks


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_training_step_never_waits_for_a_gpu(tmp_path: Path) -> None:
    device = torch.device("cuda")
    model = MaskTokenizer(TINY).to(device)
    stage = Stage1(model, SETTINGS, STEPS, seed=3)
    batch = crops_of(12, range(CROPS))
    batch.images, batch.masks = batch.images.to(device), batch.masks.to(device)
    optimizer = build_optimizer(model, 0.02)
    for _ in range(2):
        torch.cuda.set_sync_debug_mode("error" if optimizer.state else "default")
        try:
            result = stage.forward(12, batch)
            result.loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            result.after_update()
        finally:
            torch.cuda.set_sync_debug_mode("default")

"""The benchmarks run, and what they compare computes the same where it should."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import correlate

from alto_models.data.crops import CropReader, CropSettings, croppable_rows
from alto_models.data.masks import MaskImages
from alto_models.published.tokenizer import PublishedTokenizer
from alto_models.tokenizer.config import SamSize, TokenizerConfig
from alto_models.tokenizer.model import MaskTokenizer
from alto_models.tokenizer.stage1 import draw_lengths
from jobs.sample_scenes.scene import SceneConfig
from tests.benchmarks import many_masks, masks_per_crop, reading, training_step
from tests.benchmarks.flops import step_flops
from tests.benchmarks.harness import interleaved, publish
from tests.benchmarks.losses import our_loss
from tests.benchmarks.parts import PassInputs, parts_of_a_pass
from tests.benchmarks.procedures import FULL_LENGTH_SHARE, Ours, Published, both_networks, both_procedures
from tests.benchmarks.published_loss import EDGE_KERNEL, published_loss
from tests.benchmarks.published_reading import PublishedReader, cut_sample, merged_mask
from tests.benchmarks.scenes import (
    LARGE_HEIGHT,
    LARGE_MASKS,
    LARGE_WIDTH,
    Scenes,
    copied_pairs,
    copies,
    draw_large_pairs,
    draw_scenes,
)
from tests.benchmarks.sizes import FULL, MASKS_PER_IMAGE, Size, sam_size

WITH_SAM = sam_size(
    "tiny",
    grid=2,
    max_length=4,
    width=64,
    layers=1,
    code_width=4,
    codebook_size=16,
    head_width=8,
    pixel_decoder_width=32,
    sam=SamSize(width=32, layers=1, heads=2, grid=8, window=3, global_layers=(0,), embedding_width=16),
    masks_per_pass=8,
)
WITHOUT_SAM = Size(
    name="tiny",
    ours=TokenizerConfig(
        mask_size=16,
        grid=2,
        max_length=4,
        width=16,
        heads=2,
        pixel_encoder={"kind": "conv", "image_size": 32},
    ),
    published=None,
    masks_per_pass=8,
)
both_sizes = pytest.mark.parametrize("size", [WITH_SAM, WITHOUT_SAM], ids=["sam", "conv"])


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Scenes:
    return draw_scenes(tmp_path_factory.mktemp("scenes"), 6, SceneConfig())


def some_masks(size: Size, count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    coarse = (torch.rand(count, 1, 4, 4, generator=generator) > 0.5).float()
    return F.interpolate(coarse, size=size.ours.mask_size)


def some_images(size: Size, count: int) -> torch.Tensor:
    side = size.ours.pixel_encoder.image_size
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(2))


def test_cases_take_turns_after_a_round_that_does_not_count() -> None:
    calls: list[str] = []
    seconds = interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, repeats=2)
    assert calls == ["a", "b"] * 3
    assert seconds.keys() == {"a", "b"}
    assert min(seconds.values()) >= 0


def test_writing_replaces_one_table_and_nothing_else(tmp_path: Path) -> None:
    report = tmp_path / "report.md"
    before = "above\n<!-- x: written by python -m tests.benchmarks.x -->\nold\n<!-- /x -->\nbelow\n"
    report.write_text(before)
    publish("x", r"new \1", write=False, report=report)
    assert report.read_text() == before
    publish("x", r"new \1", write=True, report=report)
    assert report.read_text() == before.replace("old", r"new \1")
    with pytest.raises(SystemExit, match="markers"):
        publish("y", "new", write=True, report=report)


def test_our_loss_against_an_independent_one() -> None:
    rng = np.random.default_rng(0)
    logits, masks = rng.normal(size=(3, 8, 8)), (rng.random((3, 8, 8)) > 0.5).astype(float)
    p = 1 / (1 + np.exp(-logits))
    cross_entropy = -(masks * np.log(p) + (1 - masks) * np.log(1 - p)).mean()
    dice = np.mean(
        [1 - (2 * (a * b).sum() + 1) / (a.sum() + b.sum() + 1) for a, b in zip(p, masks, strict=True)]
    )
    ours = our_loss(torch.tensor(logits, dtype=torch.float32), torch.tensor(masks, dtype=torch.float32))
    assert float(ours) == pytest.approx(cross_entropy + dice, abs=1e-5)


def test_published_loss_against_an_independent_one() -> None:
    rng = np.random.default_rng(0)
    logits, masks = rng.normal(size=(3, 8, 8)), (rng.random((3, 8, 8)) > 0.5).astype(float)
    p = 1 / (1 + np.exp(-logits))
    kernel = np.array(EDGE_KERNEL)
    assert kernel.sum() == -3
    edges = [[correlate(each, kernel, mode="constant") for each in maps] for maps in (p, masks)]
    weights = np.where(np.array(edges[1]) == 0, 1, 5)
    expected = (weights * (p - masks) ** 2).mean() + 0.2 * ((np.array(edges[0]) - edges[1]) ** 2).mean()
    tensors = (torch.tensor(logits, dtype=torch.float32), torch.tensor(masks, dtype=torch.float32))
    for with_idle_terms in (False, True):
        assert float(published_loss(*tensors, with_idle_terms)) == pytest.approx(expected, rel=1e-5)


def test_published_parts_are_the_published_network() -> None:
    published, _ = both_procedures(WITH_SAM)
    assert isinstance(published, Published)
    network, masks = published.network, some_masks(WITH_SAM, 4)
    with torch.no_grad():
        embedding = published.encode_image(some_images(WITH_SAM, 2))
        logits = published.logits(published.slots(masks, embedding)[0], embedding)
    lengths = torch.randint(1, 5, (4,), generator=torch.Generator().manual_seed(0))
    expected = network.decode(network.encode(masks).codes, lengths, embedding)
    torch.testing.assert_close(logits.sigmoid(), expected.sigmoid())


@both_sizes
def test_our_parts_are_our_network(size: Size) -> None:
    ours, network = both_procedures(size)[1], both_networks(size)[1].train()
    images, masks = some_images(size, 2), some_masks(size, 4)
    embedding = ours.encode_image(images)
    logits = ours.logits(ours.slots(masks, embedding)[0], embedding)
    lengths = draw_lengths(4, size.ours.max_length, FULL_LENGTH_SHARE, torch.Generator().manual_seed(0))
    expected = network.decode_vectors(network.encode(masks).vectors, lengths, network.encode_image(images))
    torch.testing.assert_close(logits, expected)


@both_sizes
@pytest.mark.parametrize("which", [0, 1], ids=["published", "ours"])
def test_a_pass_trains_all_but_the_length_predictor_and_sam(size: Size, which: int) -> None:
    procedure = both_procedures(size)[which]
    parts_of_a_pass(procedure, PassInputs(some_images(size, 8), some_masks(size, 8)))["all"]()
    assert isinstance(procedure, Published | Ours)
    network = procedure.network if isinstance(procedure, Published) else procedure.model
    without = {
        name.split(".")[0] if "length" not in name else "length"
        for name, parameter in network.named_parameters()
        if parameter.grad is None
    }
    frozen = {"pixel_encoder"} if size is WITH_SAM else set()
    assert without - {"no_image"} == frozen | {"length"}
    before = [each.detach().clone() for each in procedure.trained]
    procedure.update()
    assert any(not torch.equal(*pair) for pair in zip(before, procedure.trained, strict=True))


def test_flops_fall_where_the_image_is_shared() -> None:
    published, ours = step_flops(WITH_SAM)
    assert published["image"] == MASKS_PER_IMAGE * ours["image"] > 0
    assert published["head"] > ours["head"] > 0
    assert published["optimizer"] == 0


def test_published_size_is_published() -> None:
    assert FULL.published is not None
    with torch.device("meta"):
        network = PublishedTokenizer(FULL.published)
    millions = {
        name: sum(p.numel() for p in part.parameters()) / 1e6 for name, part in network.named_children()
    }
    assert millions["pixel_decoder"] == pytest.approx(34.0, abs=0.1)
    assert millions["pixel_encoder"] == pytest.approx(308.3, abs=0.1)
    assert millions["encoder"] == pytest.approx(306.6, abs=0.5)
    assert millions["decoder"] == pytest.approx(308.1, abs=0.5)


def test_image_encoded_once_gives_the_same_masks() -> None:
    model = both_networks(WITH_SAM)[1].eval()
    image, masks = some_images(WITH_SAM, 1)[0], some_masks(WITH_SAM, 3)
    together = many_masks.batched(model, image, masks)
    torch.testing.assert_close(together, many_masks.one_by_one(model, image, masks), rtol=1e-4, atol=1e-4)


@both_sizes
def test_many_masks_runs(size: Size) -> None:
    times = many_masks.evaluation_times(size, masks=2, repeats=1)
    assert min(times.values()) > 0


def test_both_readers_cut_the_same_sample(scenes: Scenes) -> None:
    # Images so large that none is decoded at a part of its size.
    settings = CropSettings(
        image_size=192, mask_size=48, masks_per_crop=1, max_merged=1, min_area_share=0.004
    )
    images = MaskImages(scenes.prepared)
    by_id = {image.image_id: image for image in images}
    reader = CropReader(croppable_rows(scenes.prepared, "train", settings), settings, seed=3)
    overlap = np.zeros(2)
    for position in range(len(reader)):
        crop = reader.crop(position)
        stored = by_id[crop.image_id]
        candidates = [
            cut_sample(
                stored.image,
                merged_mask([{"segmentation": {"size": mask.rle[:2], "counts": mask.rle.counts}}]),
                crop.square,
                settings,
            )
            for mask in stored.masks
        ]
        np.testing.assert_allclose(candidates[0].image, crop.image / 255, atol=1.01 / 255)  # roundings differ
        shared, either = max(
            (
                ((grey.mask * crop.masks[0] > 0.5).sum(), np.maximum(grey.mask > 0.5, crop.masks[0]).sum())
                for grey in candidates
            ),
            key=lambda pixels: pixels[0] / pixels[1],
        )
        overlap += (shared, either)
    assert overlap[0] / overlap[1] > 0.9


def test_published_reader(scenes: Scenes) -> None:
    settings = CropSettings(image_size=64, mask_size=32)
    reader = PublishedReader(scenes.source, settings)
    assert len(reader) == 6
    for position in range(len(reader)):
        sample = reader.sample(position)
        assert sample.image.shape == (3, 64, 64)
        assert 0 <= sample.image.min() < sample.image.max() <= 1
        assert sample.mask.shape == (32, 32)
        assert 0 < sample.mask.mean() <= 0.3  # at most a quarter, as the square has 4 times the box


@both_sizes
def test_training_step_runs(size: Size, scenes: Scenes) -> None:
    times = training_step.step_times(size, scenes, repeats=1)
    assert (
        times.published.keys() == times.ours.keys() == {*training_step.PARTS, "all", training_step.ALL_BF16}
    )
    for label in (*training_step.PARTS.values(), training_step.TOGETHER):
        assert label in training_step.time_table(size, times)


def test_reading_runs(scenes: Scenes, tmp_path: Path) -> None:
    assert min(reading.reading_times(scenes, WITH_SAM, repeats=1)) > 0
    settings = CropSettings(image_size=32, mask_size=16)
    prepared = copies(scenes.prepared, tmp_path / "many", rows=50, rows_per_group=8)
    assert reading.masks_a_second(prepared, settings, workers=0) > 0
    assert len(reading.resident_over_passes(prepared, settings, passes=2)) == 2


def test_large_pairs_pass_the_contract(tmp_path: Path) -> None:
    prepared = copied_pairs(tmp_path, draw_large_pairs(tmp_path / "pairs", 1)).prepared
    (image,) = MaskImages(prepared)
    assert image.image.shape == (LARGE_HEIGHT, LARGE_WIDTH, 3)
    assert len(image.masks) == LARGE_MASKS


@pytest.mark.slow
def test_masks_per_crop_runs() -> None:
    assert "512 masks seen" in masks_per_crop.compare("smoke", images=24, steps=None, seeds=1)


def test_masks_per_crop_compares_equal_numbers_of_masks() -> None:
    one, eight = (masks_per_crop.stage_config("small", count, None) for count in (1, 8))
    assert one.crops.crops_per_step == 32
    assert eight.crops.crops_per_step == 4
    assert one.model_copy(update={"crops": eight.crops}) == eight


def test_published_network_at_a_small_size_decodes_at_mask_resolution() -> None:
    published = both_networks(WITHOUT_SAM)[0].eval()
    assert isinstance(published, MaskTokenizer)
    masks = many_masks.batched(published, some_images(WITHOUT_SAM, 1)[0], some_masks(WITHOUT_SAM, 2))
    assert masks.shape == (2, 16, 16)

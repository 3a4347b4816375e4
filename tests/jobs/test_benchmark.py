import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from alto_models import masks
from alto_models.altollm.answering import AltoLLM, Answer
from alto_models.altollm.network import NetworkConfig, build_network
from alto_models.altollm.vocabulary import add_mask_vocabulary, build_word_tokenizer
from alto_models.checkpoint import save_checkpoint
from alto_models.data.shards import Picture, ShardRows
from alto_models.tokenizer.config import ConvPixelEncoderConfig, TokenizerConfig
from alto_models.tokenizer.model import MaskTokenizer
from data_contracts.errors import InputError
from data_contracts.schemas import REFERRING_SCHEMA
from jobs import benchmark
from jobs.benchmarking.language import LanguageSystem, decode_masks
from jobs.benchmarking.questions import BenchmarkImage, Question
from jobs.benchmarking.results import (
    SAMPLES_SCHEMA,
    BenchmarkMetrics,
    TokenizerMetrics,
    read_metrics,
    read_table,
)
from jobs.benchmarking.rows import Prediction, sample_row
from jobs.benchmarking.scoring import Scoreboard, class_miou, size_class
from jobs.benchmarking.systems import LargestObject, MeanMask, RandomObject
from jobs.benchmarking.untrained import UntrainedAltoLLM
from jobs.benchmarking.vqa_results import VQA_METRICS_FILE, VqaMetrics
from jobs.runner.context import StageContext
from tests.jobs.benchmark_example import (
    HEIGHT,
    WIDTH,
    config,
    image_row,
    known_systems,
    stage_context,
    write_prepared,
)
from tests.jobs.vqa_data import POPE, write_questions

TINY = TokenizerConfig(
    mask_size=16,
    grid=2,
    max_length=4,
    width=12,
    codebook_size=8,
    code_width=4,
    head_width=4,
    pixel_encoder=ConvPixelEncoderConfig(image_size=32, width=4),
)


@pytest.fixture
def image() -> BenchmarkImage:
    return BenchmarkImage.from_row(image_row(0))


@pytest.fixture
def questions(image: BenchmarkImage) -> list[Question]:
    return list(image.questions("standard"))


def run_benchmark(folder: Path, images: int = 6, **changes: object) -> Path:
    """Evaluates the stand-in models; returns the output folder."""
    prepared = folder / "prepared" / "scenes"
    if not prepared.exists():
        write_prepared(prepared, images)
    context = stage_context(folder / "run", "benchmark", "scenes")
    rows = ShardRows(prepared, REFERRING_SCHEMA, None)
    benchmark.compare_systems(rows, known_systems(), TINY, config(**changes), context)
    return context.output


def read_samples(output: Path) -> pd.DataFrame:
    return read_table(output / "samples.parquet", SAMPLES_SCHEMA).to_pandas()


def test_questions_are_every_expression_of_every_record(questions: list[Question]) -> None:
    assert [(q.record.record_id, q.expression_index) for q in questions] == [
        ("0-a", 0),
        ("0-a", 1),
        ("0-b", 0),
        ("0-c", 0),
        ("0-d", 0),
    ]
    assert [q.record.category for q in questions] == ["disc", "disc", "ring", "several", "no target"]


def test_the_released_protocol_asks_for_all_descriptions_of_a_target_at_once() -> None:
    asked = list(BenchmarkImage.from_row(image_row(0)).questions("released"))
    assert [(q.record.record_id, q.expression) for q in asked] == [
        ("0-a", "Meet all the descriptions: 1. the red disc 2. the disc on the left"),
        ("0-b", "the <b>ring</b> & its hole"),
        ("0-c", "the blue dot and the ring"),
        ("0-d", "the green star"),
    ]


def test_released_figures_are_of_one_question_a_record(tmp_path: Path) -> None:
    output = run_benchmark(tmp_path)
    metrics = read_metrics(output / "metrics.json", BenchmarkMetrics)
    assert {one.samples for one in metrics.released} == {metrics.records}
    assert {one.samples for one in metrics.systems} == {metrics.expressions}
    names = {one.system for one in metrics.released}
    assert names == {*metrics.learned, "mean_mask", "largest_object", "random_object", "nothing"}
    samples = read_table(output / "released_samples.parquet", SAMPLES_SCHEMA).to_pandas()
    for one in metrics.released:
        own = samples[(samples["system"] == one.system) & (samples["mode"] == one.mode)]
        assert one.giou is not None
        assert one.giou.value == pytest.approx(own["iou"].mean())


def test_class_miou_is_the_mean_over_categories_of_their_summed_overlap() -> None:
    table = pd.DataFrame(
        {
            "category": ["sky", "sky", "sea", "no target", "several"],
            "intersection": [1, 3, 5, 0, 7],
            "union": [4, 4, 10, 9, 7],
        }
    )
    assert class_miou(table) == pytest.approx((4 / 8 + 5 / 10) / 2)
    assert class_miou(table[3:]) is None


def test_row_of_a_shifted_disc(questions: list[Question]) -> None:
    question = questions[0]
    truth = masks.decode(question.record.rle).astype(bool)  # type: ignore[arg-type]
    shifted = np.roll(truth, 2, axis=1)
    row = sample_row(question, Prediction(mask=shifted, asked="", codes=(1, 2, 3)), "model", "full")
    assert row["intersection"] == (truth & shifted).sum()
    assert row["iou"] == pytest.approx((truth & shifted).sum() / (truth | shifted).sum())
    assert 0 < row["boundary_iou"] < row["iou"]
    assert row["length"] == 3
    stored = masks.decode(masks.Rle(HEIGHT, WIDTH, row["predicted_counts"]))
    assert (stored == shifted).all()


def ignoring(question: Question, ignore: np.ndarray) -> Question:
    """The question with pixels that count neither way."""
    record = replace(question.record, ignore=masks.encode(ignore))
    return replace(question, image=replace(question.image, records=(record,)), record=record)


def test_ignored_pixels_are_in_no_figure(questions: list[Question]) -> None:
    truth = masks.decode(questions[0].record.rle).astype(bool)  # type: ignore[arg-type]
    ignore = np.zeros_like(truth)
    ignore[:, 16:] = True
    question = ignoring(questions[0], ignore)
    rows = [
        sample_row(question, Prediction(mask=mask, asked=""), "model", "full")
        for mask in (truth, truth | ignore, truth & ~ignore, ignore)
    ]
    assert [row["iou"] for row in rows] == [1.0, 1.0, 1.0, 0.0]
    assert [row["boundary_iou"] for row in rows] == [1.0, 1.0, 1.0, 0.0]
    assert [row["predicted_area"] for row in rows] == [(truth & ~ignore).sum()] * 3 + [0]
    assert rows[0]["target_area"] == (truth & ~ignore).sum()
    for row, mask in zip(rows, (truth, truth | ignore, truth & ~ignore, ignore), strict=True):
        stored = masks.decode(masks.Rle(HEIGHT, WIDTH, row["predicted_counts"])).astype(bool)
        np.testing.assert_array_equal(stored, mask)
        assert row["ignore_counts"] == masks.encode(ignore).counts


@pytest.mark.parametrize(
    ("record", "drawn", "malformed", "iou"),
    [
        ("target", False, False, 0.0),
        ("target", False, True, 0.0),
        ("none", False, False, 1.0),
        ("none", True, False, 0.0),
        ("none", False, True, 0.0),
    ],
)
def test_row_of_empty_and_malformed_answers(
    questions: list[Question], record: str, drawn: bool, malformed: bool, iou: float
) -> None:
    question = questions[0 if record == "target" else -1]
    mask = np.ones((HEIGHT, WIDTH), bool) if drawn else None
    assert sample_row(question, Prediction(mask=mask, asked="", malformed=malformed), "m", "")["iou"] == iou


def test_largest_object_is_scored_with_its_true_outline(questions: list[Question]) -> None:
    rows = [
        sample_row(q, p, "largest_object", "")
        for q, p in zip(questions, LargestObject().predict(questions, ""), strict=True)
    ]
    assert [row["iou"] for row in rows] == [1.0, 1.0, 0.0, 0.0, 0.0]


def test_random_object_depends_on_the_question_and_the_seed_alone(questions: list[Question]) -> None:
    def areas(seed: int, asked: list[Question]) -> list[int]:
        return [int(p.mask.sum()) for p in RandomObject(seed).predict(asked, "") if p.mask is not None]

    assert areas(1, questions) == areas(1, questions[::-1])[::-1]
    assert len({tuple(areas(seed, questions)) for seed in range(8)}) > 1


def test_mean_mask_of_one_repeated_image_covers_what_is_asked_most() -> None:
    images = [BenchmarkImage.from_row(image_row(0))] * 3
    questions = list(images[0].questions("standard"))
    mask = MeanMask.of(images).predict(questions[:1], "")[0].mask
    assert mask is not None
    truth = questions[0].image.truths["0-a"].mask
    assert (mask & truth).sum() > 0.9 * truth.sum()


def test_metrics_can_be_computed_again_from_the_stored_run_lengths(tmp_path: Path) -> None:
    output = run_benchmark(tmp_path)
    metrics = read_metrics(output / "metrics.json", BenchmarkMetrics)
    samples = read_samples(output)
    run = samples[(samples["system"] == "altollm_grpo") & (samples["mode"] == "adaptive")]

    def decoded(counts: object) -> np.ndarray:
        if not isinstance(counts, str):
            return np.zeros((HEIGHT, WIDTH), bool)
        return masks.decode(masks.Rle(HEIGHT, WIDTH, counts)).astype(bool)

    pairs = [
        (decoded(p), decoded(t)) for p, t in zip(run["predicted_counts"], run["target_counts"], strict=True)
    ]
    intersections = [(p & t).sum() for p, t in pairs]
    unions = [(p | t).sum() for p, t in pairs]
    ious = [i / u if u else 1.0 for i, u in zip(intersections, unions, strict=True)]
    found = metrics.find("altollm_grpo", "adaptive")
    assert found is not None
    assert found.giou is not None
    assert found.ciou is not None
    assert found.giou.value == pytest.approx(np.mean(ious))
    assert found.ciou.value == pytest.approx(
        sum((p & t).sum() for p, t in pairs) / sum((p | t).sum() for p, t in pairs)
    )
    assert found.giou.low <= found.giou.value <= found.giou.high


def test_every_system_answers_the_same_questions_beside_the_baselines(tmp_path: Path) -> None:
    metrics = read_metrics(run_benchmark(tmp_path) / "metrics.json", BenchmarkMetrics)
    assert {one.samples for one in metrics.systems} == {metrics.expressions} == {30}
    assert {*metrics.learned, *metrics.baselines} == {one.system for one in metrics.systems}
    assert {"mean_mask", "largest_object", "random_object", "nothing"} < set(metrics.baselines)
    nothing = metrics.find("nothing", "")
    assert nothing is not None
    assert nothing.n_acc is not None
    assert nothing.t_acc is not None
    assert (nothing.n_acc.value, nothing.t_acc.value) == (1.0, 0.0)


def test_comparison_knows_who_is_better(tmp_path: Path) -> None:
    metrics = read_metrics(run_benchmark(tmp_path) / "metrics.json", BenchmarkMetrics)
    verdicts = {(c.system, c.mode, c.reference): c.better for c in metrics.comparisons}
    assert verdicts["altollm_grpo", "adaptive", "nothing"]
    assert verdicts["altollm_grpo", "adaptive", "altollm_sft"]
    assert len(verdicts) == 2 * 2 * len(metrics.baselines) + 2


def test_limit_is_visible_and_takes_the_first_images(tmp_path: Path) -> None:
    output = run_benchmark(tmp_path, limit=2)
    metrics = json.loads((output / "metrics.json").read_text())
    assert (metrics["limit"], metrics["images"], metrics["images_available"]) == (2, 2, 6)
    assert set(read_samples(output)["image_id"]) == {"image-000", "image-001"}
    for name in ("samples.parquet", "released_samples.parquet", "gallery.parquet"):
        assert pq.read_schema(output / name).metadata[b"limit"] == b"2"


def test_a_whole_benchmark_says_nothing_of_a_limit(tmp_path: Path) -> None:
    output = run_benchmark(tmp_path)
    assert json.loads((output / "metrics.json").read_text())["limit"] is None
    assert b"limit" not in pq.read_schema(output / "samples.parquet").metadata


def test_same_inputs_same_bytes(tmp_path: Path) -> None:
    first, second = run_benchmark(tmp_path / "a"), run_benchmark(tmp_path / "b")
    for path in sorted(first.iterdir()):
        assert path.read_bytes() == (second / path.name).read_bytes(), path.name


def test_killed_run_redoes_only_the_shard_it_was_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run_benchmark(tmp_path / "whole", images_per_shard=2)

    class Killed(Exception):
        pass

    asked: list[set[str]] = []
    predict = RandomObject.predict

    def counted(self: RandomObject, questions: Sequence[Question], mode: str) -> list[Prediction]:
        asked.append({q.image.image_id for q in questions})
        if "image-004" in asked[-1] and not killed:
            killed.append(True)
            raise Killed
        return predict(self, questions, mode)

    killed: list[bool] = []
    monkeypatch.setattr(RandomObject, "predict", counted)
    with pytest.raises(Killed):
        run_benchmark(tmp_path / "cut", images_per_shard=2)
    asked.clear()
    resumed = run_benchmark(tmp_path / "cut", images_per_shard=2)
    shards = [{f"image-{number:03d}" for number in (start, start + 1)} for start in (0, 2, 4)]
    assert asked == [shards[2], *shards]  # the rest of the standard protocol, then the released one
    assert (resumed / "samples.parquet").read_bytes() == (whole / "samples.parquet").read_bytes()


def test_gallery_shows_the_extremes_and_no_image_twice(tmp_path: Path) -> None:
    output = run_benchmark(tmp_path)
    gallery = pq.read_table(output / "gallery.parquet").to_pandas()
    samples = read_samples(output).query("system == 'altollm_grpo' and mode == 'adaptive' and not no_target")
    assert set(gallery["reason"]) == {"best", "typical", "worst", "longest", "shortest"}
    assert not gallery.duplicated(["reason", "image_id"]).any()
    first = {row["reason"]: row["sample"] for row in gallery[gallery["rank"] == 0].to_dict("records")}
    assert first["best"]["iou"] == samples["iou"].max()
    assert first["worst"]["iou"] == samples["iou"].min()
    assert first["longest"]["length"] == samples["length"].max()
    assert first["shortest"]["length"] == samples["length"].min()


def test_runs_over_different_samples_are_not_compared(tmp_path: Path) -> None:
    samples = read_samples(run_benchmark(tmp_path))
    with pytest.raises(ValueError, match="not evaluated on the samples"):
        Scoreboard(samples.iloc[1:], resamples=100, seed=0, level=0.95, codebook_size=8)


def test_size_classes_follow_the_share_of_the_image() -> None:
    table = pd.DataFrame(
        {
            "target_area": [0, 5, 10, 99, 100, 500],
            "width": 100,
            "height": 10,
            "no_target": [True] + [False] * 5,
        }
    )
    assert list(size_class(table)) == ["no target", "under 1 %", "1-3 %", "3-10 %", "over 10 %", "over 10 %"]


def says(
    text: str, codes: tuple[int, ...] = (), *, no_target: bool = False, malformed: bool = False
) -> Answer:
    return Answer(text=text, masks=(codes,) if codes else (), no_target=no_target, malformed=malformed)


@dataclass
class ScriptedModel:
    """Gives the answers it was told to, in turn, and remembers the prompts."""

    answers: list[Answer]
    prompts: list[str] = field(default_factory=list)

    def answer(self, images: Sequence[Picture], prompts: Sequence[str], *, max_length: int) -> list[Answer]:
        start = len(self.prompts)
        self.prompts += prompts
        return self.answers[start : start + len(prompts)]


@pytest.fixture
def tokenizer() -> MaskTokenizer:
    torch.manual_seed(0)
    return MaskTokenizer(TINY).eval()


def test_language_system_draws_codes_and_keeps_what_was_said(
    questions: list[Question], tokenizer: MaskTokenizer
) -> None:
    model = ScriptedModel(
        [
            says("long", (1, 2, 3, 4)),
            says("none", no_target=True),
            says("short", (5,)),
            says("broken", (1, 2), malformed=True),
            says("long again", (1, 2, 3, 4)),
        ]
    )
    system = LanguageSystem(name="m", model=model, tokenizer=tokenizer, batch_size=2)
    predictions = system.predict(questions, "adaptive")
    assert [p.mask is None for p in predictions] == [False, True, False, True, False]
    assert [p.codes for p in predictions] == [(1, 2, 3, 4), (), (5,), (), (1, 2, 3, 4)]
    assert [p.malformed for p in predictions] == [False, False, False, True, False]
    assert model.prompts[0] == "Segment <ref>the red disc</ref> by adaptive length."
    assert predictions[0].mask is not None
    assert predictions[0].mask.shape == (HEIGHT, WIDTH)
    assert (predictions[0].mask == predictions[4].mask).all()


def test_who_denies_that_there_is_such_an_object_is_not_asked_for_it(
    questions: list[Question], tokenizer: MaskTokenizer
) -> None:
    said = ["No.", "yes", "not sure", " NO, there is none", "Nothing"]
    model = ScriptedModel(
        [
            *(says(text) for text in said),
            says("long", (1, 2)),
            says("short", (3,)),
            says("none", no_target=True),
        ]
    )
    system = LanguageSystem(
        name="m", model=model, tokenizer=tokenizer, batch_size=8, presence_asked_first=True
    )
    predictions = system.predict(questions, "full")
    assert model.prompts[0] == "Is there <ref>the red disc</ref> in the image? Please answer yes or no."
    asked_for = [questions[place].expression for place in (1, 2, 4)]
    assert model.prompts[5:] == [f"Segment <ref>{text}</ref>." for text in asked_for]
    assert [p.codes for p in predictions] == [(), (1, 2), (3,), (), ()]
    assert [p.answer for p in predictions] == ["No.", "long", "short", " NO, there is none", "none"]
    assert not any(p.malformed for p in predictions)


def test_masks_do_not_depend_on_the_batch(tokenizer: MaskTokenizer) -> None:
    images = [BenchmarkImage.from_row(image_row(number)) for number in (0, 1)]
    questions = [question for image in images for question in image.questions("standard")][:7]
    codes = [[(3 * i + j) % 8 for j in range(1 + i % 4)] for i in range(7)]
    together = decode_masks(tokenizer, questions, codes)
    for question, one, mask in zip(questions, codes, together, strict=True):
        assert (decode_masks(tokenizer, [question], [one])[0] == mask).mean() > 0.999


def test_each_image_of_a_batch_is_encoded_once(
    tokenizer: MaskTokenizer, questions: list[Question], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[int] = []
    encode = tokenizer.encode_image

    def counted(batch: torch.Tensor) -> torch.Tensor:
        encoded.append(len(batch))
        return encode(batch)

    monkeypatch.setattr(tokenizer, "encode_image", counted)
    decode_masks(tokenizer, questions, [[1]] * len(questions))
    assert encoded == [1]


def test_text_ignored_asks_for_something_else_in_the_image(
    questions: list[Question], tokenizer: MaskTokenizer
) -> None:
    model = ScriptedModel([says("", no_target=True)] * 5)
    system = LanguageSystem(name="m", model=model, tokenizer=tokenizer, batch_size=8, text_ignored=True)
    predictions = system.predict(questions, "full")
    asked = {q.record.record_id: p.asked for q, p in zip(questions, predictions, strict=True)}
    assert asked == {
        "0-a": "the <b>ring</b> & its hole",
        "0-b": "the blue dot and the ring",
        "0-c": "the green star",
        "0-d": "the red disc",
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "missing"),
        ("{", "Invalid JSON"),
        ('{"iou": 1}', "masks: Field required"),
    ],
)
def test_broken_metrics_are_refused_in_one_line(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "metrics.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=message) as error:
        read_metrics(path, TokenizerMetrics)
    assert "\n" not in str(error.value)


def tiny_llm() -> AltoLLM:
    words = build_word_tokenizer(["segment", "red", "disc", "ring", "the", "by", "adaptive", "length"])
    add_mask_vocabulary(words, TINY.codebook_size)
    sizes = NetworkConfig(
        image_size=32,
        vision_width=32,
        vision_layers=1,
        vision_mlp_width=32,
        text_width=48,
        text_layers=1,
        text_heads=4,
        text_mlp_width=48,
    )
    torch.manual_seed(1)
    return AltoLLM(build_network(sizes, words).eval(), words)


def test_untrained_model_always_answers_with_a_mask_and_ignores_the_training(
    questions: list[Question],
) -> None:
    pictures = [q.image.picture for q in questions]
    prompts = [f"Segment <ref>{q.expression}</ref>." for q in questions]
    trained = tiny_llm()
    answers = UntrainedAltoLLM(trained, seed=3).answer(pictures, prompts, max_length=4)
    assert all(1 <= answer.length == len(answer.codes) <= 4 for answer in answers)
    assert not any(answer.malformed or answer.no_target for answer in answers)
    with torch.no_grad():
        for weights in trained.model.parameters():
            weights.zero_()
    assert UntrainedAltoLLM(trained, seed=3).answer(pictures, prompts, max_length=4) == answers


def checkpoints(folder: Path, tokenizer: MaskTokenizer, llm: AltoLLM) -> StageContext:
    """Context of the stage with everything it reads."""
    if not (folder / "prepared").exists():
        write_prepared(folder / "prepared" / "scenes", 2)
    save_checkpoint(folder / "tokenizer", tokenizer.config, tokenizer.state_dict())
    llm.save(folder / "llm")
    return stage_context(
        folder / "run",
        "benchmark",
        "scenes",
        prepare_benchmark=folder / "prepared",
        tokenizer_stage1_5=folder / "tokenizer",
        altollm_sft=folder / "llm",
        altollm_grpo=folder / "llm",
    )


def test_whole_stage_answers_questions(tmp_path: Path, tokenizer: MaskTokenizer) -> None:
    context = checkpoints(tmp_path, tokenizer, tiny_llm())
    write_questions(tmp_path / "prepared" / "pope", POPE)
    report = benchmark.run(config(), replace(context, partition="pope"))
    metrics = read_metrics(context.output / VQA_METRICS_FILE, VqaMetrics)
    assert [one.system for one in metrics.systems] == ["altollm_grpo", "altollm_sft", "always_yes"]
    assert metrics.systems[0].figures == metrics.systems[1].figures
    assert report.figures["always_yes_accuracy"] == 0.5


def test_model_of_another_codebook_is_an_input_error(tmp_path: Path) -> None:
    other = MaskTokenizer(TINY.model_copy(update={"codebook_size": 16}))
    with pytest.raises(InputError, match="knows 8 mask tokens, the mask tokenizer has 16 codes"):
        benchmark.run(config(), checkpoints(tmp_path, other, tiny_llm()))


def test_whole_stage_runs_from_checkpoints(tmp_path: Path, tokenizer: MaskTokenizer) -> None:
    context = checkpoints(tmp_path, tokenizer, tiny_llm())
    report = benchmark.run(config(), context)
    metrics = read_metrics(context.output / "metrics.json", BenchmarkMetrics)
    assert len(metrics.systems) == 2 * 2 + 2 + 4
    assert metrics.codebook_size == TINY.codebook_size
    grpo, sft = (metrics.find(name, "adaptive") for name in ("altollm_grpo", "altollm_sft"))
    assert grpo is not None
    assert sft is not None
    assert grpo.giou == sft.giou
    assert report.figures["limit"] == "whole benchmark"
    assert any("tokens_per_second" in name for point in context.metric_log.read() for name in point.values)
    assert "per_second" not in (context.output / "metrics.json").read_text()

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alto_models.data.shards import ShardRows
from alto_models.tokenizer.config import TokenizerConfig
from data_contracts.errors import InputError
from data_contracts.schemas import REFERRING_SCHEMA
from jobs import benchmark, benchmark_report
from jobs.benchmarking.results import BenchmarkMetrics, Estimate, TokenizerMetrics, read_metrics
from jobs.report.overlays import sample_panels
from jobs.report.page import interval, number, percent
from jobs.report.verdicts import contests, coverage, lost_contests, reinforcement_verdict
from jobs.runner.context import StageReport
from tests.jobs.benchmark_example import (
    ShiftedTruth,
    config,
    image_row,
    known_systems,
    stage_context,
    write_prepared,
)

SCOPE = "Profile <small>: a try."
TOKENIZER = {
    "iou": 0.764,
    "boundary_iou": 0.58,
    "mean_length": 7.4,
    "masks": 60,
    "iou_whole_image": 0.71,
    "fixed_iou": 0.74,
    "length_complexity": 0.53,
    "adaptive_gain_interval": [0.018, 0.031],
    "oracle": {
        "tolerance": 0.02,
        "iou": 0.759,
        "mean_length": 5.5,
        "regret": 1.9,
        "absolute_regret": 2.5,
        "iou_regret": -0.005,
    },
    "baselines": {"mean_mask": 0.31},
    "by_length": [
        {
            "length": length,
            "bits": 8 * length,
            "iou": 0.3 + 0.02 * length,
            "boundary_iou": 0.2 + 0.02 * length,
        }
        for length in (1, 4, 16)
    ],
}


def make_inputs(folder: Path, systems: list[ShiftedTruth], **changes: object) -> dict[str, Path]:
    """Results of one benchmark and of the tokenizer benchmark, as their stages leave them."""
    prepared = folder / "prepared" / "scenes"
    write_prepared(prepared, 6)
    context = stage_context(folder / "evaluated", "benchmark", "scenes")
    rows = ShardRows(prepared, REFERRING_SCHEMA, None)
    benchmark.compare_systems(rows, systems, TokenizerConfig(), config(**changes), context)
    (folder / "benchmark").mkdir()
    context.output.rename(folder / "benchmark" / "scenes")
    (folder / "tokenizer_benchmark").mkdir()
    (folder / "tokenizer_benchmark" / "metrics.json").write_text(json.dumps(TOKENIZER))
    return {name: folder / name for name in ("benchmark", "tokenizer_benchmark")}


def make_report(folder: Path, inputs: dict[str, Path]) -> tuple[StageReport, Path]:
    context = stage_context(folder, "benchmark_report", None, **inputs)
    report = benchmark_report.run(benchmark_report.Config(scope=SCOPE), context)
    return report, context.output


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_inputs(tmp_path_factory.mktemp("inputs"), known_systems(), limit=4)


@pytest.fixture(scope="module")
def output(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_report(tmp_path_factory.mktemp("report"), inputs)[1]


@pytest.fixture(scope="module")
def page(output: Path) -> str:
    return (output / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def metrics(inputs: dict[str, Path]) -> BenchmarkMetrics:
    return read_metrics(inputs["benchmark"] / "scenes" / "metrics.json", BenchmarkMetrics)


class Resources(HTMLParser):
    """Everything a browser would load or follow, and the balance of tags."""

    VOID = frozenset({"meta", "link", "img", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[tuple[str, str]] = []
        self.ids: set[str] = set()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "iframe", "object", "embed")
        for name, value in attrs:
            if name in ("src", "href", "srcset", "data"):
                self.addresses.append((tag, value or ""))
            if name == "id":
                self.ids.add(value or "")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def resources(page: str) -> Resources:
    parser = Resources()
    parser.feed(page)
    return parser


def test_nothing_is_loaded_from_outside_the_page(page: str, resources: Resources) -> None:
    for tag, address in resources.addresses:
        assert address.startswith(("data:", "#")), (tag, address)
    assert not re.search(r"url\(|@import", page)
    assert not resources.open
    assert {address[1:] for _, address in resources.addresses if address.startswith("#")} <= resources.ids


def test_every_picture_is_a_readable_image(resources: Resources) -> None:
    pictures = [address for tag, address in resources.addresses if tag == "img"]
    kinds = {"png": 0, "svg+xml": 0}
    for address in pictures:
        head, _, content = address.partition(";base64,")
        kind = head.removeprefix("data:image/")
        kinds[kind] += 1
        data = base64.b64decode(content, validate=True)
        if kind == "png":
            Image.open(io.BytesIO(data)).verify()
        else:
            assert data.startswith(b"<?xml")
            assert data.rstrip().endswith(b"</svg>")
    assert kinds == {"png": 15, "svg+xml": 4}


def test_same_results_same_bytes(inputs: dict[str, Path], output: Path, tmp_path: Path) -> None:
    _, again = make_report(tmp_path, inputs)
    names = sorted(path.relative_to(output) for path in output.rglob("*") if path.is_file())
    assert len(names) == 7
    for name in names:
        assert (output / name).read_bytes() == (again / name).read_bytes(), name


def test_page_states_every_figure(page: str, metrics: BenchmarkMetrics) -> None:
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", page, flags=re.DOTALL)
    cells = [
        [re.sub(r"<[^>]+>", " ", cell).split() for cell in re.findall(r"<td.*?</td>", row)] for row in rows
    ]
    table = [row for row in cells if len(row) == 15]
    assert len(table) == len(metrics.systems)
    for one, row in zip(metrics.systems, table, strict=True):
        assert one.giou is not None
        assert row[2] == [percent(one.giou), *interval(one.giou).split()]
        shown = [one.ciou, one.miou, one.class_miou, *(one.precision[k] for k in ("0.5", "0.7", "0.9"))]
        shown += [one.boundary_iou, one.n_acc, one.t_acc]
        assert [cell[0] for cell in row[3:12]] == [percent(figure) for figure in shown]
        assert row[12] == [number(one.mean_length)]
        assert row[13] == [number(one.bits)]
    released = [row for row in cells if len(row) == 7 and row[2] == [str(metrics.records)]]
    assert [row[3][0] for row in released] == [percent(one.giou) for one in metrics.released]
    for point in TOKENIZER["by_length"]:  # type: ignore[attr-defined]
        assert f'<td class="num">{percent(point["iou"])}</td>' in page


def test_limit_is_stated(page: str, metrics: BenchmarkMetrics) -> None:
    assert page.count("LIMITED to the first 4 of 6 images (limit 4)") >= 2
    assert (
        coverage(metrics.model_copy(update={"images": 6, "limit": None}))
        == "whole benchmark, 6 images (no limit)"
    )


def test_words_from_data_cannot_become_markup(page: str) -> None:
    assert "Profile &lt;small&gt;: a try." in page
    assert "<b>ring</b>" not in page
    assert "the &lt;b&gt;ring&lt;/b&gt; &amp; its hole" in page


def test_cells_of_the_paper_stay_empty(page: str) -> None:
    row = re.search(r"<tr><td>ALTo, as published</td>(.*?)</tr>", page, flags=re.DOTALL)
    assert row is not None
    assert row[1].count("<td></td>") == 3


def test_summary_is_flat_and_complete(output: Path, metrics: BenchmarkMetrics) -> None:
    summary = json.loads((output / "summary.json").read_text())
    assert summary["tokenizer.iou"] == 0.764
    assert summary["scenes.limit"] == 4
    for one in metrics.systems:
        key = f"scenes.{one.system}.{one.mode}".rstrip(".")
        assert one.giou is not None
        assert summary[f"{key}.giou"] == one.giou.value
    assert all(isinstance(value, float | int | str | None) for value in summary.values())


def test_key_plots_are_png_files_too(output: Path) -> None:
    pictures = sorted((output / "pictures").iterdir())
    assert [path.name for path in pictures] == [
        "iou_by_length.png",
        "scenes_giou_by_system.png",
        "scenes_length_by_complexity.png",
        "scenes_length_histogram.png",
        "scenes_samples.png",
    ]
    for path in pictures:
        assert min(Image.open(path).size) > 300


def test_good_models_beat_the_baselines(inputs: dict[str, Path], tmp_path: Path) -> None:
    report, _ = make_report(tmp_path, inputs)
    (check,) = report.checks
    assert check.name == "beats_baselines"
    assert check.passed
    assert not check.blocking
    assert len(check.details) == 1 + 2 * 2 * 6


def test_a_useless_model_fails_the_check_and_the_page_says_so(tmp_path: Path) -> None:
    systems = [ShiftedTruth("altollm_grpo", 30), *known_systems()[1:]]
    report, output = make_report(tmp_path / "report", make_inputs(tmp_path, systems))
    (check,) = report.checks
    assert not check.passed
    assert "are not clearly won" in check.reason
    assert "ALToLLM after GRPO" in check.reason
    assert 'class="lead verdict no"' in (output / "report.html").read_text()


def test_reading_of_grpo_follows_the_interval(metrics: BenchmarkMetrics) -> None:
    def sentence(low: float, high: float) -> str:
        changed = [
            one.model_copy(update={"difference": Estimate(value=(low + high) / 2, low=low, high=high)})
            for one in metrics.comparisons
        ]
        return reinforcement_verdict(metrics.model_copy(update={"comparisons": changed}))

    assert "+2.00 points (+1.00 to +3.00), better" in sentence(0.01, 0.03)
    assert "no clear difference" in sentence(-0.01, 0.03)
    assert "worse" in sentence(-0.03, -0.01)


def test_a_tie_with_a_baseline_is_no_win(metrics: BenchmarkMetrics) -> None:
    tied = TokenizerMetrics.model_validate(TOKENIZER | {"baselines": {"mean_mask": 0.764}})
    found = contests(tied, [metrics])
    assert [contest.won for contest in found].count(False) == 1
    assert "mask tokenizer against Mean mask +0.0 points" in lost_contests(found)


def test_no_results_at_all_is_an_input_error(inputs: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no benchmark results"):
        make_report(tmp_path / "report", inputs | {"benchmark": tmp_path / "empty"})


def test_sample_table_of_another_version_is_an_input_error(tmp_path: Path) -> None:
    made = make_inputs(tmp_path, known_systems())
    gallery, samples = (made["benchmark"] / "scenes" / f"{name}.parquet" for name in ("gallery", "samples"))
    samples.write_bytes(gallery.read_bytes())
    with pytest.raises(InputError, match=r"samples\.parquet: its columns"):
        make_report(tmp_path / "report", made)


def test_panels_show_the_masks_in_their_colours() -> None:
    row = image_row(0)
    target, predicted = row["records"][0]["counts"], row["records"][1]["counts"]
    panels = np.asarray(Image.open(io.BytesIO(sample_panels(row["image"], target, predicted))).convert("RGB"))
    width = (panels.shape[1] - 12) // 3
    plain, truth, prediction = (
        panels[:, start : start + width].astype(int) for start in (0, width + 6, 2 * (width + 6))
    )

    def coloured(panel: np.ndarray, channel: int, other: int) -> float:
        return float((panel[..., channel] - panel[..., other] > 60).mean())

    share = row["records"][0]["area"] / (row["width"] * row["height"])
    assert coloured(truth, 2, 0) == pytest.approx(share, abs=0.02)
    assert coloured(truth, 0, 2) == 0
    share = row["records"][1]["area"] / (row["width"] * row["height"])
    assert coloured(prediction, 0, 2) == pytest.approx(share, abs=0.02)
    assert coloured(plain, 0, 2) > 0


def test_ignored_pixels_are_hatched_in_truth_and_prediction() -> None:
    row = image_row(0)
    target, ignored = row["records"][0]["counts"], row["records"][1]["counts"]
    plain, hatched = (
        np.asarray(Image.open(io.BytesIO(sample_panels(row["image"], target, None, each))).convert("RGB"))
        for each in (None, ignored)
    )
    width = (plain.shape[1] - 12) // 3
    dark = [
        float((panels[:, start : start + width].max(axis=-1) < 40).mean())
        for panels in (plain, hatched)
        for start in (0, width + 6, 2 * (width + 6))
    ]
    share = row["records"][1]["area"] / (row["width"] * row["height"])
    assert dark == pytest.approx([0, 0, 0, 0, share / 5, share / 5], abs=share / 10)


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb, as WCAG 2 defines it."""
    channels = np.array([int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("background", ["#ffffff", "#eff6fb", "#fdf6f1"], ids=["page", "main row", "scope"])
def test_text_can_be_read_on_every_background(page: str, background: str) -> None:
    assert background in page or background == "#ffffff"
    for name in ("ink", "soft", "blue", "orange"):
        colour = re.search(rf"--{name}: (#[0-9a-f]{{6}})", page)
        assert colour
        assert (luminance(background) + 0.05) / (luminance(colour[1]) + 0.05) >= 4.5, name


def test_tables_and_pictures_speak_without_sight(page: str) -> None:
    assert "<th>" not in page
    assert page.count("<th ") == len(re.findall(r'<th [^>]*scope="(?:col|rowgroup)"', page))
    assert all(re.findall(r'<img [^>]*alt="([^"]*)"', page))
    assert page.count("<img ") == page.count('alt="')

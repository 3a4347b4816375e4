"""The picture of docs/concepts.md, drawn from `dvc.yaml`: `python docs/lineage_picture.py` writes it anew.

Where a stage stands is written here, what it reads is not. Kinds of stages differ in colour (those of Okabe and Ito),
in a word and in the form of their edge; the background is part of the picture, so that it reads on a dark page, too.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from jobs.runner.layout import ROOTS  # noqa: E402
from jobs.runner.lineage import Lineage, read_lineage  # noqa: E402

FILE = ROOT / "docs" / "pictures" / "lineage.svg"

# Column and row of every stage.
PLACES = {
    "acquire_sa1b": (0, 0),
    "acquire_referring": (2, 0),
    "acquire_benchmark": (3, 0),
    "prepare_sa1b": (0, 1),
    "prepare_referring": (2, 1),
    "prepare_benchmark": (3, 1),
    "base_weights": (1, 2),
    "tokenizer_stage1": (0, 2),
    "tokenizer_stage1_5": (0, 3),
    "tokenizer_benchmark": (0, 4),
    "mask_tokens": (2, 4),
    "altollm_sft": (2, 5),
    "altollm_grpo": (2, 6),
    "grpo_sweep": (3, 5),
    "benchmark": (2, 7),
    "benchmark_report": (2, 8),
}
PARTITION_WORDS = {
    "sa1b.batches": "a partition: a batch of shards",
    "referring.datasets": "a partition: a data set",
    "benchmark.benchmarks": "a partition: a benchmark",
    "grpo_sweep.length_weights": "a partition: a weight",
}
KINDS = {"data": ("#0072B2", ""), "models": ("#D55E00", "7 2"), "reports": ("#009E73", "2 2")}

WIDTH, HEIGHT = 960, 964
COLUMN, ROW, LEFT, TOP = 240, 76, 14, 220
BOX_WIDTH, BOX_HEIGHT = 212, 46
INK, PAPER, GREY = "#1a1a1a", "#ffffff", "#595959"


@dataclass(frozen=True)
class Box:
    x: float
    y: float
    width: float = BOX_WIDTH
    height: float = BOX_HEIGHT

    @property
    def middle(self) -> tuple[float, float]:
        return self.x + self.width / 2, self.y + self.height / 2


def box_at(column: float, row: float) -> Box:
    return Box(LEFT + column * COLUMN, TOP + row * ROW)


def direct_inputs(upstream: Mapping[str, tuple[str, ...]]) -> dict[str, list[str]]:
    """What each stage reads, without what is before another of its inputs: the lines that are drawn."""
    before: dict[str, set[str]] = {}
    for name in TopologicalSorter(upstream).static_order():
        before[name] = set(upstream[name]).union(*(before[one] for one in upstream[name]))
    return {
        name: [one for one in inputs if not any(one in before[other] for other in inputs)]
        for name, inputs in upstream.items()
    }


class Picture:
    def __init__(self) -> None:
        self.root = ElementTree.Element(
            "svg",
            {
                "xmlns": "http://www.w3.org/2000/svg",
                "viewBox": f"0 0 {WIDTH} {HEIGHT}",
                "role": "img",
                "font-family": "DejaVu Sans, Verdana, sans-serif",
                "font-size": "14",
                "fill": INK,
            },
        )
        self._add("title").text = "The lineage of the ALTo pipeline"
        marker = ElementTree.SubElement(
            self._add("defs"),
            "marker",
            {"id": "end", "viewBox": "0 0 8 8", "refX": "8", "refY": "4", "markerWidth": "9"}
            | {"markerHeight": "9", "orient": "auto", "markerUnits": "userSpaceOnUse"},
        )
        ElementTree.SubElement(marker, "path", {"d": "M0 0L8 4L0 8z", "fill": INK})
        self._add("rect", width=WIDTH, height=HEIGHT, rx=8, fill=PAPER, stroke=GREY)

    def _add(self, tag: str, **attributes: object) -> ElementTree.Element:
        names = {name.replace("_", "-"): str(value) for name, value in attributes.items()}
        return ElementTree.SubElement(self.root, tag, names)

    def text(self, x: float, y: float, words: str, **style: object) -> None:
        self._add("text", x=f"{x:g}", y=f"{y:g}", **style).text = words

    def box(self, box: Box, title: str, words: str = "", *, edge: str = INK, dashes: str = "") -> None:
        """dashes: of the edge, as SVG has them."""
        self._add(
            "rect",
            **{"x": f"{box.x:g}", "y": f"{box.y:g}", "width": f"{box.width:g}", "height": f"{box.height:g}"},
            rx=4,
            fill=PAPER,
            stroke=edge,
            stroke_width=3,
            stroke_dasharray=dashes or "none",
        )
        x, y = box.middle
        self.text(x, y + (-3 if words else 5), title, text_anchor="middle", font_weight="bold")
        if words:
            self.text(x, y + 14, words, text_anchor="middle", font_size=12)

    def line(self, *points: tuple[float, float], dashes: str = "") -> None:
        path = "M" + "L".join(f"{x:g} {y:g}" for x, y in points)
        style = {"stroke_dasharray": dashes or "none", "marker_end": "url(#end)"}
        self._add("path", d=path, fill="none", stroke=INK, stroke_width=1.6, **style)

    def connect(self, source: Box, target: Box, *, down_first: bool = True, dashes: str = "") -> None:
        """Straight where they share a column or row, else around one corner."""
        (from_x, from_y), (to_x, to_y) = source.middle, target.middle
        side = 1 if to_x > from_x else -1
        right, into = from_x + side * source.width / 2, to_x - side * target.width / 2
        if from_x == to_x:
            points = [(from_x, source.y + source.height), (to_x, target.y)]
        elif from_y == to_y:
            points = [(right, from_y), (into, to_y)]
        elif down_first:
            points = [(from_x, source.y + source.height), (from_x, to_y), (into, to_y)]
        else:
            corner = to_x - side * 40  # beside a line from above
            points = [(right, from_y), (corner, from_y), (corner, target.y)]
        self.line(*points, dashes=dashes)

    def __str__(self) -> str:
        ElementTree.indent(self.root)
        return ElementTree.tostring(self.root, encoding="unicode") + "\n"


def draw_doors(picture: Picture) -> None:
    """Above the lineage: how a stage is run."""
    repro, dagster = Box(14, 16, 212, 40), Box(14, 78, 212, 40)
    runner, launcher = Box(300, 34, 190, 66), Box(540, 34, 180, 66)
    ledger = Box(766, 34, 180, 66)
    picture.box(repro, "dvc repro")
    picture.box(dagster, "Dagster")
    picture.text(14, 138, "two doors", font_size=12, font_style="italic")
    picture.box(runner, "runner", "stale? freeze its inputs")
    picture.box(launcher, "launcher", "local, Slurm, Kubernetes")
    picture.box(ledger, "dvc.lock", "the state both doors share")
    for door, y in ((repro, 54), (dagster, 80)):
        picture.line((226, door.middle[1]), (262, door.middle[1]), (262, y), (300, y))
    picture.line((490, 67), (540, 67))
    picture.line((720, 67), (766, 67))
    picture.text(630, 120, "job, in a process of its own", text_anchor="middle", font_size=12)
    picture.line((856, 100), (856, 150), (395, 150), (395, 100), dashes="5 3")
    picture.text(
        640,
        167,
        "asked before anything runs: did parameters, code or input data change?",
        text_anchor="middle",
        font_size=12,
    )


def draw_stage_key(picture: Picture) -> None:
    """Beside the lineage: what one stage is, and how to read the boxes."""
    x, y = box_at(3, 2).x, box_at(3, 2).y - 4
    for number, (words, weight) in enumerate(
        [
            ("one stage, one partition", "bold"),
            ("parameters, from a profile", "normal"),
            ("+ code version", "normal"),
            ("+ data versions of its inputs", "normal"),
            ("= one result, kept under the", "normal"),
            ("hash of its bytes:", "normal"),
            ("its data version", "normal"),
        ]
    ):
        picture.text(x, y + 20 * number + 14, words, font_size=13, font_weight=weight)
    key = box_at(1, 5)
    for number, (kind, words) in enumerate(
        [("data", "data/<profile>/…"), ("models", "models/<profile>/…"), ("reports", "reports/<profile>/…")]
    ):
        colour, dashes = KINDS[kind]
        picture.box(Box(key.x - 20, key.y + 42 * number, 180, 32), words, edge=colour, dashes=dashes)


def draw_shipping(picture: Picture) -> None:
    """What becomes of a trained model."""
    challenger, promotion, champion = (box_at(3, row) for row in (7, 8, 9))
    picture.box(challenger, "challenger", "a version in the registry")
    picture.box(promotion, "promotion", "better for sure, or refused")
    picture.box(champion, "champion", "what people use")
    picture.connect(box_at(*PLACES["altollm_grpo"]), challenger, down_first=False)
    picture.connect(challenger, promotion)
    picture.connect(box_at(*PLACES["benchmark_report"]), promotion)
    picture.connect(promotion, champion)
    x, y = champion.x, champion.middle[1]
    picture.line((x, y), (x - 60, y), dashes="5 3")
    picture.text(x - 66, y + 4, "rollback: the champion before", font_size=12, text_anchor="end")


def draw(lineage: Lineage) -> str:
    picture = Picture()
    draw_doors(picture)
    inputs = direct_inputs({stage.name: stage.upstream for stage in lineage.stages})
    for stage in lineage.stages:
        column, row = PLACES[stage.name]
        for name in inputs[stage.name]:
            source_column, source_row = PLACES[name]
            blocked = any(
                place[0] == source_column and source_row < place[1] <= row for place in PLACES.values()
            )
            picture.connect(box_at(source_column, source_row), box_at(column, row), down_first=not blocked)
    for stage in lineage.stages:
        colour, dashes = KINDS[ROOTS[stage.name]]
        words = PARTITION_WORDS[stage.partition_set] if stage.partition_set else ""
        picture.box(box_at(*PLACES[stage.name]), stage.name, words, edge=colour, dashes=dashes)
    quarantine = box_at(1, 1)
    picture.box(quarantine, "quarantine", "rows that break the contract", dashes="5 3", edge=GREY)
    for name in ("prepare_sa1b", "prepare_referring"):
        picture.connect(box_at(*PLACES[name]), quarantine, dashes="5 3")
    draw_stage_key(picture)
    draw_shipping(picture)
    return str(picture)


if __name__ == "__main__":
    FILE.write_text(draw(read_lineage(ROOT)), encoding="utf-8")

"""The whole report: recorded figures, with what belongs to no hash put around them."""

import dataclasses
import json
import re
import threading
import urllib.error
import urllib.request
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import get_args

import pandas as pd
import pytest
import yaml

from data_contracts.errors import InputError
from jobs.benchmarking.results import METRICS_FILE, BenchmarkMetrics, read_metrics
from jobs.runner.environment import current_environment, read_environment, write_environment
from jobs.runner.layout import StageAddress, output_folder
from jobs.runner.ledger import Recorded
from jobs.runner.lineage import read_lineage
from jobs.runner.staleness import Plan, StageState
from orchestration.page_server import PageHandler
from orchestration.promotion.decision import Decision
from orchestration.promotion.rules import Finding
from orchestration.report import page as report_page
from orchestration.report.champion import ChampionView
from orchestration.report.page import Surroundings, fill
from orchestration.report.plots import draw_curves
from orchestration.report.provenance import PLAN_WORDS, Contract, Provenance, Source, read_provenance
from orchestration.report.speed import SpeedRow
from orchestration.sweep import SweepPoint, draw
from tests.jobs.benchmark_example import known_systems
from tests.jobs.test_benchmark_report import Resources, make_inputs, make_report

FINDING = Finding(subject="scenes", rule="giou worse by at most 0.02", found="+0.010", passed=True)
CURVES = pd.DataFrame({"reward": [0.5, 0.9], "gradient_norm": [2.0, None]}, index=[5, 10])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, BenchmarkMetrics]:
    """A page as the stage leaves it, and the figures of its benchmark."""
    folder = tmp_path_factory.mktemp("made")
    inputs = make_inputs(folder, known_systems())
    page = (make_report(folder / "report", inputs)[1] / "report.html").read_text(encoding="utf-8")
    return page, read_metrics(inputs["benchmark"] / "scenes" / METRICS_FILE, BenchmarkMetrics)


@pytest.fixture(scope="module")
def around(made: tuple[str, BenchmarkMetrics]) -> Surroundings:
    check = {"name": "contract", "passed": False, "reason": "3 of 9 rows quarantined <b>"}
    points = [
        SweepPoint(length_weight=weight, start_giou=0.4, start_mean_length=9.0, giou=0.41, mean_length=length)
        for weight, length in ((0.0, 9.5), (0.1, 4.25))
    ]
    champion = [one.model_copy(update={"malformed_answers": 4321}) for one in made[1].systems[:2]]
    return Surroundings(
        profile="small",
        commit="c" * 40 + "-dirty",
        made_at="2026-01-02 03:04 UTC",
        champion=ChampionView(
            version="7",
            rows={"scenes": champion},
            decision=Decision(challenger="8", champion="7", findings=(FINDING,), better=True),
            problem="",
        ),
        curves={"GRPO": draw_curves(CURVES), "SFT": None},
        sweep=points,
        sweep_plot=draw(points),
        speed=[
            SpeedRow(
                benchmark="scenes",
                system="altollm_grpo",
                mode="adaptive",
                machine="a processor",
                answers=50,
                mask_tokens=200,
                seconds=4.0,
            )
        ],
        provenance=Provenance(
            sources=[
                Source(
                    name="altollm_grpo",
                    data_version="d1d1d1",
                    code_version="c0dec0de",
                    commits="cccccc",
                    state="up to date",
                    minutes=None,
                    device_hours=0.5,
                )
            ],
            contracts=[
                Contract(
                    name="prepare_sa1b@a",
                    data_version="e2e2e2",
                    rows_read=9,
                    rows_accepted=6,
                    rows_quarantined=3,
                    checks=(check,),
                )
            ],
            contracts_left_out=0,
            checks=[("altollm_sft", check)],
            environments=[(current_environment(), ["altollm_sft", "altollm_grpo"])],
            outputs=1,
            stale=0,
        ),
        parameters="seed: 7  # <i>\n",
    )


def words(page: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", page).split())


def test_recorded_figures_stay_and_everything_else_is_there(
    made: tuple[str, BenchmarkMetrics], around: Surroundings
) -> None:
    recorded, metrics = made
    page = fill(recorded, around)
    pieces = re.split(r"<!-- slot: .*? -->", recorded)
    assert len(pieces) == 5
    at = 0
    for piece in pieces:
        at = page.index(piece, at) + len(piece)
    assert "slot:" not in page
    text = words(page)
    for expected in (
        "altollm 8 is better than champion 7",
        "Champion: altollm version 7",
        "4321",
        "prepare_sa1b@a e2e2e2 9 6 3 ✗ failed contract 3 of 9 rows quarantined &lt;b&gt;",
        "altollm_grpo d1d1d1 c0dec0de cccccc up to date – 0.500",
        "scenes ALToLLM after GRPO adaptive 12.5 50.0 80.0 a processor",
        "0.1 41.0 4.25",
        f"Python {current_environment().python}",
        "seed: 7 # &lt;i&gt;",
        "✓ All of it is up to date.",
    ):
        assert expected in text, expected
    parser = Resources()
    parser.feed(page)
    assert not parser.open
    assert all(address.startswith(("data:", "#")) for _, address in parser.addresses)
    assert {address[1:] for _, address in parser.addresses if address.startswith("#")} <= parser.ids
    assert page.count("<tr><td>Champion</td>") == len(around.champion.rows[metrics.benchmark])


def test_without_champion_sweep_and_telemetry_the_page_says_so(
    made: tuple[str, BenchmarkMetrics], around: Surroundings
) -> None:
    bare = dataclasses.replace(
        around,
        champion=ChampionView(version=None, rows={}, decision=None, problem="the registry does not answer"),
        curves={"GRPO": None},
        sweep=[],
        sweep_plot=None,
        speed=[],
        provenance=dataclasses.replace(around.provenance, environments=[], stale=1),
    )
    text = words(fill(made[0], bare))
    assert "No champion is shown: the registry does not answer." in text
    assert "The optional sweep has not run" in text
    assert "No curves here" in text
    assert "1 of 1 outputs are not up to date" in text
    assert "Champion: altollm" not in text
    assert "Milliseconds" not in text


def test_a_challenger_that_is_champion_is_not_compared_with_itself() -> None:
    decision = Decision(challenger="7", champion="7", findings=(FINDING,), better=False)
    view = ChampionView(version="7", rows={}, decision=decision, problem="")
    assert view.verdict == "altollm 7, measured here, is the champion."


def test_curves_are_described_in_words_and_left_out_where_nothing_was_logged() -> None:
    plot = draw_curves(CURVES)
    assert "reward 0.5 to 0.9; gradient norm 2 to 2" in plot.alt
    assert plot.svg == draw_curves(CURVES).svg


def test_the_environment_of_a_run_is_kept(tmp_path: Path) -> None:
    assert read_environment(tmp_path) is None
    write_environment(tmp_path)
    found = read_environment(tmp_path)
    assert found == current_environment()
    assert found is not None
    assert found.packages["numpy"]
    assert found.tags()["environment.python"] == found.python


def test_the_page_server_makes_the_report_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(["<p>first</p>", "<p>second</p>"])

    def render(root: Path) -> str:
        assert root == tmp_path
        for answer in answers:
            return answer
        raise InputError("there is no benchmark report yet")

    monkeypatch.setattr(report_page, "render_report", render)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(PageHandler, directory=str(tmp_path))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}/report.html"
        try:
            for expected in (b"first", b"second"):
                with urllib.request.urlopen(address, timeout=20) as response:
                    assert expected in response.read()
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(address, timeout=20)
        finally:
            server.shutdown()
            thread.join()


def many_batches(root: Path, count: int, failing: int) -> list[StageState]:
    """A project of one stage with `count` recorded partitions; the contract of number `failing` is broken."""
    keys = [f"batch_{number:03d}" for number in range(count)]
    entry = {"matrix": {"batch": "${sa1b.batches}"}, "cmd": "make", "outs": ["data"]}
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"prepare_sa1b": entry}}))
    (root / "partitions.yaml").write_text(yaml.safe_dump({"sa1b": {"batches": keys}}))
    (root / "params.yaml").write_text("profile: small\n")
    states = []
    for number, key in enumerate(keys):
        address = StageAddress("prepare_sa1b", key)
        folder = root / output_folder("small", address)
        folder.mkdir(parents=True)
        check = {"name": "contract", "passed": number != failing, "reason": "as counted"}
        figures = {"rows_read": 10, "rows_accepted": 10, "rows_quarantined": 0}
        (folder / "report.json").write_text(json.dumps({"figures": figures, "checks": [check]}))
        recorded = Recorded(
            address=address, data_version=f"{number:032d}.dir", entry_hash="e", how="unchanged"
        )
        plan: Plan = "runs" if number == 1 else "does_not_run"
        states.append(
            StageState(address=address, plan=plan, changes=(), recorded=recorded, input_versions={})
        )
    return states


def test_every_plan_has_its_words() -> None:
    assert set(PLAN_WORDS) == set(get_args(Plan))


def test_few_partitions_have_a_row_each(tmp_path: Path) -> None:
    states = many_batches(tmp_path, 2, failing=0)
    found = read_provenance(read_lineage(tmp_path), states)
    assert [(one.name, one.data_version, one.state) for one in found.sources] == [
        ("prepare_sa1b@batch_000", "000000000000", "up to date"),
        ("prepare_sa1b@batch_001", "000000000000", "stale"),
    ]
    assert [one.passed for one in found.contracts] == [False, True]
    assert (found.outputs, found.stale, found.contracts_left_out) == (2, 1, 0)


def test_many_partitions_share_a_row_and_no_broken_contract_is_left_out(tmp_path: Path) -> None:
    states = many_batches(tmp_path, 200, failing=150)
    lineage = read_lineage(tmp_path)
    (source,) = read_provenance(lineage, states).sources
    assert source.name == "prepare_sa1b, 200 partitions"
    assert source.state == "up to date, stale"
    other = read_provenance(
        lineage, [*states[:-1], dataclasses.replace(states[-1], recorded=states[0].recorded)]
    )
    assert other.sources[0].data_version != source.data_version
    contracts = read_provenance(lineage, states)
    assert [one.name for one in contracts.contracts if not one.passed] == ["prepare_sa1b@batch_150"]
    assert len(contracts.contracts) + contracts.contracts_left_out == 200
    assert len(contracts.contracts) < 30

"""`alto compare` on a real registry, ledger and cache."""

import shutil
import subprocess
import threading
import urllib.request
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from mlflow import MlflowClient

from jobs.benchmarking.results import SAMPLES_FILE
from jobs.runner.layout import COMPARISON
from orchestration.page_server import PageHandler
from orchestration.promotion.champion import ALTOLLM, Registry
from tests.jobs.browser import needs_chromium, opened
from tests.jobs.test_benchmark_report import Resources
from tests.orchestration.comparison import project
from tests.orchestration.conftest import Alto, Result, assert_refused


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The project, and where its MLflow is."""
    folder = tmp_path_factory.mktemp("comparison")
    store = f"sqlite:///{folder / 'mlflow.db'}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", store)
        return project.create(folder / "project"), store


@pytest.fixture
def folder(made: tuple[Path, str]) -> Path:
    return made[0]


@pytest.fixture
def root(alto: Alto, made: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a test that asks `alto`, which is run in it."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", made[1])
    return made[0]


def squeezed(result: Result) -> list[str]:
    """Lines without what aligns their columns."""
    return [" ".join(line.split()) for line in result.stdout.splitlines()]


def test_challenger_and_champion_are_compared_unless_others_are_named(alto: Alto, root: Path) -> None:
    result = alto("compare")
    assert result.status == 0, result.stderr
    lines = squeezed(result)
    assert lines[0] == "altollm 1 (champion) → altollm 2 (challenger)"
    assert (
        lines[1] == "Different: 1 parameters, 2 outputs, 1 code files."
    )  # what it does not read is left out
    assert "altollm_grpo.steps 100 → 150" in lines
    assert "code.py: read by altollm_grpo" in lines
    (giou,) = (
        line
        for line in lines[: lines.index("scenes, full length prompts (protocol: standard)")]
        if "gIoU" in line
    )
    assert giou.endswith("better")
    assert any("6 images, the whole benchmark" in line for line in lines)
    assert any("tokens" in line and "0.30 → 0.90" in line for line in lines)
    assert "speed: times are not at hand" in result.stdout


def test_revisions_say_the_same_and_swapped_sides_the_opposite(alto: Alto, root: Path) -> None:
    there = "\n".join(squeezed(alto("compare", "HEAD~1", "HEAD")))
    back = "\n".join(squeezed(alto("compare", "altollm/2", "altollm/1")))
    assert "altollm_grpo.steps 100 → 150" in there
    assert "altollm_grpo.steps 150 → 100" in back
    assert there.count("better") == back.count("worse") > 0
    assert "largest gains" in there
    assert "largest losses" in back


def test_a_version_and_itself_are_the_same(alto: Alto, root: Path) -> None:
    text = alto("compare", "HEAD", "workspace").stdout
    assert "The same parameters, data and code." in text
    assert "better" not in text
    assert "worse" not in text


def test_the_page_holds_it_all_and_asks_for_nothing_outside(alto: Alto, root: Path, tmp_path: Path) -> None:
    page = tmp_path / "pages" / "compared.html"
    assert alto("compare", "altollm@champion", "workspace", "--out", str(page)).status == 0
    text = page.read_text(encoding="utf-8")
    parser = Resources()
    parser.feed(text)
    assert not parser.open
    assert all(address.startswith(("data:", "#")) for _, address in parser.addresses)
    assert {address[1:] for _, address in parser.addresses if address.startswith("#")} <= parser.ids
    assert text.count("data:image/png;base64,") > 2
    for expected in ("altollm 1 (champion) → workspace", "altollm_grpo.steps", "code.py", "✓ better"):
        assert expected in text


@pytest.mark.slow
@needs_chromium
def test_a_browser_shows_the_page_offline(alto: Alto, root: Path, tmp_path: Path) -> None:
    page = tmp_path / "compared.html"
    assert alto("compare", "--out", str(page)).status == 0
    for width in (1280, 420):
        with opened(page, width=width) as shown:
            assert shown.requests == [page.as_uri()]
            assert not shown.complaints
            assert not shown.broken_pictures()
            assert shown.overflow() <= 0


def test_a_tokenizer_is_compared_in_what_it_was_made_from(alto: Alto, root: Path) -> None:
    result = alto("compare", "alto-tokenizer/1", "alto-tokenizer/2")
    assert result.status == 0, result.stderr
    assert "tokenizer_stage1_5.length_weight 0.01 → 0.006666666666666667" in squeezed(result)
    assert "altollm_grpo" not in result.stdout
    assert "scenes" not in result.stdout


def test_the_page_server_compares_challenger_and_champion_when_asked(root: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(PageHandler, directory=str(root))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            address = f"http://127.0.0.1:{server.server_port}/{COMPARISON}"
            with urllib.request.urlopen(address, timeout=300) as response:
                assert "altollm 1 (champion) → altollm 2 (challenger)" in response.read().decode()
        finally:
            server.shutdown()
            thread.join()


def test_results_that_are_gone_are_named(alto: Alto, root: Path, tmp_path: Path) -> None:
    cache = root / ".dvc" / "cache"
    cache.rename(tmp_path / "cache")
    try:
        result = alto("compare")
    finally:
        (tmp_path / "cache").rename(cache)
    assert result.status == 0, result.stderr
    assert (
        "altollm 1 (champion): its results are not in DVC's cache; with a remote, `--fetch`" in result.stdout
    )
    assert "altollm_grpo.steps" in result.stdout


def test_a_remote_brings_them_back(alto: Alto, root: Path, tmp_path: Path) -> None:
    remote = tmp_path / "remote"
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    shutil.move(copy / ".dvc" / "cache", remote)
    with (copy / ".dvc" / "config").open("a") as config:
        config.write(f"[core]\n    remote = store\n['remote \"store\"']\n    url = {remote}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(copy)
        assert "not in DVC's cache" in alto("compare").stdout
        fetched = alto("compare", "--fetch")
    assert fetched.status == 0, fetched.stderr
    assert "not in DVC's cache" not in fetched.stdout
    assert "largest gains" in fetched.stdout


def test_answers_kept_with_a_champion_need_no_cache(
    alto: Alto, root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kept = (root / project.RESULTS / SAMPLES_FILE).read_bytes()
    monkeypatch.setattr(
        Registry, "kept", lambda self, version, benchmark, file: kept if file == SAMPLES_FILE else None
    )
    cache = root / ".dvc" / "cache"
    cache.rename(tmp_path / "cache")
    try:
        text = alto("compare").stdout
    finally:
        (tmp_path / "cache").rename(cache)
    assert "the same" in text


def test_a_version_without_a_ledger_says_so(alto: Alto, root: Path) -> None:
    client = MlflowClient()
    run = client.create_run(client.get_experiment_by_name("alto").experiment_id)
    client.log_artifact(run.info.run_id, str(root / "params.yaml"))
    number = client.create_model_version(ALTOLLM, "x", run.info.run_id).version
    text = alto("compare", f"models:/{ALTOLLM}/{number}", "altollm/2").stdout
    assert f"no ledger is kept with altollm {number}, so data and code are not compared" in text


@pytest.mark.parametrize(
    ("names", "line"),
    [
        (["altollm/99"], "altollm/99: no such version is registered"),
        (["altollm@nobody"], "no such version is registered"),
        (["no-such-thing"], "no-such-thing: neither workspace, nor an experiment or revision"),
        (["--", "--output=x"], "neither workspace"),
    ],
)
def test_what_is_not_there_is_one_line(alto: Alto, root: Path, names: list[str], line: str) -> None:
    assert_refused(alto("compare", *names), line, root)


def name_experiment(root: Path, folder: str, revision: str) -> None:
    ref = f"refs/exps/{folder}/{'0' * 38}/tall-tree"
    subprocess.run(["git", "update-ref", ref, revision], cwd=root, check=True)


def test_experiments_are_found_by_name(alto: Alto, root: Path) -> None:
    name_experiment(root, "ab", "HEAD~1")
    lines = squeezed(alto("compare", "tall-tree", "HEAD"))
    assert lines[0].startswith("tall-tree (")
    assert "altollm_grpo.steps 100 → 150" in lines
    name_experiment(root, "cd", "HEAD")  # of another baseline
    assert_refused(alto("compare", "tall-tree", "HEAD"), "several experiments are called so", root)

"""Jobs that share no work tree: run at the commit from an exchange, recorded by one recorder."""

import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from data_contracts.errors import InputError
from jobs.runner.exchange import open_exchange
from jobs.runner.job_spec import JobSpec
from jobs.runner.layout import StageAddress
from jobs.runner.ledger import InputsMoved, Ledger
from jobs.runner.run import read_last_run, read_report
from jobs.runner.stage_lock import StageLock
from jobs.runner.staged_order import Returned, ReturnedOutput
from jobs.runner.staleness import lineage_state
from jobs.runner.verdict import JobDied
from orchestration.launching.choice import launcher_for
from orchestration.launching.interface import job_name
from tests.cluster import staged_project
from tests.cluster.staged_project import commit, launched, put, put_listing, run_staged, set_parameters
from tests.jobs.acquisition.object_store import ACCESS_KEY, SECRET_KEY, client
from tests.jobs.runner.toy_project import dvc
from tests.lineage.remotes import files_below, files_with

pytestmark = pytest.mark.slow

BATCHES = ("prepare_sa1b@batch_000", "prepare_sa1b@batch_001")
TOTAL = sum(range(5)) + sum(range(1, 6))  # the numbers of the two batches
PATIENCE = 120.0


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """A project whose exchange and remote are folders."""
    return staged_project.create(tmp_path / "project", str(tmp_path / "exchange"), str(tmp_path / "remote"))


@pytest.fixture(scope="module")
def in_bucket(store: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose exchange and remote are in a bucket; its batches are prepared."""
    root = staged_project.create(
        tmp_path_factory.mktemp("bucket") / "project",
        "s3://storage/exchange",
        "s3://storage/dvc",
        endpoint=store,
    )
    for batch in BATCHES:
        assert run_staged(root, batch).how == "ran"
    return root


def entries(root: Path) -> dict[str, Any]:
    path = root / "dvc.lock"
    return yaml.safe_load(path.read_text())["stages"] if path.exists() else {}


def everything_is_fresh(root: Path) -> bool:
    return all(state.plan == "does_not_run" for state in lineage_state(root))


def test_both_doors_agree_and_no_secret_is_written(
    in_bucket: Path, store: str, capfd: pytest.CaptureFixture[str]
) -> None:
    root = in_bucket
    said: list[str] = []
    recorded = run_staged(root, "mask_tokens", said)
    assert recorded.how == "ran"
    assert not (root / "data").exists()
    assert read_report(root, "toy", StageAddress("mask_tokens"))["figures"] == {"total": TOTAL}
    assert "Running" not in dvc(root, "repro", "--allow-missing").stdout
    assert everything_is_fresh(root)
    assert run_staged(root, "mask_tokens").how == "unchanged"

    # The same entries as with a shared work tree, and the same output.
    shared = staged_project.create(
        root.parent / "shared", "s3://storage/exchange", "s3://storage/dvc", endpoint=store
    )
    set_parameters(shared, "resources", work_tree="shared")
    for address in (*BATCHES, "mask_tokens"):
        run_staged(shared, address)
    assert entries(shared) == entries(root)
    dvc(root, "pull", "mask_tokens")
    assert (root / "data/toy/mask_tokens/total.txt").read_text() == str(TOTAL)
    shutil.rmtree(root / "data")

    # Curves and log have come over, and nothing is left but the code.
    points = (root / ".work/mask_tokens/last_run/metrics.jsonl").read_text().splitlines()
    assert json.loads(points[-1]) == {"step": 10, "total": TOTAL}
    assert read_last_run(root, StageAddress("mask_tokens")) is not None
    printed = capfd.readouterr().out
    assert "pulling prepare_sa1b@batch_000, prepare_sa1b@batch_001" in printed
    assert "secret seen: True" in printed
    assert [name.split("/")[0] for name in open_exchange("s3://storage/exchange").names()] == ["code"]
    assert SECRET_KEY not in printed
    assert files_with(root, SECRET_KEY, ACCESS_KEY) == []
    bucket = client(store)
    for item in bucket.list_objects_v2(Bucket="storage")["Contents"]:
        content = bucket.get_object(Bucket="storage", Key=item["Key"])["Body"].read()
        assert SECRET_KEY.encode() not in content


def running(root: Path, address: str) -> tuple[threading.Thread, list[BaseException]]:
    """The stage in a thread; what it raises is put into the list."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            run_staged(root, address)
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, raised


def wait_for_line(root: Path, stage: str, line: str) -> Path:
    """Wait until a job's log has the line; returns the job's work folder."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        for log in (root / ".work" / stage).glob("*/job.log"):
            if line in log.read_text():
                return log.parent
        time.sleep(0.02)
    raise AssertionError(f"{stage} never said {line!r}")


def job_process(work: Path) -> psutil.Process:
    return psutil.Process(json.loads((work / "local_job.json").read_text())["pid"])


def test_a_job_told_to_stop_goes_on_in_another_clone(in_bucket: Path) -> None:
    """The checkpoint comes back from the bucket: nothing of the first clone is left."""
    root = in_bucket
    set_parameters(root, "mask_tokens", wait_at=4)
    thread, raised = running(root, "mask_tokens")
    work = wait_for_line(root, "mask_tokens", "added 4")
    job_process(work).send_signal(signal.SIGTERM)
    thread.join(PATIENCE)
    assert isinstance(raised[0], JobDied)
    assert "goes on from there" in str(raised[0]) or "stop" in str(raised[0])
    assert "mask_tokens" not in entries(root) or entries(root)["mask_tokens"]["params"] != {}
    thread, raised = running(root, "mask_tokens")
    thread.join(PATIENCE)
    assert raised == []
    points = (root / ".work/mask_tokens/last_run/metrics.jsonl").read_text().splitlines()
    assert [json.loads(point)["step"] for point in points] == list(range(1, 11))
    assert read_report(root, "toy", StageAddress("mask_tokens"))["figures"] == {"total": TOTAL}


def work_name(root: Path) -> str:
    """Of the job of `mask_tokens` that was killed."""
    (order,) = (root / ".work/mask_tokens").glob("*/job.json")
    return job_name(JobSpec.read(order))


def test_killed_while_pushing_leaves_no_entry_and_a_rerun_recovers(in_bucket: Path) -> None:
    root = in_bucket
    set_parameters(root, "mask_tokens", wait_at=-1, limit=1000.0)
    before = entries(root)
    thread, raised = running(root, "mask_tokens")
    work = wait_for_line(root, "mask_tokens", "pushing")
    os.killpg(job_process(work).pid, signal.SIGKILL)
    thread.join(PATIENCE)
    assert isinstance(raised[0], JobDied)
    assert entries(root) == before
    exchange = open_exchange("s3://storage/exchange")
    left = {name: exchange.read(name) or b"" for name in exchange.names("jobs")}
    assert "mask_tokens" in left[f"jobs/{work_name(root)}/order.json"].decode()
    assert not [name for name, content in left.items() if SECRET_KEY.encode() in content]
    assert run_staged(root, "mask_tokens").how == "ran"
    assert everything_is_fresh(root)


def test_a_result_that_nobody_took_is_taken_by_the_next_run(folders: Path) -> None:
    """Whoever submitted the job dies, the job ends well: the next run starts none."""
    root = folders
    spec = launched(root, BATCHES[0])
    spec.returned.rename(spec.returned.with_name("put_back"))
    launcher = launcher_for(spec, root)
    mailbox = open_exchange(str(root.parent / "exchange")).below(f"jobs/{job_name(spec)}")
    mailbox.write("returned.json", spec.returned.with_name("put_back").read_bytes())
    assert launcher.find(job_name(spec)) is not None
    said: list[str] = []
    assert run_staged(root, BATCHES[0], said).how == "ran"
    assert [line.split()[0] for line in said] == ["attached"]
    assert mailbox.names() == []


@pytest.fixture(scope="module")
def returned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, JobSpec, bytes]:
    """A project, a job of it that has ended, and the entry it returned."""
    folder = tmp_path_factory.mktemp("returned")
    root = staged_project.create(folder / "project", str(folder / "exchange"), str(folder / "remote"))
    spec = launched(root, BATCHES[0])
    return root, spec, spec.returned.read_bytes()


HOSTILE_ENTRIES: dict[str, tuple[Any, str]] = {
    "no JSON": (b"\x80\x04cos\nsystem\n", "JSON"),
    "too long": (b'"' + b"x" * (17 << 20) + b'"', "too long"),
    "another stage": ({"stage": "prepare_sa1b@batch_001"}, "stage is not that of the job"),
    "another job": ({"fingerprint": "0" * 32}, "fingerprint is not that of the job"),
    "other inputs": ({"input_hashes": {}}, "input_hashes is not that of the job"),
    "more keys": ({"cmd": "touch x"}, "cmd: Extra inputs"),
    "another output": ({"outs": [{"path": "data/toy/prepare_sa1b/batch_001"}]}, "its output is not data/toy"),
    "a file of the system": ({"outs": [{"path": "/etc/passwd"}]}, "its output is not data/toy"),
    "two outputs": ({"outs": [{}, {}]}, "at most 1 item"),
    "no output": ({"outs": []}, "at least 1 item"),
    "no hash": ({"outs": [{"md5": "../../../x.dir"}]}, "outs.0.md5: String should match"),
    "a hash nobody pushed": ({"outs": [{"md5": "0" * 32 + ".dir"}]}, "is not in the DVC remote"),
    "more files": ({"outs": [{"nfiles": 3}]}, "its listing does not fit the entry"),
    "negative size": ({"outs": [{"size": -1}]}, "outs.0.size"),
}


@pytest.mark.parametrize("what", HOSTILE_ENTRIES)
def test_hostile_entries_are_refused(returned: tuple[Path, JobSpec, bytes], what: str) -> None:
    root, spec, good = returned
    change, reason = HOSTILE_ENTRIES[what]
    content = change
    if isinstance(change, dict):
        entry = json.loads(good)
        outs = [{**entry["outs"][0], **out} for out in change.get("outs", entry["outs"])]
        content = json.dumps({**entry, **change, "outs": outs}).encode()
    assert_refused(root, spec, content, reason)


LISTINGS = {
    "a path outside": ([{"relpath": "../../../.git/hooks/pre-commit"}], "`..`"),
    "an absolute path": ([{"relpath": "/etc/cron.d/x"}], "an absolute path"),
    "a path twice": ([{"relpath": "report.json"}, {"relpath": "report.json"}], "does not fit"),
    "a path in other words": ([{"relpath": "./report.json"}], "does not fit"),
    "no report": ([{"relpath": "numbers.txt"}], "no report.json"),
    "a hash that is a path": ([{"relpath": "report.json", "md5": "../../x"}], "should match"),
    "a file nobody pushed": ([{"relpath": "report.json", "md5": "0" * 32}], "not in the DVC remote"),
}


@pytest.mark.parametrize("what", LISTINGS)
def test_hostile_listings_in_the_remote_are_refused(returned: tuple[Path, JobSpec, bytes], what: str) -> None:
    root, spec, good = returned
    files, reason = LISTINGS[what]
    remote = root.parent / "remote"
    there = put(remote, b"something")
    name = put_listing(remote, [{"md5": there, **file} for file in files])
    entry = json.loads(good)
    entry["outs"][0] |= {"md5": name, "nfiles": len(files)}
    assert_refused(root, spec, json.dumps(entry).encode(), reason)


def test_a_listing_with_other_content_than_its_name_is_refused(
    returned: tuple[Path, JobSpec, bytes],
) -> None:
    root, spec, good = returned
    name = "f" * 32 + ".dir"
    put(root.parent / "remote", b"[]", name)
    entry = json.loads(good)
    entry["outs"][0]["md5"] = name
    assert_refused(root, spec, json.dumps(entry).encode(), "is not what its name says")


def assert_refused(root: Path, spec: JobSpec, content: bytes, reason: str) -> None:
    spec.returned.write_bytes(content)
    before = files_below(root / ".dvc" / "cache")
    with pytest.raises(InputError) as refused:
        Ledger(root).record(spec)
    message = str(refused.value)
    assert message.startswith(
        f"{spec.address}: the entry that the job returned is refused, nothing is recorded"
    )
    assert reason in message
    assert "\n" not in message
    assert entries(root) == {}
    assert not spec.returned.exists()  # or the next run would take it, and not start the job
    assert files_below(root / ".dvc" / "cache") == before


def test_inputs_that_moved_meanwhile_are_refused(folders: Path) -> None:
    root = folders
    for batch in BATCHES:
        run_staged(root, batch)
    for change in (change_code, change_parameter, change_what_another_recorded):
        spec = launched(root, "mask_tokens")
        changed = change(root)
        before = entries(root)
        with pytest.raises(InputsMoved, match=f"inputs changed while the job ran: {changed}"):
            Ledger(root).record(spec)
        assert entries(root) == before
        assert "mask_tokens" not in before
        commit(root)
    assert run_staged(root, "mask_tokens").how == "ran"


def change_code(root: Path) -> str:
    with (root / "jobs" / "mask_tokens.py").open("a") as file:
        file.write("# changed\n")
    return "jobs/mask_tokens.py"


def change_parameter(root: Path) -> str:
    set_parameters(root, "mask_tokens", seconds=0.001)
    return "params.yaml:mask_tokens"


def change_what_another_recorded(root: Path) -> str:
    """A batch is made again elsewhere, with another result; nothing of it is here."""
    set_parameters(root, "prepare_sa1b", numbers=6)
    run_staged(root, BATCHES[1])
    return "data/toy/prepare_sa1b"


MANY = 50


def test_fifty_jobs_that_end_at_once_are_all_recorded(tmp_path: Path) -> None:
    """Each of 50 processes records what its job returned."""
    remote = tmp_path / "remote"
    root = staged_project.create(tmp_path / "project", str(tmp_path / "exchange"), str(remote), batches=MANY)
    expected = {}
    specs = []
    for number in range(MANY):
        address = StageAddress("prepare_sa1b", f"batch_{number:03d}")
        with StageLock(root, address) as lock:
            spec = Ledger(root).begin(address, lock)
        assert isinstance(spec, JobSpec)
        spec.write()
        report = put(remote, f"report of {number}".encode())
        listing = put_listing(remote, [{"md5": report, "relpath": "report.json"}])
        output = ReturnedOutput(
            path=f"data/toy/prepare_sa1b/{address.partition}", hash="md5", md5=listing, size=12, nfiles=1
        )
        entry = Returned(
            stage=str(address),
            fingerprint=spec.fingerprint,
            commit="0" * 40,
            input_hashes=spec.input_hashes,
            outs=(output,),
        )
        spec.returned.write_text(entry.model_dump_json())
        expected[str(address)] = listing
        specs.append(spec)
    forked = multiprocessing.get_context("fork")
    start = forked.Event()
    recorders = [forked.Process(target=record_at, args=(root, spec, start)) for spec in specs]
    for recorder in recorders:
        recorder.start()
    start.set()
    for recorder in recorders:
        recorder.join()
    assert [recorder.exitcode for recorder in recorders] == [0] * MANY
    assert {name: entry["outs"][0]["md5"] for name, entry in entries(root).items()} == expected
    assert {state.plan for state in lineage_state(root) if state.address.partition} == {"does_not_run"}


def record_at(root: Path, spec: JobSpec, start: Any) -> None:
    start.wait()
    Ledger(root).record(spec)


def test_what_is_not_committed_is_refused_by_name(folders: Path) -> None:
    root = folders
    (root / "notes.txt").write_text("not tracked")
    (root / "jobs" / "prepare_sa1b.py").write_text("changed")
    (root / "dvc.lock").write_text("schema: '2.0'\nstages: {}\n")  # recording changes it all the time
    with pytest.raises(
        InputError, match=r"not committed: jobs/prepare_sa1b.py, notes.txt; a job without a shared"
    ):
        run_staged(root, BATCHES[0])
    assert entries(root) == {}


def test_an_input_that_is_not_in_the_remote_is_named_with_the_command(folders: Path) -> None:
    root = folders
    with pytest.raises(InputError, match="mask_tokens needs prepare_sa1b@batch_000, prepare_sa1b@batch_001"):
        run_staged(root, "mask_tokens")
    set_parameters(root, "resources", work_tree="shared")
    for batch in BATCHES:
        run_staged(root, batch)
    set_parameters(root, "resources", work_tree="staged")
    dvc(root, "push", BATCHES[0])
    with pytest.raises(InputError, match=r"not in the DVC remote; run `dvc push prepare_sa1b@batch_001`$"):
        run_staged(root, "mask_tokens")
    dvc(root, "push", BATCHES[1])
    (root / "data/toy/prepare_sa1b/batch_001/numbers.txt").unlink()
    with pytest.raises(InputError, match="data/toy/prepare_sa1b is not what dvc.lock records"):
        run_staged(root, "mask_tokens")
    dvc(root, "checkout", BATCHES[1])
    assert run_staged(root, "mask_tokens").how == "ran"


def test_dvc_repro_uses_the_same_launcher_and_brings_the_output_here(folders: Path) -> None:
    root = folders
    assert "Running stage 'mask_tokens'" in dvc(root, "repro").stdout
    assert (root / "data/toy/mask_tokens/total.txt").read_text() == str(TOTAL)
    assert len(entries(root)) == 3
    assert everything_is_fresh(root)
    assert "Running" not in dvc(root, "repro").stdout

    # A batch made anew elsewhere makes what was made of it stale, though nothing of either is here.
    shutil.rmtree(root / "data")
    set_parameters(root, "prepare_sa1b", numbers=6)
    plans = {str(state.address): state.plan for state in lineage_state(root)}
    assert plans == {**dict.fromkeys(BATCHES, "runs"), "mask_tokens": "runs_if_changed"}
    run_staged(root, BATCHES[1])
    run_staged(root, BATCHES[0])
    (state,) = [state for state in lineage_state(root) if state.address.stage == "mask_tokens"]
    assert (state.plan, state.why) == (
        "runs",
        "prepare_sa1b@batch_000 changed, prepare_sa1b@batch_001 changed",
    )


def test_what_a_job_says_of_wrong_input_comes_back(in_bucket: Path) -> None:
    set_parameters(in_bucket, "mask_tokens", limit=3.0)
    before = entries(in_bucket)
    with pytest.raises(InputError, match="number 4 is too large"):
        run_staged(in_bucket, "mask_tokens")
    assert entries(in_bucket) == before


def test_wrong_credentials_are_one_line(in_bucket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    set_parameters(in_bucket, "mask_tokens", seconds=0.002)
    with pytest.raises(InputError) as refused:
        run_staged(in_bucket, "mask_tokens")
    assert "\n" not in str(refused.value)
    assert "s3://storage" in str(refused.value)
    assert "credentials" in str(refused.value)

"""One job from its frozen order: what it gets, what it leaves, and when its result is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from data_contracts.errors import InputError
from jobs.runner import worker
from jobs.runner.check_failed import CheckFailed
from jobs.runner.context import Check, JobConfig, StageContext, StageReport
from jobs.runner.job_spec import JobSpec, Resources
from jobs.runner.metric_log import MetricLog, MetricPoint
from tests.jobs.runner.specs import job_spec


class Config(JobConfig):
    rate: float


@pytest.fixture
def spec(tmp_path: Path) -> JobSpec:
    copies = {"prepare_sa1b": "s3://bucket/prefix"}
    return job_spec("mask_tokens", tmp_path / "work", parameters={"rate": 0.5}, workers=3, copies=copies)


@pytest.fixture
def run_as_job(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., StageReport]], None]:
    def install(run: Callable[[Config, StageContext], StageReport]) -> None:
        module = SimpleNamespace(Config=Config, run=run)
        monkeypatch.setattr(worker, "importlib", SimpleNamespace(import_module=lambda name: module))

    return install


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (
            {"workers": {"tokenizer_stage1": -1}},
            "resources.workers.tokenizer_stage1: .*greater than or equal to 0",
        ),
        (
            {"workers": {"mask_tokens": 2}},
            "resources.workers: .*mask_tokens makes no use of it; possible: tokenizer",
        ),
        ({"copies": {"prepare_sa1b": "/disk"}}, "resources.copies.prepare_sa1b: .*s3://"),
        ({"copies": {"prepare_referring": "s3://b/p"}}, "resources.copies: .*possible: prepare_sa1b"),
        (
            {"needs": {"prepare_sa1b": {"nodes": 2}}},
            "needs.prepare_sa1b: more than one node is of use only to",
        ),
        ({"needs": {"default": {"nodes": 2}}}, "needs.default: more than one node"),
        ({"needs": {"altollm_sft": {"gpus": 4}}}, "needs.altollm_sft: 4 GPUs on a node for 1 processes"),
        ({"needs": {"unknown": {}}}, "resources.needs: .*unknown makes no use of it"),
        ({"needs": {"altollm_sft": {"gpu": 1}}}, "resources.needs.altollm_sft.gpu: unknown parameter"),
        ({"needs": {"default": {"memory_gb": 0}}}, "resources.needs.default.memory_gb: .*greater than 0"),
        ({"processes": {"mask_tokens": 2}}, "resources.processes: .*mask_tokens makes no use of it"),
        ({"launcher": "$(touch x);.."}, "resources.launcher: .*'local', 'slurm' or 'kubernetes'"),
    ],
)
def test_resources_that_no_stage_would_use_are_refused(settings: dict[str, object], line: str) -> None:
    with pytest.raises(InputError, match=line):
        worker.parse_config(Resources, "resources", settings)


def test_what_a_stage_does_not_state_it_needs_as_the_default() -> None:
    needs = {"default": {"cpus": 8, "hours": 2}, "mask_tokens": {"hours": 5, "launcher": "local"}}
    resources = worker.parse_config(Resources, "resources", {"launcher": "slurm", "needs": needs})
    assert resources.needs_of("mask_tokens").model_dump() == {
        **resources.needs_of("prepare_sa1b").model_dump(),
        "hours": 5,
        "launcher": "local",
    }
    assert (resources.needs_of("mask_tokens").cpus, resources.needs_of("prepare_sa1b").hours) == (8, 2)
    assert (resources.launcher_of("mask_tokens"), resources.launcher_of("prepare_sa1b")) == ("local", "slurm")


def test_job_gets_typed_parameters_and_an_empty_output(spec: JobSpec, run_as_job: Callable) -> None:
    spec.staging.mkdir(parents=True)
    (spec.staging / "left by a killed run").touch()

    def run(config: Config, context: StageContext) -> StageReport:
        assert config.rate == 0.5
        assert context.seed == 7
        assert context.workers == 3
        assert context.copies == {"prepare_sa1b": "s3://bucket/prefix"}
        assert list(context.output.iterdir()) == []
        (context.output / "result").write_text("done")
        return StageReport(figures={"iou": 0.25})

    run_as_job(run)
    worker.execute(spec)
    assert json.loads((spec.staging / "report.json").read_text()) == {"figures": {"iou": 0.25}, "checks": []}
    assert sorted(path.name for path in spec.staging.iterdir()) == ["report.json", "result"]


def test_failed_blocking_check_refuses_the_result_and_keeps_it(spec: JobSpec, run_as_job: Callable) -> None:
    check = Check(name="training_health", passed=False, reason="loss rose", blocking=True)
    run_as_job(lambda config, context: StageReport(figures={}, checks=(check,)))
    with pytest.raises(CheckFailed, match="training_health: loss rose") as caught:
        worker.execute(spec)
    assert not spec.staging.exists()
    assert (spec.rejected / "report.json").exists()
    assert caught.value.report["checks"][0]["name"] == "training_health"


def test_failed_check_that_does_not_block_is_reported_only(spec: JobSpec, run_as_job: Callable) -> None:
    check = Check(name="beats_baselines", passed=False, reason="not yet")
    run_as_job(lambda config, context: StageReport(figures={}, checks=(check,)))
    worker.execute(spec)
    (written,) = json.loads((spec.staging / "report.json").read_text())["checks"]
    assert written == {
        "name": "beats_baselines",
        "passed": False,
        "blocking": False,
        "reason": "not yet",
        "details": {},
    }


@pytest.mark.parametrize(
    ("parameters", "line"),
    [
        ({"rate": 0.5, "rato": 1}, "mask_tokens.rato: unknown parameter"),
        ({}, "mask_tokens.rate: Field required"),
        ({"rate": "fast"}, "mask_tokens.rate: Input should be a valid number"),
    ],
)
def test_wrong_parameters_are_one_line_with_the_key(
    spec: JobSpec, run_as_job: Callable, parameters: dict, line: str
) -> None:
    run_as_job(lambda config, context: pytest.fail("must not run"))
    with pytest.raises(InputError, match=line) as caught:
        worker.execute(spec.model_copy(update={"parameters": parameters}))
    assert "\n" not in str(caught.value)


def test_order_survives_the_file(spec: JobSpec) -> None:
    spec.write()
    assert JobSpec.read(spec.path) == spec


def test_metric_log_keeps_the_last_point_of_a_step_and_skips_a_torn_line(tmp_path: Path) -> None:
    heard: list[MetricPoint] = []
    log = MetricLog(tmp_path / "metrics.jsonl", listeners=(heard.append,))
    log.append(1, {"loss": 2.0})
    log.append(2, {"loss": 1.5})
    with log.path.open("a") as file:
        file.write('{"step": 3, "lo')  # killed while writing
    log = MetricLog(log.path, listeners=(heard.append,))
    log.append(2, {"loss": 1.25})
    assert list(log.read()) == [MetricPoint(1, {"loss": 2.0}), MetricPoint(2, {"loss": 1.25})]
    assert len(heard) == 3

"""The batch of a step does not depend on how many processes share it."""

from pathlib import Path

import pytest
import yaml

from data_contracts.errors import InputError
from jobs.runner.global_batch import SAMPLES_OF_A_STEP, refuse_uneven_batch
from jobs.runner.job_spec import JobSpec, Needs, Resources
from jobs.runner.layout import parameter_section
from jobs.runner.lineage import look_up
from jobs.runner.worker import parse_config
from orchestration.profiles import profile_names, render_profile
from tests.jobs.runner.specs import job_spec
from tests.jobs.tokenizer_example import ROOT


def spec(stage: str, parameters: dict, nodes: int, processes: int) -> JobSpec:
    needs = Needs(nodes=nodes)
    return job_spec(stage, Path("work"), parameters=parameters, needs=needs, processes=processes)


@pytest.mark.parametrize(
    ("nodes", "processes", "fits"), [(1, 1, True), (1, 4, True), (2, 4, True), (1, 3, False), (4, 4, False)]
)
def test_processes_that_cannot_share_a_step_are_refused(nodes: int, processes: int, fits: bool) -> None:
    job = spec("altollm_sft", {"images_per_step": 8}, nodes, processes)
    if fits:
        refuse_uneven_batch(job)
        return
    with pytest.raises(InputError, match=rf"altollm_sft.images_per_step is 8 .*{nodes} nodes x {processes}"):
        refuse_uneven_batch(job)


@pytest.mark.parametrize("profile", profile_names(ROOT))
def test_every_profile_shares_its_batches_evenly(profile: str) -> None:
    parameters = yaml.safe_load(render_profile(ROOT, profile))
    resources = parse_config(Resources, "resources", parameters["resources"])
    for stage, parameter in SAMPLES_OF_A_STEP.items():
        section = parameters[parameter_section(stage)]
        assert look_up(section, parameter) > 0
        nodes, processes = resources.needs_of(stage).nodes, resources.processes.get(stage, 1)
        refuse_uneven_batch(spec(stage, section, nodes, processes))

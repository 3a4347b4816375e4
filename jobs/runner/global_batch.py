"""Batch sizes count over all processes, so that learning rate and steps mean the same however many there are."""

from data_contracts.errors import InputError
from jobs.runner.job_spec import JobSpec
from jobs.runner.layout import parameter_section
from jobs.runner.lineage import look_up

SAMPLES_OF_A_STEP = {
    "tokenizer_stage1": "crops.crops_per_step",
    "tokenizer_stage1_5": "crops.crops_per_step",
    "altollm_sft": "images_per_step",
    "altollm_grpo": "prompts_per_step",
    "grpo_sweep": "prompts_per_step",
}


def refuse_uneven_batch(spec: JobSpec) -> None:
    """Raise InputError before a job is started whose processes could not share a step's samples evenly."""
    processes = spec.processes * spec.needs.nodes
    parameter = SAMPLES_OF_A_STEP.get(spec.stage)
    if parameter is None or processes == 1:
        return
    samples = look_up(spec.parameters, parameter)
    if samples % processes:
        raise InputError(
            f"{parameter_section(spec.stage)}.{parameter} is {samples} over all processes, and {processes} processes"
            f" ({spec.needs.nodes} nodes x {spec.processes}) cannot share it evenly: change resources.processes,"
            f" resources.needs.{spec.stage}.nodes, or the batch"
        )

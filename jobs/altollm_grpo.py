"""GRPO: ALToLLM learns masks that overlap more and need fewer tokens.

For each prompt a group of answers is sampled, decoded against the image at its own resolution, and rewarded;
the language model is moved towards the better ones of each group. The image is encoded once a step, the
prompt read once a group, and the masks of a group are decoded together.
"""

from jobs.altollm_pictures import save_curves, save_samples
from jobs.grpo_training.settings import GrpoConfig
from jobs.grpo_training.training import run_grpo
from jobs.runner.context import StageContext, StageReport
from jobs.training_curves import save_curve_table

Config = GrpoConfig


def run(config: Config, context: StageContext) -> StageReport:
    done = run_grpo(config, context)
    done.llm.save(context.output)
    save_curve_table(context)
    save_curves(context)
    save_samples(context, done.held_out, done.after)
    return done.report


if __name__ == "__main__":
    from jobs.runner.command_line import run_from_command_line

    run_from_command_line("altollm_grpo")

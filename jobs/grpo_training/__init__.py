"""GRPO as the stages `altollm_grpo` and `grpo_sweep` run it."""

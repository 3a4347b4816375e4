"""Pre-trains the committed base weights; `python -m jobs.base_pretraining` is the recipe."""

"""Speed and quality of our mask tokenizer against the published procedure, written from its description.

Each module with a `main` is a command: `python -m tests.benchmarks.training_step`. With `--write` its table
replaces the one in docs/performance.md.
"""

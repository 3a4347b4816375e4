"""The job of the project in `plan_project.py`: `python plan_job.py STAGE[@PARTITION]`, in the project's root.

It takes milliseconds, and its results show what they were made from only as far as that changes them: a comment in a
code file, or upper case in a raw file, makes the next stage run and leaves its result as it was.
"""

import json
import sys
from pathlib import Path


def result(root: Path, stage: str, partition: str | None) -> str:
    parameters = json.loads((root / "params.yaml").read_text())  # JSON is YAML, and needs no package
    profile = parameters["profile"]

    def output_of(upstream: str) -> str:
        folder = root / ("data" if upstream.endswith("_referring") else "models") / profile / upstream
        files = [folder / partition / "result.txt"] if partition else sorted(folder.rglob("result.txt"))
        return "".join(file.read_text() for file in files)

    def constant(path: str) -> str:
        return (root / path).read_text().splitlines()[0]

    if stage == "base_weights":
        return parameters[stage]["folder"]
    if stage == "acquire_referring":
        return (root / "raw" / f"{partition}.txt").read_text()
    seed, shared = parameters["seed"], constant("code/shared/text.py")
    if stage == "prepare_referring":
        settings = parameters[stage]["datasets"][partition]
        made = output_of("acquire_referring").lower() + settings["suffix"]
        return f"{made} {constant('code/prepare.py')} {shared} {seed}\n"
    if stage == "tokenizer_stage1":
        rows = len(output_of("prepare_referring")) // parameters[stage]["round_to"]
        return f"{rows} from {output_of('base_weights')} {shared} {seed}\n"
    if stage == "altollm_sft":
        return output_of("prepare_referring") + output_of("tokenizer_stage1")
    return f"report on {output_of('tokenizer_stage1')}"


def run(root: Path, stage: str, partition: str | None, output: Path) -> None:
    """Leave the result, and a line in `.work/runs`."""
    output.mkdir(parents=True, exist_ok=True)
    (output / "result.txt").write_text(result(root, stage, partition))
    (output / "report.json").write_text('{"figures": {}, "checks": []}')
    (root / ".work").mkdir(exist_ok=True)
    with (root / ".work" / "runs").open("a") as file:
        file.write(f"{stage}@{partition}\n" if partition else f"{stage}\n")


if __name__ == "__main__":
    name, _, key = sys.argv[1].partition("@")
    here = Path.cwd()
    run(here, name, key or None, here / sys.argv[2])

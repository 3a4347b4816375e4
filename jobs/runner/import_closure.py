"""The code a stage's result depends on: everything of ours that its module imports, directly or not.

`python -m jobs.runner.import_closure --write` brings the code dependencies in `dvc.yaml` in line;
tests/jobs/test_dvc_yaml.py holds them there. `jobs/runner` is left out: it decides how a job is launched, watched and
recorded, never what it computes.
"""

import argparse
import ast
import io
from collections.abc import Iterator
from pathlib import Path

from jobs.runner.layout import STAGES, project_root, stage_of_path

PACKAGES = ("alto_models", "data_contracts", "jobs")
RUNNER = Path("jobs/runner")

# Folders of settings, by the module that reads them: as much a part of what a stage computes as its code.
SETTINGS = {Path("jobs/altollm_training.py"): Path("infra/deepspeed")}


def import_closure(root: Path, stage: str) -> set[Path]:
    """Source files, relative to the root, that `jobs/<stage>.py` imports; itself included."""
    found: set[Path] = set()
    waiting = [Path("jobs", f"{stage}.py")]
    while waiting:
        file = waiting.pop()
        if file in found or file.is_relative_to(RUNNER):
            continue
        found.add(file)
        waiting += imported_files(root, file)
    return found


def imported_files(root: Path, file: Path) -> Iterator[Path]:
    for node in ast.walk(ast.parse((root / file).read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            if name.split(".")[0] in PACKAGES:
                yield from files_of_module(root, name)


def files_of_module(root: Path, name: str) -> Iterator[Path]:
    """The module's file, and the `__init__.py` of every package above it that holds code."""
    parts = name.split(".")
    for depth in range(1, len(parts) + 1):
        path = Path(*parts[:depth])
        initializer = path / "__init__.py"
        if (root / initializer).exists() and holds_code(root / initializer):
            yield initializer
    if (root / path.with_suffix(".py")).exists():
        yield path.with_suffix(".py")


def holds_code(initializer: Path) -> bool:
    """Whether a package's `__init__.py` is more than a docstring."""
    statements = ast.parse(initializer.read_text()).body
    return any(not isinstance(statement, ast.Expr) for statement in statements)


def declared_code(root: Path, stage: str) -> list[str]:
    """What `dvc.yaml` should list: a folder where every file in it is needed, else the files; and settings."""
    files = import_closure(root, stage)
    folders = {
        folder
        for file in files
        if (folder := file.parent) != Path("jobs") and folder.name not in PACKAGES
        if all(path.relative_to(root) in files or is_empty_package(path) for path in sources(root / folder))
    }
    alone = {file for file in files if not any(file.is_relative_to(folder) for folder in folders)}
    module = Path("jobs", f"{stage}.py")
    settings = {folder for reader, folder in SETTINGS.items() if reader in files}
    return [str(module), *sorted(str(path) for path in (alone | folders | settings) - {module})]


def sources(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


def is_empty_package(path: Path) -> bool:
    return path.name == "__init__.py" and not holds_code(path)


def write_code_dependencies(root: Path) -> None:
    """Rewrite the code dependencies in `dvc.yaml`, leaving everything else as it is."""
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 120
    yaml.indent(mapping=2, sequence=4, offset=2)
    path = root / "dvc.yaml"
    document = yaml.load(path.read_text())
    for stage in STAGES:
        entry = document["stages"][stage]
        outputs = [dependency for dependency in entry["deps"] if stage_of_path(dependency)]
        entry["deps"] = [*declared_code(root, stage), *outputs]
    buffer = io.StringIO()
    yaml.dump(document, buffer)
    path.write_text(buffer.getvalue())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m jobs.runner.import_closure", description=__doc__)
    parser.add_argument("--write", action="store_true", help="rewrite dvc.yaml; otherwise print")
    arguments = parser.parse_args()
    root = project_root()
    if arguments.write:
        write_code_dependencies(root)
        return
    for stage in STAGES:
        print(stage, *declared_code(root, stage), sep="\n  ")


if __name__ == "__main__":
    main()

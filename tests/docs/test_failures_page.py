"""docs/failures.md says which test shows what happens in each fault."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
FAULTS = ("test_faults.py", "test_staged_faults.py")


def functions_of(*files: Path) -> set[str]:
    return {name for file in files for name in re.findall(r"^def (test_\w+)", file.read_text(), re.MULTILINE)}


def test_every_fault_has_its_test_and_every_test_its_fault() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs/failures.md").read_text()))
    assert named >= functions_of(*(ROOT / "tests/cluster" / name for name in FAULTS))
    assert named <= functions_of(*(ROOT / "tests").rglob("test_*.py"))

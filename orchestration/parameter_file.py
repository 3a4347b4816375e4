"""Changes values in `params.yaml` and leaves what people wrote beside them."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from jobs.runner.whole_file import write_whole


def change_parameters(root: Path, change: Callable[[dict[str, Any]], None]) -> None:
    yaml = YAML()
    yaml.width = 110
    path = root / "params.yaml"
    parameters = yaml.load(path.read_text())
    change(parameters)
    buffer = io.StringIO()
    yaml.dump(parameters, buffer)
    write_whole(path, buffer.getvalue())

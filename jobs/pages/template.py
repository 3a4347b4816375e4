"""Templates of pages that open from disk, offline: styles, plots and pictures are inside the one file."""

import base64

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined


def page_environment(*packages: str) -> Environment:
    """Environment of the templates in packages, which may include `style.css.j2`."""
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package, ".") for package in (*packages, "jobs.pages")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "svg_uri": lambda data: _data_uri(data, "image/svg+xml"),
        "png_uri": lambda data: _data_uri(data, "image/png"),
        "jpeg_uri": lambda data: _data_uri(data, "image/jpeg"),
    }
    return environment


def _data_uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"

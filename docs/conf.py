"""How Sphinx builds the documentation (`make docs`)."""

import importlib.metadata

from sphinx.application import Sphinx

project = "graphdrivers"
author = "the graphdrivers authors"
project_copyright = author
version = release = importlib.metadata.version("graphdrivers")

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"graphdrivers {release}"

default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_use_rtype = False
napoleon_use_param = False
napoleon_custom_sections = ["Durable", "Atomic", "Idempotent", "Source"]


def setup(app: Sphinx) -> None:
    """Register what is ours."""
    app.connect("autodoc-process-docstring", keep_sentences, priority=1)


def keep_sentences(_app: Sphinx, what: str, _name: str, _obj: object, _options: object, lines: list[str]) -> None:
    """Keep napoleon from reading the words before a colon as a type: attributes here are described in sentences."""
    if what in {"attribute", "data", "property"}:
        lines.insert(0, "\\ ")

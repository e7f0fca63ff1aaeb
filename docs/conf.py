"""How Sphinx builds the documentation (`make docs`)."""

import importlib.metadata

from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

from graphdrivers import errors

project = "graphdrivers"
author = "the graphdrivers authors"
project_copyright = author
version = release = importlib.metadata.version("graphdrivers")

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"graphdrivers {release}"

default_role = "code"
smartquotes = False  # options begin with two hyphens, and what is quoted is copied into shells
highlight_language = "none"  # literal blocks are commands and layouts of folders; Python is marked
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_use_rtype = False
napoleon_use_param = False
napoleon_custom_sections = ["Durable", "Atomic", "Idempotent", "Source"]


def setup(app: Sphinx) -> None:
    """Register what is ours."""
    # Autodoc looks at what a module has; this one imports its names when they are used.
    vars(errors).update({name: getattr(errors, name) for name in errors.__all__})
    app.connect("autodoc-process-docstring", keep_sentences, priority=1)
    app.connect("env-check-consistency", miss_no_error)


def miss_no_error(_app: Sphinx, env: BuildEnvironment) -> None:
    """Warn where the reference lacks an error that the library raises."""
    described = env.get_domain("py").data["objects"]
    for name in errors.__all__:
        if f"graphdrivers.errors.{name}" not in described:
            logging.getLogger(__name__).warning("reference/errors lacks %s", name)


def keep_sentences(_app: Sphinx, what: str, _name: str, _obj: object, _options: object, lines: list[str]) -> None:
    """Keep napoleon from reading the words before a colon as a type: attributes here are described in sentences."""
    if what in {"attribute", "data", "property"}:
        lines.insert(0, "\\ ")

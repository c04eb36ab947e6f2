"""How the site is made: `make docs`."""

import sys
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path += [str(ROOT), str(ROOT / "tools")]

import make_reference  # noqa: E402 (of tools/)
from sphinx.application import Sphinx  # noqa: E402

# The pages that follow from the code: commands, sections of a study, settings.
make_reference.write(ROOT / "docs/reference/made")

project = "Millstream"
copyright = "Millstream's authors"
version = release = metadata.version("millstream")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",  # docstrings with Args, Returns and Raises
    "sphinx.ext.viewcode",
]
napoleon_numpy_docstring = False
exclude_patterns = ["reference/made/*_settings.md"]  # included in other pages

# A heading can be linked to as in a forge's own view of the page: results.md#how-large-a-buffer
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]

# Docstrings are plain text with `code`.
default_role = "literal"
highlight_language = "none"  # of blocks that name no language: commands, and what they print
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
autodoc_default_options = {"members": True}
toc_object_entries_show_parents = "hide"
python_maximum_signature_line_length = 88

html_theme = "pydata_sphinx_theme"
html_title = "Millstream"
html_static_path = ["static"]
html_css_files = ["millstream.css"]
html_theme_options = {
    "logo": {"text": "Millstream"},
    "navbar_end": ["theme-switcher"],
    "show_prev_next": False,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_toc_level": 1,
}
html_show_sourcelink = False
html_copy_source = False


def _plain(
    app: object, what: str, name: str, of: object, options: object, lines: list[str]
) -> None:
    """Docstrings name arrays as in [C, *grid]: a star begins no emphasis."""
    lines[:] = [line.replace("*", r"\*") for line in lines]


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", _plain)

"""Sphinx configuration: warnings are errors, and every example is executed while the pages are built."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import coopt

project = "coopt"
author = "The coopt authors"
copyright = author  # noqa: A001  (the name is Sphinx's)
release = version = coopt.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
    "myst_nb",
]
exclude_patterns = ["_build", "examples", "jupyter_execute", "**.ipynb_checkpoints"]
templates_path = ["_templates"]

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_in_temp = True
nb_execution_timeout = 120
nb_merge_streams = True
# The notebooks run in processes of their own, which read these.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["COLUMNS"] = "100"
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"

autosummary_generate = True
# A page beside that of Frontier, which some file systems take for the same name.
autosummary_filename_map = {"coopt.frontier": "coopt.frontier-function"}
autodoc_typehints = "none"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

html_theme = "furo"
html_title = f"coopt {release}"
html_static_path = ["_static"]
html_css_files = ["coopt.css"]
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0f5c8c", "color-brand-content": "#0f5c8c"},
    "dark_css_variables": {"color-brand-primary": "#7fc4ee", "color-brand-content": "#7fc4ee"},
}
html_show_sourcelink = False
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"

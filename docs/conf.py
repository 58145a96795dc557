"""Sphinx configuration."""

import skxmc

project = "skxmc"
author = copyright = "The skxmc developers"
release = version = skxmc.__version__
extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
]
html_theme = "pydata_sphinx_theme"
html_title = "skxmc"
html_theme_options = {"show_prev_next": False, "secondary_sidebar_items": ["page-toc"]}
html_sidebars = {"whats_new": [], "index": []}
exclude_patterns = ["_build"]
nitpicky = False
autosummary_generate = True
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False
autodoc_default_options = {"members": True, "inherited-members": False}

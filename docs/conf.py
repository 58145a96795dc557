"""Sphinx configuration."""

import sys
from pathlib import Path

import skxmc

sys.path.insert(0, str(Path(__file__).parent))  # sphinx-gallery imports `conf.in_order`

import front

project = "skxmc"
author = copyright = "The skxmc developers"
release = version = skxmc.__version__
extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
]
sphinx_gallery_conf = {
    "examples_dirs": "../examples/gallery",
    "gallery_dirs": "gallery",
    "within_subsection_order": "conf.in_order",
    "abort_on_example_error": True,
    "matplotlib_animations": False,
    "show_signature": False,
    "download_all_examples": False,
    "min_reported_time": 3600,  # seconds of a shared machine say little
}
html_theme = "pydata_sphinx_theme"
html_title = "skxmc"
html_theme_options = {
    "show_prev_next": False,
    "secondary_sidebar_items": {"**": ["page-toc"], "benchmarks": []},  # room for wide tables
    "header_links_before_dropdown": 6,
}
html_sidebars = {"whats_new": [], "index": []}
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
exclude_patterns = ["_build"]
toc_object_entries_show_parents = "hide"
nitpicky = False
autosummary_generate = True
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False
autodoc_typehints = "none"  # the docstrings say more
autodoc_default_options = {"members": True, "inherited-members": False}

_ORDER = [
    "quickstart", "raw_text", "compare_samplers", "grid_search", "tail_labels", "dense_embeddings",
    "own_sampler", "inspection", "persistence",
]  # fmt: skip


def setup(app):
    """Draw the front page's figure before pages are read."""
    app.connect("builder-inited", lambda app: front.draw(Path(app.srcdir) / "generated/front.png"))


def in_order(name):
    """Place of a gallery script: from the first steps to the special, others at the end."""
    name = Path(name).stem.removeprefix("plot_")
    return (_ORDER.index(name) if name in _ORDER else len(_ORDER), name)

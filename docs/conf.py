"""Settings of the documentation site, which ``make docs`` builds."""

from __future__ import annotations

import os
import warnings
from importlib.metadata import version as version_of

project = "skhebae"
author = "The skhebae developers"
copyright = "The skhebae developers, BSD-3-Clause"
release = version = version_of("skhebae")

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    # MathJax's files, so that equations need no network.
    "sphinx-mathjax-offline",
    "numpydoc",
    "myst_parser",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
source_suffix = {".rst": "restructuredtext", ".md": "markdown"}
exclude_patterns = ["_build", "_templates", "**/GALLERY_HEADER.rst"]
templates_path = ["_templates"]
default_role = "code"  # single backticks in docstrings

autosummary_generate = True
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # numpydoc's sections have the types
numpydoc_show_class_members = False
myst_enable_extensions = ["amsmath", "attrs_block", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
copybutton_prompt_text = r"\$ |>>> "
copybutton_prompt_is_regexp = True

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"/plot_",
    # Scripts with arguments of their own: the demo, a script for torchrun, two that download.
    "ignore_pattern": r"(^|/)(quickstart|distributed_fit|single_cell_pbmc3k|synthesise_adult)\.py",
    "subsection_order": [
        "../examples/tables",
        "../examples/codes",
        "../examples/cells",
        "../examples/training",
    ],
    "within_subsection_order": "NumberOfCodeLinesSortKey",
    "abort_on_example_error": True,
    "plot_gallery": os.environ.get("SKHEBAE_GALLERY", "run") == "run",
    "doc_module": ("skhebae",),
    "backreferences_dir": "api/backreferences",
    "remove_config_comments": True,
    "show_memory": False,
    "show_signature": False,
    "write_computation_times": False,
    "image_srcset": ["2x"],
    "thumbnail_size": (480, 320),
}
# scanpy's dependencies warn when they are imported. Warnings of ours fail the gallery's tests.
warnings.filterwarnings("ignore", module=r"(anndata|scanpy|umap|numba|legacy_api_wrap).*")

html_theme = "pydata_sphinx_theme"
html_title = "skhebae"
html_context = {"default_mode": "auto"}  # light or dark, as the system has it
html_favicon = "_static/logo.svg"
html_static_path = ["_static"]
html_css_files = ["skhebae.css"]
html_show_sourcelink = False
#: Pages without siblings, whose sidebar would be empty.
ALONE = (
    "index",
    "install",
    "start",
    "changelog",
    "citing",
    "faq",
    "glossary",
    "method",
    "releases",
)
html_sidebars = {page: [] for page in ALONE}
html_theme_options = {
    "logo": {
        "text": "skhebae",
        "image_light": "_static/logo.svg",
        "image_dark": "_static/logo.svg",
    },
    "navbar_align": "left",
    "header_links_before_dropdown": 7,
    "show_prev_next": True,
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
    "footer_start": ["copyright"],
    "footer_end": ["theme-version"],
    "secondary_sidebar_items": ["page-toc"],
}

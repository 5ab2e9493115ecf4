"""The build backend of `pip install`: setuptools for `-e`, one clear sentence for anything that would copy the code away.

Comparisons, published tables and the page of a report lie beside the code; an installed copy would lack them.
"""

from setuptools.build_meta import *  # noqa: F403  the hooks of PEP 517 and 660


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    """Refuse: the project runs from its checkout."""
    raise SystemExit(
        "Titanomachy runs from its checkout and is not installed as a copy: "
        "clone it, then run `pip install -e .` in it (or `make bench`, which needs nothing first)."
    )

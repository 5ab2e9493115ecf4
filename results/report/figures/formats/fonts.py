"""The figures' font with the letters that reports use alone: small enough for every PDF to hold it whole."""

from __future__ import annotations

import functools
import logging
import tempfile
from collections.abc import Iterable
from pathlib import Path

from matplotlib import font_manager, get_data_path

NAME, WHOLE = "Report Sans", "DejaVu Sans"  # whose licence asks that a changed font has another name
FILES = {"normal": "DejaVuSans.ttf", "bold": "DejaVuSans-Bold.ttf"}
LETTERS = (
    *range(0x20, 0x7F),
    *range(0xA0, 0x180),
    *range(0x370, 0x400),
    *range(0x2010, 0x2030),
    *map(ord, "−≤≥✓×±‡†§→"),
)
NAMES = (1, 3, 4, 6, 16)  # of a font's table of names: family, identity, whole, PostScript's and typographic family


def families(texts: Iterable[str] | None = None) -> list[str]:
    """What `font.family` is set to for figures of these texts: the small font, and behind it the whole one for a letter it lacks.

    A second font costs every text a second search; without `texts`, there may be any letter.
    """
    _small()
    return [NAME] if texts is not None and set().union(*texts) <= set(map(chr, LETTERS)) else [NAME, WHOLE]


def files() -> dict[str, Path]:
    """The small font's files by weight."""
    return {weight: Path(_small().name, file) for weight, file in FILES.items()}


@functools.cache
def _small() -> tempfile.TemporaryDirectory:
    """Makes the small font known to matplotlib; its files last as long as what is returned, that is the process."""
    from fontTools import subset  # not before a figure is drawn

    logging.getLogger("fontTools").setLevel(
        logging.ERROR
    )  # a table that it cannot choose from is none that is drawn with
    options = subset.Options(hinting=False, layout_features=["kern"], notdef_outline=True)
    options.drop_tables += ["FFTM", "GSUB", "GDEF"]
    folder = tempfile.TemporaryDirectory(prefix="report-fonts-")
    for file in FILES.values():
        font = subset.load_font(str(Path(get_data_path(), "fonts", "ttf", file)), options)
        chosen = subset.Subsetter(options)
        chosen.populate(unicodes=LETTERS)
        names = font["name"]
        del font["name"]  # who uses which of them takes longest to find, and they stay as they are
        chosen.subset(font)
        font["name"] = names
        for entry in names.names:
            if entry.nameID in NAMES:
                entry.string = str(entry).replace(WHOLE, NAME).replace(WHOLE.replace(" ", ""), NAME.replace(" ", ""))
        subset.save_font(font, str(Path(folder.name, file)), options)
        font_manager.fontManager.addfont(Path(folder.name, file))
    return folder

"""PDF that holds the report's small font whole: what each letter is called and how wide it is, is worked out once."""

from __future__ import annotations

import functools
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib import ft2font
from matplotlib.backends.backend_pdf import Name, PdfFile, RendererPdf, Verbatim

from results.report.figures.formats import fonts
from results.report.figures.formats.letters import EM, FIXED, PLAIN, Line

THOUSAND = 1000  # what a PDF divides the size of a font by
MOST = 100  # letters that one list of a table of letters may hold
TABLE = """/CIDInit /ProcSet findresource begin
12 dict begin
begincmap
/CIDSystemInfo << /Registry (Adobe) /Ordering (UCS) /Supplement 0 >> def
/CMapName /Letters def
/CMapType 2 def
1 begincodespacerange
<0000> <ffff>
endcodespacerange
{lists}
endcmap
CMapName currentdict /CMap defineresource pop
end
end
"""


class Embedded(NamedTuple):
    """A font as a PDF has it: its file and table of letters packed, its measures in thousandths of its size."""

    name: str
    file: bytes
    length: int
    table: bytes
    widths: list[int]
    facts: dict[str, Any]


class File(PdfFile):
    """Matplotlib's PDF, with the report's fonts beside those that it embeds itself."""

    def __init__(self, metadata: dict[str, None]) -> None:
        self.bytes = BytesIO()
        self.weights: set[str] = set()
        super().__init__(self.bytes, metadata=metadata)

    def font(self, weight: str) -> bytes:
        """What a page calls the font of a weight, which is embedded from then on."""
        self.weights.add(weight)
        return b"/Report-" + weight.encode()

    def writeObject(self, object: Any, contents: Any) -> None:
        """Write an object; to the list of fonts are added those used here."""
        if object is self.fontObject:
            ours = {Name(f"Report-{weight}"): self._embed(_embedded(weight)) for weight in sorted(self.weights)}
            contents = {**contents, **ours}
        super().writeObject(object, contents)

    def _embed(self, font: Embedded) -> Any:
        kinds = ("font", "descendant", "descriptor", "font file", "table of letters")
        whole, inner, descriptor, file, table = (self.reserveObject(kind) for kind in kinds)
        self._packed(file, font.file, b"/Length1 %d " % font.length)
        self._packed(table, font.table)
        named = {"BaseFont": Name(font.name)}
        system = {"Registry": "Adobe", "Ordering": "Identity", "Supplement": 0}
        self.writeObject(descriptor, {**font.facts, "FontName": Name(font.name), "FontFile2": file})
        inside = {"Type": Name("Font"), "Subtype": Name("CIDFontType2"), "CIDSystemInfo": system, "W": [0, font.widths]}
        inside |= {"CIDToGIDMap": Name("Identity"), "FontDescriptor": descriptor}
        self.writeObject(inner, inside | named)
        outside = {"Type": Name("Font"), "Subtype": Name("Type0"), "Encoding": Name("Identity-H"), "ToUnicode": table}
        self.writeObject(whole, {**outside, **named, "DescendantFonts": [inner]})
        return whole

    def _packed(self, object: Any, packed: bytes, more: bytes = b"") -> None:
        """A stream that was packed before: packing it takes longer than all else in a figure's file."""
        self.recordXref(object.id)
        head = b"%d 0 obj\n<< /Length %d %s/Filter /FlateDecode >>\nstream\n" % (object.id, len(packed), more)
        self.write(head + packed + b"\nendstream\nendobj\n")


class Pdf(RendererPdf):
    """Matplotlib's renderer of PDF, with texts of our own."""

    def draw_line(self, gc: Any, x: float, y: float, line: Line, size: float, turn: tuple[float, float]) -> None:
        """A line of text that begins at x and stands on y, in points; `turn` holds the cosine and sine of its angle."""
        self.check_gc(gc, gc._rgb)
        cos, sin = turn
        place = b"%.5f %.5f %.5f %.5f %.3f %.3f Tm" % (cos, sin, -sin, cos, x, y)
        font = self.file.font(line.weight)
        self.file.output(Verbatim(b"BT %s %g Tf %s [%s] TJ ET" % (font, size, place, _shown(line))))


@functools.lru_cache(maxsize=1 << 14)
def _shown(line: Line) -> bytes:
    """A line's letters, and where they are kerned by how much."""
    parts, glyphs = [], line.glyphs
    follow = [*line.starts[1:], line.starts[-1] + glyphs[-1].advance]
    for one, start, end in zip(glyphs, line.starts, follow, strict=True):
        kern = round(THOUSAND / EM * (start + one.advance - end))
        parts.append(f"{one.number:04x}" + (f"> {kern} <" if kern else ""))
    return f"<{''.join(parts)}>".encode()


@functools.cache
def _embedded(weight: str) -> Embedded:
    path = Path(fonts.files()[weight])
    font = ft2font.FT2Font(str(path))
    scale = THOUSAND / font.units_per_EM
    letters = {number: code for code, number in sorted(font.get_charmap().items(), reverse=True)}
    font.set_size(THOUSAND, 72)
    widths = [round(font.load_glyph(number, flags=PLAIN).horiAdvance / FIXED) for number in range(font.num_glyphs)]
    whole = [f"<{number:04x}> <{chr(code).encode('utf-16-be').hex()}>" for number, code in sorted(letters.items())]
    lists = [whole[begin : begin + MOST] for begin in range(0, len(whole), MOST)]
    table = TABLE.format(lists="\n".join(f"{len(one)} beginbfchar\n" + "\n".join(one) + "\nendbfchar" for one in lists))
    ascent, descent = round(scale * font.ascender), round(scale * font.descender)
    facts = {"Type": Name("FontDescriptor"), "Flags": 32, "FontBBox": [round(scale * end) for end in font.bbox]}
    facts |= {"Ascent": ascent, "Descent": descent, "CapHeight": ascent, "ItalicAngle": 0, "StemV": 80}
    file = path.read_bytes()
    return Embedded(font.postscript_name, zlib.compress(file), len(file), zlib.compress(table.encode()), widths, facts)

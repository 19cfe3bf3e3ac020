"""Makes ``docs/report.png``, parts of a run's report side by side; needs chromium.

keras-resnet quickstart && python docs/make_report_picture.py quickstart
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageChops

WIDTH, HEIGHT = 2000, 3000  # of the window: wide enough for charts side by side
OUT_WIDTH = 1600
SHOWN = (
    "Training",
    "Confusion matrix",
    "Hardest images",
    "TensorFlow Lite",
    "Error after each layer",
)
STYLE = """<style>
body { max-width: none; padding: 1rem 1.5rem; columns: 2; column-gap: 1.5rem; }
section, header { break-inside: avoid; } section { margin: 0 0 1.25rem; }
header { padding-bottom: 1.5rem; } footer, .kinds, .kinds ~ * { display: none; }
section:not(:has(> h2.shown)) { display: none; }
</style>"""


def main(run: str) -> None:
    page = (Path(run) / "report.html").read_text("utf-8")
    for title in SHOWN:
        page = page.replace(f"<h2>{title}</h2>", f'<h2 class="shown">{title}</h2>')
    page = page.replace("</head>", STYLE + "</head>")
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        (here / "page.html").write_text(page, "utf-8")
        subprocess.run(
            [
                "chromium",
                "--headless",
                "--no-sandbox",
                "--hide-scrollbars",
                f"--screenshot={here / 'page.png'}",
                f"--window-size={WIDTH},{HEIGHT}",
                f"file://{here / 'page.html'}",
            ],
            check=True,
            stderr=subprocess.DEVNULL,
        )
        picture = Image.open(here / "page.png").convert("RGB")
    empty = Image.new("RGB", picture.size, picture.getpixel((0, 0)))
    box = ImageChops.difference(picture, empty).getbbox() or (0, 0, WIDTH, HEIGHT)
    picture = picture.crop((0, 0, WIDTH, box[3] + 16))
    picture.thumbnail((OUT_WIDTH, HEIGHT), Image.Resampling.LANCZOS)
    out = Path(__file__).parent / "report.png"
    # A palette has a third of the bytes; without kmeans the white is not white.
    palette = picture.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=2, dither=Image.Dither.NONE)
    palette.save(out, optimize=True)
    print(out)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Bundle the charts' library for the pages anew: `python -m tests.benchmarks.vega`.

Vega, Vega-Lite and Vega-Embed lie in the wheel as one compressed script, so that a page needs no vl-convert,
which takes 84 MB. Run it after an update of vl-convert. `vega.licenses.txt` beside it has the licences of all
that is in the bundle; it is made by hand, from `npm install vega vega-lite vega-embed` in those versions.
"""

from __future__ import annotations

import gzip
from importlib.metadata import version
from pathlib import Path
from typing import Final

import vl_convert

STATIC: Final = Path(__file__).parents[2] / "pipeprof" / "report" / "page" / "static"
BUNDLE: Final = STATIC / "vega.js.gz"


def bundle() -> str:
    """Return the script: a line that names what is in it, and vl-convert's bundle."""
    libraries = (
        f"Vega {vl_convert.get_vega_version()}, Vega-Lite {vl_convert.get_vegalite_versions()[-1]}, "
        f"Vega-Embed {vl_convert.get_vega_embed_version()}"
    )
    contents = (
        f"{libraries}, as vl-convert {version('vl-convert-python')} bundles them. "
        "Copyright University of Washington Interactive Data Lab and others, BSD-3-Clause and others: "
        "see vega.licenses.txt in pipeprof."
    )
    script = str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")).replace("\r", "")
    return f"/*! {contents} */\n{script}"


def main() -> None:
    """Write the bundle."""
    BUNDLE.write_bytes(gzip.compress(bundle().encode(), 9, mtime=0))


if __name__ == "__main__":
    main()

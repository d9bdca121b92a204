"""Put the table of settings, as the code has it now, into docs/configuration.md."""

from __future__ import annotations

import re
from pathlib import Path

from bkscaler.config import as_markdown

PAGE = Path(__file__).resolve().parent.parent / "docs" / "configuration.md"

if __name__ == "__main__":
    old = PAGE.read_text()
    PAGE.write_text(re.sub(r"(?:^\|.*\n)+", lambda _: as_markdown(), old, count=1, flags=re.MULTILINE))

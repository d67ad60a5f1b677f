"""Parts of a self-contained HTML page: tables that sort, figures inlined, no address of anything outside."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np
import pandas as pd

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; border-bottom: 1px solid #ddd; }
figure { margin: 1.2rem 0; } img { max-width: 100%; } figcaption { color: #444; max-width: 44rem; }
.wide { overflow: auto; max-height: 80vh; } table { border-collapse: collapse; font-size: 0.85rem; }
th, td { text-align: left; padding: 0.2rem 0.7rem 0.2rem 0; border-bottom: 1px solid #eee; vertical-align: top; }
td.number { text-align: right; font-variant-numeric: tabular-nums; } td.sequence { font-family: monospace; }
table.sorts td { white-space: nowrap; }
table.sorts td.sequence { max-width: 26rem; overflow: hidden; text-overflow: ellipsis; }
table.sorts th { cursor: pointer; white-space: nowrap; position: sticky; top: 0; background: #fff; }
table.sorts th::after { content: " \\2195"; color: #999; }
@media print { .wide { max-height: none; } }
.warning { border-left: 4px solid #d55e00; padding-left: 0.8rem; }
"""

_SCRIPT = """
for (const head of document.querySelectorAll("table.sorts th")) head.addEventListener("click", () => {
  const body = head.closest("table").tBodies[0], column = head.cellIndex;
  const sign = head.getAttribute("aria-sort") === "descending" ? 1 : -1;
  for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
  const value = row => row.cells[column].dataset.value ?? row.cells[column].textContent;
  const compare = (a, b) => isNaN(a - b) ? a.localeCompare(b, "en", { numeric: true }) : a - b;
  body.append(...[...body.rows].sort((a, b) => sign * compare(value(a), value(b))));
});
"""


def page(title: str, *parts: str) -> str:
    """Make a whole page of parts that are HTML already."""
    body = "\n".join(parts)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width">\n<style>{_STYLE}</style>\n</head>\n'
        f"<body>\n<h1>{escape(title)}</h1>\n{body}\n<script>{_SCRIPT}</script>\n</body>\n</html>\n"
    )


def section(title: str, *parts: str) -> str:
    """A heading, and what stands below it."""
    return "\n".join([f"<h2>{escape(title)}</h2>", *parts])


def paragraph(text: str, *, warning: bool = False) -> str:
    """A paragraph of plain text."""
    return f'<p class="warning">{escape(text)}</p>' if warning else f"<p>{escape(text)}</p>"


def bullets(texts: list[str]) -> str:
    """A list of plain texts."""
    return "<ul>\n" + "\n".join(f"<li>{escape(text)}</li>" for text in texts) + "\n</ul>"


def definitions(values: Mapping[str, Any]) -> str:
    """A table of names and values."""
    rows = "\n".join(f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>" for name, value in values.items())
    return f'<div class="wide"><table>\n{rows}\n</table></div>'


def table(frame: pd.DataFrame) -> str:
    """A table that sorts by a column when its head is clicked, larger first; sequences in one width of letters."""
    head = "".join(f'<th scope="col">{escape(str(name))}</th>' for name in frame.columns)
    rows = []
    for values in frame.itertuples(index=False):
        cells = (_cell(name, value) for name, value in zip(frame.columns, values, strict=True))
        rows.append(f"<tr>{''.join(cells)}</tr>")
    body = "\n".join(rows)
    contents = f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>"
    return f'<div class="wide"><table class="sorts">\n{contents}\n</table></div>'


def figure(display: Any, alternative: str, caption: str) -> str:
    """Draw a display as an inlined picture with a caption; its figure is closed again."""
    from matplotlib import pyplot

    drawn = display.plot().figure_
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="png", dpi=110)
    pyplot.close(drawn)
    data = base64.b64encode(buffer.getvalue()).decode()
    return (
        f'<figure>\n<img alt="{escape(alternative)}" src="data:image/png;base64,{data}">\n'
        f"<figcaption>{escape(caption)}</figcaption>\n</figure>"
    )


def _cell(name: str, value: Any) -> str:
    """A cell; numbers are rounded for the eye and sorted by their full value."""
    if isinstance(value, (int, float, np.number)) and not isinstance(value, bool):
        if not np.isfinite(value):
            return "<td></td>"
        return f'<td class="number" data-value="{float(value):.9g}">{float(value):.4g}</td>'
    kind = ' class="sequence"' if name in ("sequence", "nearest") else ""
    return f"<td{kind}>{escape(str(value))}</td>"

"""Figures that say in words what they show: for screen readers, for notebooks and inside the files."""

from __future__ import annotations

import base64
import io
from html import escape
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

# What each format calls a description, and what of its own it would put into every file anew.
KEYS = {"png": "Description", "svg": "Description", "pdf": "Subject"}
CHANGING = {"png": "Software", "svg": "Date", "pdf": "CreationDate"}


class DescribedFigure(Figure):
    """A figure whose :attr:`description` goes wherever the figure goes.

    Notebooks show it as the alternative text of the picture; :meth:`savefig` writes it into PNG, SVG and PDF
    files, which are then the same for the same data.

    Attributes
    ----------
    description : str
        What the figure shows, in a few sentences with the numbers that matter.
    """

    description: str = ""

    def savefig(self, fname: Any, **settings: Any) -> None:
        """Write the figure, with its description where the format has a place for one."""
        name = fname if isinstance(fname, str | Path) else ""
        kind = settings.get("format") or Path(name).suffix.removeprefix(".").lower() or "png"
        if kind in KEYS:
            own = {KEYS[kind]: self.description, CHANGING[kind]: None}
            settings["metadata"] = own | dict(settings.get("metadata") or {})
        super().savefig(fname, **settings)

    def _repr_html_(self) -> str:
        stream = io.BytesIO()
        self.savefig(stream, format="png", dpi=100)
        picture = base64.b64encode(stream.getvalue()).decode("ascii")
        text = escape(self.description, quote=True)
        return f'<img style="max-width:100%" alt="{text}" src="data:image/png;base64,{picture}">'

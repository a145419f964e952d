"""A table of texts, drawn as Markdown or LaTeX. The texts are untrusted: whatever they hold is shown and does nothing."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from alignbench.untrusted import plain


@dataclass(frozen=True)
class Grid:
    """`sections` are groups of lines, set apart where the format can; each line begins with its name."""

    header: Sequence[str]
    sections: Sequence[Sequence[Sequence[str]]]

    def markdown(self) -> list[str]:
        lines = [line for section in self.sections for line in section]
        rule = "| --- |" + " ---: |" * (len(self.header) - 1)
        return [_cells(self.header), rule, *(_cells(line) for line in lines)]

    def latex(self) -> list[str]:
        body = [
            " & ".join(latex_text(cell.strip()) for cell in line) + r" \\" if line is not None else r"\midrule"
            for part in [[self.header], *self.sections]
            for line in [*part, None]
        ]
        columns = "l" + "r" * (len(self.header) - 1)
        return [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", *body[:-1], r"\bottomrule", r"\end{tabular}"]


def in_table(drawn: Sequence[str], caption: str, label: str, below: Sequence[str], *, packages: str) -> list[str]:
    """A LaTeX table environment around a drawn tabular. `below`: lines of LaTeX."""
    return [
        *([rf"% \usepackage{{{packages}}}"] if packages else []),
        *(
            rf"\providecommand{{\{rule}}}{{\hline}}" for rule in ("toprule", "midrule", "bottomrule")
        ),  # booktabs' are finer
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{latex_text(caption)}}}",
        rf"\label{{tab:{label}}}",
        *drawn,
        r"\par\smallskip\footnotesize",
        *below,
        r"\end{table}",
    ]


def markdown_text(text: str) -> str:
    """As literal text inside a Markdown table cell: no markup, HTML, link or new cell."""
    escaped = _MARKUP.sub(r"\\\g<0>", html.escape(plain(text), quote=False))
    return _MAIL.sub("<!-- -->@", escaped)


def latex_text(text: str) -> str:
    """As literal text; the signs that tables use as mathematics (amssymb), a minus before a number too. Of what no plain LaTeX can set, the
    code point."""
    signed = _MINUS.sub("−", plain(text))
    return "".join(_LATEX.get(c) or (c if c.isascii() or c in _LATIN else f"U+{ord(c):04X}") for c in signed)


# An underscore inside a word is no markup and stays readable. Bare addresses become links without any.
_MARKUP = re.compile(
    r"[\\|`*\[\]~]|(?<![^\W_])_|_(?![^\W_])|(?i:(?<=http)|(?<=https)|(?<=ftp)|(?<=mailto)|(?<=xmpp)):|(?i:(?<=www))\."
)
_MAIL = re.compile(
    r"(?<=[\w.+-])@(?=\w)"
)  # the address of a mailbox is found in the text that is left: no escape hides it

_MINUS = re.compile(r"(?<![^\s(\[])-(?=\d)")  # not in 1e-4, a-3 or a date


def _cells(cells: Iterable[str]) -> str:
    return "| " + " | ".join(markdown_text(cell.strip()) for cell in cells) + " |"


_LATIN = "ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜÝßàáâãäåæçèéêëìíîïñòóôõöøùúûüýÿ"
_LATEX = {
    **{c: rf"\{c}" for c in "&%$#_{}"},
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}", "`": r"\textasciigrave{}", "–": "--", "…": r"\dots{}",
    "±": r"$\pm$", "≥": r"$\geq$", "−": r"$-$", "‡": r"$\ddagger$", "α": r"$\alpha$", "β": r"$\beta$", "√": r"$\surd$", "—": "---", "’": "'", "†": r"$\dagger$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "▲": r"$\blacktriangle$", "▼": r"$\blacktriangledown$",
    "◆": r"$\blacklozenge$", "△": r"$\vartriangle$", "▽": r"$\triangledown$", "◇": r"$\lozenge$",
}  # fmt: skip

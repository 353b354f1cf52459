"""The figures that Matt Mazur's tutorial prints, beside ours: next to the terms of its step, and in a table."""

from collections.abc import Mapping, Sequence

from ..tutorial import ERRATA, Figure
from .formula import markup

AFTER_ONE = "E after 1 round"
LAYERWISE = "with the new w5 to w8 already in the hidden layer's gradient (layerwise)"
NOTES = (
    "The error after one round and the outputs after 10,000 rounds are those of layerwise updates, whose hidden "
    "gradients go through weights that are already updated. The text describes simultaneous updates, the true "
    "gradient.",
    "The error after 10,000 rounds is that of simultaneous updates, read one round earlier.",
    "dE_o2/dout_h1 has a factor that was rounded to nine decimals before.",
    "The first formula of net_h1 multiplies i2 by w2, a later one by w3; only w2 gives 0.3775.",
)


class Printed:
    """The figures by the names of terms."""

    def __init__(self, figures: Sequence[Figure]) -> None:
        self.figures = figures
        self.named: Mapping[str, Figure] = {each.name: each for each in figures}

    def beside(self, name: str, new: bool) -> str:
        """What is printed for a term of the first step: HTML, or nothing. new: if it is about the error after it."""
        figure = self.named.get(AFTER_ONE if new else name)
        if figure is None or not figure.printed:
            return ""
        same = "simultaneous" in figure.matches
        note = "the same digits" if same else LAYERWISE if figure.matches else "from a rounded factor"
        mark = "✓" if same else "≠"
        return (
            f'<span class="printed{"" if same else " erratum"}" data-s="0"><b aria-hidden="true">{mark}</b> '
            f"printed {figure.printed}, {note}</span>"
        )

    def section(self) -> str:
        """The table of all figures, and the errata."""
        notes = "".join(f"<li>{markup(note)}</li>" for note in NOTES)
        return (
            '<section class="figures"><h2 id="figures">Printed figures and ours</h2>'
            '<div class="wide" tabindex="0" role="region" aria-labelledby="figures"><table><thead><tr>'
            '<th scope="col">Figure</th><th scope="col" class="number">Printed</th>'
            '<th scope="col" class="number">Simultaneous</th><th scope="col" class="number">Layerwise</th>'
            f'<th scope="col">Printed digits</th></tr></thead><tbody>{"".join(map(self._row, self.figures))}'
            f"</tbody></table></div><h3>Errata</h3><p>Two orders of updates explain every digit:</p><ul>{notes}</ul>"
            "</section>"
        )

    @staticmethod
    def _row(figure: Figure) -> str:
        decimals = len(figure.printed.partition(".")[2]) + 3 if figure.printed else 13
        ours = "".join(
            f'<td class="number{" same" if order in figure.matches else ""}">{getattr(figure, order):.{decimals}f}</td>'
            for order in ("simultaneous", "layerwise")
        )
        verdict = "both" if len(figure.matches) == 2 else "".join(figure.matches)
        verdict = verdict or ("no" if figure.printed else "")
        explains = f" (explains {markup(ERRATA[figure.name])})" if figure.name in ERRATA else ""
        return (
            f'<tr><th scope="row">{markup(figure.name)}{explains}</th><td class="number">{figure.printed}</td>{ours}'
            f"<td>{verdict}</td></tr>"
        )

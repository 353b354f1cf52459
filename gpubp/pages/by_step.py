"""What a page shows at some of its steps: every variant stands in the page, and style sheets choose.

#shown's data-step is the step that is shown; an element with data-step's number among its data-s, or without data-s,
is shown.
"""

import html
from collections.abc import Callable, Sequence


def by_step(texts: Sequence[str | None], tag: str = "span", write: Callable[[str], str] = html.escape) -> str:
    """The text of every step, None where there is none: each once, as HTML by `write`, in an element `tag`."""
    steps: dict[str, list[int]] = {}
    for step, text in enumerate(texts):
        if text is not None:
            steps.setdefault(text, []).append(step)
    return "".join(f"<{tag}{attribute(those, len(texts))}>{write(text)}</{tag}>" for text, those in steps.items())


def attribute(steps: Sequence[int], of: int) -> str:
    """The attribute of an element that is shown at `steps`; none if these are all."""
    return "" if len(steps) == of else f' data-s="{" ".join(map(str, steps))}"'


def rules(steps: int) -> str:
    """The rules that hide what is not of the step that is shown."""
    hidden = ",\n".join(f'#shown[data-step="{step}"] [data-s]:not([data-s~="{step}"])' for step in range(steps))
    return f"{hidden} {{ display: none; }}"

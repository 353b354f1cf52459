"""What a page shows at some of its steps: the page has every variant, and style sheets choose.

#shown's data-step is the present step; an element shows if its data-s includes that number, or if it has no data-s.
"""

import html
from collections.abc import Callable, Sequence


def by_step(texts: Sequence[str | None], tag: str = "span", write: Callable[[str], str] = html.escape) -> str:
    """The text of every step, or None: each text once, as HTML by `write`, in an element `tag`."""
    steps: dict[str, list[int]] = {}
    for step, text in enumerate(texts):
        if text is not None:
            steps.setdefault(text, []).append(step)
    return "".join(f"<{tag}{attribute(those, len(texts))}>{write(text)}</{tag}>" for text, those in steps.items())


def attribute(steps: Sequence[int], of: int) -> str:
    """The attribute of an element that shows at `steps`; none if these are all steps."""
    return "" if len(steps) == of else f' data-s="{" ".join(map(str, steps))}"'


def rules(steps: int) -> str:
    """The style rules that hide whatever does not belong to the present step."""
    hidden = ",\n".join(f'#shown[data-step="{step}"] [data-s]:not([data-s~="{step}"])' for step in range(steps))
    return f"{hidden} {{ display: none; }}"

"""Three test cases on the page's first screen, chosen by rule from a view's cases."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

# Where each example stands among the cases, from the best down, in sixths of their number.
PLACES = {"Best third": 1, "Middle third": 3, "Worst third": 5}


@dataclass(frozen=True)
class Example:
    """A case: its pictures as data: URIs, and `href`, its address in the viewer.

    `dice` is in percent.
    """

    place: str
    id: str
    dice: str
    image: str
    truth: str
    prediction: str
    href: str


@dataclass(frozen=True)
class Examples:
    """The examples of one view; `warning` is '' if its images are real."""

    title: str
    run: str
    noun: str
    number: int
    warning: str
    cases: tuple[Example, ...]


def examples(views: Sequence[Mapping[str, Any]]) -> Examples | None:
    """Examples of the first view of real images, or else of the first view.

    `views` are the cases of the viewer (`image_view`, `volume_view`). Of each third of a view's
    cases, ordered by the Dice of its first run, the example is the one in the middle, ties by id; a
    case without a Dice has no rank. None if no case has one.
    """
    for view in sorted(views, key=lambda one: one["warning"] != ""):  # a stable order
        run = view["runs"][0]
        scores = [case["score"] for case in run["cases"]]
        ranked = sorted(
            (i for i, score in enumerate(scores) if score is not None),
            key=lambda i: (-scores[i], view["ids"][i]),
        )
        if ranked:
            places = {name: ranked[sixths * len(ranked) // 6] for name, sixths in PLACES.items()}
            return Examples(
                title=view["title"],
                run=run["title"],
                noun=view["noun"],
                number=len(ranked),
                warning=view["warning"],
                cases=tuple(_example(view, name, i) for name, i in places.items()),
            )
    return None


def _example(view: Mapping[str, Any], place: str, i: int) -> Example:
    run, case_id = view["runs"][0], view["ids"][i]
    case = run["cases"][i]
    named = [quote(text, safe="") for text in (view["view"], case_id, run["key"])]
    return Example(
        place=place,
        id=case_id,
        dice=f"{100 * case['score']:.1f}",
        image=view["images"][i],
        truth=case["truth"],
        prediction=case["prediction"],
        href=f"#case={named[0]}/{named[1]}&run={named[2]}",
    )

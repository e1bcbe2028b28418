"""The page: HTML of a report's JSON values, and nothing that they do not say."""

from __future__ import annotations

import base64
import importlib.resources
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from exporters import images as image_files
from exporters.errors import MissingLibraryError
from exporters.images import ImageError
from exporters.reporting import figures
from exporters.reporting.figures import Series

MARK = "STAND-IN"
_TASKS = ("classification", "feature_vector")
_PIXELS = 112
"""Of the longer side of a picture."""
_LEAST = 1e-12
"""What smaller errors are drawn as."""
_MOST_HURT = 5
_DRAWN = 1e-4
"""Of the largest error through the depth, what is drawn."""


def check_libraries() -> None:
    """Raises if what draws pages is not there.

    Raises:
      MissingLibraryError: matplotlib or Jinja is not.
    """
    for module, name in (("matplotlib", "matplotlib"), ("jinja2", "Jinja")):
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise MissingLibraryError(
                f"A report is drawn with {name}, which cannot be imported ({error}). It "
                "comes with the extra `report`: pip install 'irv2[report]'"
            ) from error


def render(
    facts: Mapping[str, Any],
    pictures: Sequence[np.ndarray],
    differing: Mapping[str, Path],
) -> str:
    """Returns the page.

    Args:
      facts: `Report.as_dict()`.
      pictures: float32 [height, width, 3] in [0, 1], of `facts["images"]`.
      differing: name of an image that artifacts differ about -> its file.
    """
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("exporters.reporting", "data"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = _Page(facts)
    environment.filters |= {
        "thousands": lambda value: f"{value:,}",
        "size": lambda size: " x ".join(map(str, size)),
    }
    read = {name: _read_picture(path) for name, path in differing.items()}
    return environment.get_template("page.html").render(
        facts=facts,
        at=page.figure,
        plots=page,
        mark=MARK if facts["stand_in"] else "",
        css=Markup(_text("page.css")),
        json=Markup(_embedded(facts)),
        pictures=[_as_uri(np.rint(255 * image).astype(np.uint8)) for image in pictures],
        differing={name: uri for name, uri in read.items() if uri},
        **page.tables(),
    )


def _text(name: str) -> str:
    folder = importlib.resources.files("exporters.reporting") / "data"
    return (folder / name).read_text("utf-8")


def _embedded(facts: Mapping[str, Any]) -> str:
    """Returns JSON that can stand in a script element: nothing ends it early."""
    return json.dumps(facts, allow_nan=False).replace("<", "\\u003c")


def _as_uri(pixels: np.ndarray) -> str:
    from PIL import Image

    stream = io.BytesIO()
    image = Image.fromarray(pixels)
    image.thumbnail((_PIXELS, _PIXELS), Image.Resampling.LANCZOS)
    image.save(stream, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _read_picture(path: Path) -> str | None:
    try:
        return _as_uri(image_files.decode(path, str(path)))
    except ImageError:
        return None


_FORMATS: Mapping[str, Callable[[float], str]] = {
    "count": lambda value: f"{value:,}",
    "bytes": lambda value: (
        f"{value / 1e6:.1f} MB" if value >= 100_000 else f"{value:,} bytes"
    ),
    "ms": lambda value: f"{1000 * value:.1f} ms",
    "percent": lambda value: f"{value:.1%}".replace("%", " %"),
    "probability": lambda value: (
        f"{value:.1%}".replace("%", " %") if value >= 5e-4 else "< 0.1 %"
    ),
    "percent2": lambda value: f"{value:.2%}".replace("%", " %"),
    "error": lambda value: f"{value:.2g}",
    "cosine": lambda value: f"{value:.6f}",
    "limit": lambda value: f"{value:g}",
}


class _Page:
    """What is shown of the facts: figures by their places, plots, tables."""

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self._facts = facts
        self._mark = MARK if facts["stand_in"] else ""

    def _value(self, place: str) -> Any:
        value: Any = self._facts
        for part in place.split("/")[1:]:
            part = part.replace("~1", "/").replace("~0", "~")
            value = value[int(part)] if isinstance(value, list | tuple) else value[part]
        return value

    def figure(self, place: str, style: str) -> Any:
        """Returns a figure in HTML that says where in the JSON it is.

        Args:
          place: as a JSON pointer.
          style: a key of `_FORMATS`.
        """
        from markupsafe import Markup

        value = self._value(place)
        if value is None:
            return Markup('<span class="none">none</span>')
        return Markup('<data value="{}" data-at="{}">{}</data>').format(
            repr(value), place, _FORMATS[style](value)
        )

    # Plots

    def _rows(self) -> tuple[list[str], dict[str, list[int | None]]]:
        """Formats; and task -> the artifact of each format, where there is one.

        Artifacts that are called by their names have rows of their own.
        """
        of: dict[tuple[str, str], int] = {}
        for number, artifact in enumerate(self._facts["artifacts"]):
            task, name, label = (artifact[key] for key in ("task", "format", "label"))
            if label == f"{name}, {str(task).replace('_', ' ')}":
                label = name
            of[label, task if task in _TASKS else _TASKS[0]] = number
        labels = list(dict.fromkeys(label for label, _ in of))
        return labels, {
            task: [of.get((label, task)) for label in labels] for task in _TASKS
        }

    def _plot(
        self,
        title: str,
        where: str,
        transform: Callable[[float], float] = float,
        **options: Any,
    ) -> Any:
        """Draws a figure of all artifacts; nothing if none has it.

        Args:
          title: of the plot.
          where: is the figure, below an artifact.
          transform: what is drawn for a figure.
          **options: as `figures.rows` takes them.
        """
        labels, tasks = self._rows()
        series = []
        for task, numbers in tasks.items():
            places = [f"/artifacts/{number}{where}" for number in numbers]
            found = [self._value_or_none(place) for place in places]
            values = [None if value is None else transform(value) for value in found]
            series.append(Series(task.replace("_", " "), values, places))
        series = [each for each in series if any(v is not None for v in each.values)]
        kept = [
            row
            for row in range(len(labels))
            if any(each.values[row] is not None for each in series)
        ]
        if not series:
            return ""
        return self._drawn(
            figures.rows,
            title,
            [labels[row] for row in kept],
            [each.only(kept) for each in series],
            **options,
        )

    def _drawn(self, draw: Callable[..., str], *arguments: Any, **options: Any) -> Any:
        from markupsafe import Markup

        return Markup(draw(*arguments, mark=self._mark, **options))

    def _value_or_none(self, place: str) -> Any:
        try:
            return self._value(place)
        except (KeyError, TypeError, ValueError):
            return None

    def sizes(self) -> Any:
        """Sizes of artifacts, in MB."""
        return self._plot("Size, MB", "/bytes", lambda value: value / 1e6, as_bars=True)

    def cosines(self) -> Any:
        """How far the worst image is from TF-Slim's network."""
        return self._plot(
            "1 - cosine",
            "/main/cosine",
            lambda value: 1 - value,
            is_log=True,
            least=_LEAST,
        )

    def latencies(self) -> Any:
        """How long one image takes."""
        return self._plot(
            "Latency",
            "/measurement/latency/median",
            lambda value: 1000 * value,
            as_bars=True,
        )

    def top_1(self) -> Any:
        """How often artifacts are right."""
        return self._plot(
            "Top-1", "/score/top_1", lambda value: 100 * value, as_percent=True
        )

    def largest_errors(self) -> Any:
        """Largest error of a number."""
        return self._plot(
            "Largest error", "/measurement/shares/100%", is_log=True, least=_LEAST
        )

    def depth(self, number: int) -> Any:
        """Error through the depth of an artifact."""
        artifact = self._facts["artifacts"][number]
        points = artifact["measurement"]["depth"]["points"]
        place = f"/artifacts/{number}/measurement/depth/points"
        accumulated, own = (
            Series(
                name, [point[kind]["error"] for point in points], [f"{place}/{kind}"]
            )
            for kind, name in (("accumulated", "accumulated"), ("own", "its own"))
        )
        return self._drawn(
            figures.depth,
            f"Error through the depth of {artifact['label']}",
            [point["title"] for point in points],
            accumulated,
            own,
            self._limits(),
        )

    def _limits(self) -> tuple[float, float]:
        """The errors through the depth that are drawn, the same for all artifacts."""
        errors = [
            point[kind]["error"]
            for artifact in self._facts["artifacts"]
            if artifact["measurement"] and artifact["measurement"]["depth"]
            for point in artifact["measurement"]["depth"]["points"]
            for kind in ("accumulated", "own")
        ]
        errors = [error for error in errors if error is not None]
        largest = max(errors, default=0.0) or 1.0
        drawn = [error for error in errors if error >= _DRAWN * largest]
        return min(drawn, default=largest), largest

    def scatter(self, number: int) -> Any:
        """Numbers of an artifact against TF-Slim's."""
        artifact = self._facts["artifacts"][number]
        return self._drawn(
            figures.scatter,
            f"{artifact['label']} against TF-Slim's network",
            artifact["measurement"]["sample"],
            f"/artifacts/{number}/measurement/sample",
        )

    def histogram(self, number: int) -> Any:
        """How often numbers of an artifact are how far off."""
        artifact = self._facts["artifacts"][number]
        return self._drawn(
            figures.histogram,
            f"Errors of {artifact['label']}",
            artifact["measurement"]["counts"],
            artifact["measurement"]["edges"],
            f"/artifacts/{number}/measurement/counts",
        )

    # Tables

    def tables(self) -> dict[str, Any]:
        """What the template goes through, by number of artifact."""
        artifacts = self._facts["artifacts"]
        measured = [n for n, found in enumerate(artifacts) if found["measurement"]]
        return {
            "measured": measured,
            "with_latency": any(
                artifacts[n]["measurement"]["latency"] for n in measured
            ),
            "with_score": any(found["score"] for found in artifacts),
            "with_depth": [n for n in measured if artifacts[n]["measurement"]["depth"]],
            "drawn": [n for n in measured if _is_worth_drawing(artifacts[n])],
            "hurt": {n: self._hurt(n) for n in measured},
            "worst": {n: self._worst(n) for n in measured},
            "rankings": [
                list(self._rankings(image))
                for image in range(len(self._facts["images"]))
            ],
        }

    def _hurt(self, number: int) -> list[int]:
        """The points of an artifact that add most error by themselves."""
        depth = self._facts["artifacts"][number]["measurement"]["depth"]
        points = depth["points"] if depth else []
        order = sorted(range(len(points)), key=lambda n: -_error(points[n]["own"]))
        return order[:_MOST_HURT]

    def _worst(self, number: int) -> int:
        """The image with the smallest cosine."""
        images = self._facts["artifacts"][number]["measurement"]["images"]
        return min(range(len(images)), key=lambda n: images[n]["cosine"])

    def _rankings(
        self, image: int
    ) -> Iterator[tuple[str, str, list[dict[str, Any]], list[str]]]:
        """What is named first for an image, once for all artifacts that name the same.

        Yields:
          Size of the image, place of what is named, what is named, and by whom.
        """
        groups: dict[tuple, tuple[str, str, list[Any], list[str]]] = {}
        named = "TF-Slim's network"
        tops = self._facts["images"][image]["top"]
        for size, top in tops.items():
            if top:
                key = (size, *(found["number"] for found in top))
                place = f"/images/{image}/top/{size}"
                groups[key] = (size, place, top, [named])
        for number, artifact in enumerate(self._facts["artifacts"]):
            measured = artifact["measurement"]
            if not measured or not measured["images"][image]["top"]:
                continue
            top = measured["images"][image]["top"]
            height, width = measured["size"]
            size = f"{height} x {width}"
            key = (size, *(found["number"] for found in top))
            place = f"/artifacts/{number}/measurement/images/{image}/top"
            groups.setdefault(key, (size, place, top, []))[3].append(artifact["label"])
        for size, place, top, by in groups.values():
            everybody = 1 + sum(
                bool(found["measurement"])
                and " x ".join(map(str, found["measurement"]["size"])) == size
                and bool(found["measurement"]["images"][image]["top"])
                for found in self._facts["artifacts"]
            )
            if len(by) == everybody > 2:
                by = [named, f"all {everybody - 1} classifiers"]
            yield size, place, top, by


def _error(deviation: Mapping[str, float | None]) -> float:
    """The error; infinite where it is not finite, for which JSON has no number."""
    error = deviation["error"]
    return math.inf if error is None else error


def _is_worth_drawing(artifact: Mapping[str, Any]) -> bool:
    """Whether its errors are more than the rounding of float32, or more than allowed."""
    shares: Mapping[str, float] = artifact["measurement"]["shares"]
    return not artifact["passed"] or shares["100%"] > 1e-4

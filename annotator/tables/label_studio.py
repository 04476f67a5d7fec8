"""Files of Label Studio: its exports (JSON, JSON_MIN, CSV), tasks with predictions, configurations.

The formats are those of its documentation (labelstud.io/guide: "Label Studio JSON format of
annotated tasks", "Export annotations", "Import pre-annotated data"; labelstud.io/tags).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

from annotator.concept_ids import concept_id
from annotator.errors import FormatError
from annotator.ids import image_extension
from annotator.tables.sheet import Sheet
from annotator.tables.table import read_bytes

CONTROL = "concepts"  # name of the choices in our configuration
IMAGE, IMAGE_ID = "image", "image_id"  # in the data of our tasks

# Of JSON_MIN and CSV, beside the task's data and the answers.
_OWN = {
    "id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time", "agreement",
}  # fmt: skip
_CSV = {"annotation_id", "annotator", "lead_time"}
_CALLED_IMAGE = re.compile(r"(?:image|img|picture|photo|scan|dicom|file|path|url)s?", re.IGNORECASE)
_CALLED_LABELS = re.compile(
    r".*(?:choice|label|concept|tag|class|finding|diagnos|patholog|taxonomy).*", re.IGNORECASE
)
_UPLOAD = re.compile(r"(?:.*/)?upload/(?:[0-9]+/)?(?:[0-9a-f]{8}-)?([^/]+)")
_MOST_CHOICES = 30  # that are shown side by side


class Answer(NamedTuple):
    """What somebody answered to a task.

    Attributes:
        image: Path or name of the image.
        labels: What was chosen.
        rank: The higher counts, of several answers for an image.
    """

    image: str
    labels: tuple[str, ...]
    rank: tuple[bool, str]


@dataclass(frozen=True)
class Export:
    """An export.

    Attributes:
        labels: Labels by image, in file order.
        kind: "JSON", "JSON_MIN" or "CSV".
        notes: What is to be said of it.
    """

    labels: Mapping[str, tuple[str, ...]]
    kind: str
    notes: tuple[str, ...]


def read_export(path: Path | str, controls: Sequence[str] = ()) -> Export | None:
    """Read a JSON or JSON_MIN export; None for any other file.

    Of a task that has several annotations the ground truth counts, or else the newest. Tasks that
    were skipped, and those that nobody has annotated, are left out.

    Args:
        path: The file.
        controls: Names of the control tags whose answers are labels; none for all those that have
            choices, taxonomies or labels of regions.

    Raises:
        FormatError: It is such an export, and damaged, or it is not certain what the labels are.
    """
    path = Path(path)
    data = read_bytes(path).lstrip(b"\xef\xbb\xbf \t\r\n")
    if not data.startswith((b"[", b"{")):
        return None
    try:
        tasks = json.loads(data)
    except ValueError:
        return None
    tasks = tasks if isinstance(tasks, list) else [tasks]
    if not tasks or not all(isinstance(task, dict) for task in tasks):
        return None
    if all(isinstance(task.get("data"), dict) for task in tasks):
        answers, notes = _of_tasks(path, tasks, controls)
        return _export(path, answers, "JSON", notes)
    if all("annotation_id" in task and "annotator" in task for task in tasks):
        answers, notes = _of_records(path, tasks, controls)
        return _export(path, answers, "JSON_MIN", notes)
    return None


def export_of_sheet(sheet: Sheet, controls: Sequence[str] = ()) -> Export | None:
    """The CSV export in a table; None for any other table. As `read_export`."""
    header = sheet.records[0].cells
    if not set(header) >= _CSV:
        return None
    records = [
        {name: _parsed(row.cell(j)) for j, name in enumerate(header) if row.cell(j)}
        for row in sheet.records[1:]
    ]
    answers, notes = _of_records(sheet.path, records, controls)
    return _export(sheet.path, answers, "CSV", notes)


def _export(path: Path, answers: Iterable[Answer], kind: str, notes: list[str]) -> Export:
    best: dict[str, Answer] = {}
    several = set()
    for answer in answers:
        before = best.setdefault(answer.image, answer)
        if before is not answer:
            several.add(answer.image)
            if answer.rank >= before.rank:
                best[answer.image] = answer
    if not best:
        raise FormatError(f"{path} has no annotations", "Annotate some tasks, then export them.")
    if several:
        notes.append(f"{len(several):,} images have several annotations, of which one counts")
    return Export({image: one.labels for image, one in best.items()}, kind, tuple(notes))


def _of_tasks(
    path: Path, tasks: Sequence[Mapping[str, Any]], controls: Sequence[str]
) -> tuple[list[Answer], list[str]]:
    """The answers in the tasks of a JSON export, and notes."""
    answers: list[Answer] = []
    left_out = 0
    found: set[str] = set()
    for number, task in enumerate(tasks, 1):
        done = [
            one
            for one in task.get("annotations", ())
            if isinstance(one, dict) and not one.get("was_cancelled")
        ]
        left_out += not done
        for one in done:
            results = [r for r in one.get("result") or () if isinstance(r, dict)]
            found.update(str(result.get("from_name")) for result in results)
            labels = [
                label
                for result in results
                if not controls or result.get("from_name") in controls
                for label in _chosen(result.get("value")) or ()
            ]
            when = str(one.get("updated_at") or one.get("created_at") or "")
            rank = (bool(one.get("ground_truth")), when)
            image = _image_of(path, number, task["data"])
            answers.append(Answer(image, tuple(dict.fromkeys(labels)), rank))
    _check_controls(path, controls, found)
    return answers, _without_annotation(left_out)


def _of_records(
    path: Path, records: Sequence[Mapping[str, Any]], controls: Sequence[str]
) -> tuple[list[Answer], list[str]]:
    """The answers in the records of JSON_MIN, or of CSV, and notes."""
    answers: list[Answer] = []
    left_out = 0
    fields = {name: None for record in records for name in record if name not in _OWN}
    _check_controls(path, controls, fields)
    controls = controls or _label_fields(path, records, list(fields))
    for number, record in enumerate(records, 1):
        if not record.get("annotation_id"):
            left_out += 1
            continue
        data = {name: value for name, value in record.items() if name not in (*controls, *_OWN)}
        labels: list[str] = []
        for name in controls:
            value = record.get(name)
            labels += [value] if isinstance(value, str) else _chosen(value) or ()
        when = str(record.get("updated_at") or record.get("created_at") or "")
        image = _image_of(path, number, data)
        answers.append(Answer(image, tuple(dict.fromkeys(labels)), (False, when)))
    return answers, _without_annotation(left_out)


def _without_annotation(tasks: int) -> list[str]:
    return [f"{tasks:,} tasks without an annotation are left out"] if tasks else []


def _check_controls(path: Path, controls: Sequence[str], found: Iterable[str]) -> None:
    for name in controls:
        if name not in set(found):
            listed = ", ".join(sorted(found))
            raise FormatError(f"{path} has no answers called {name!r}", f"It has: {listed}.")


def _label_fields(
    path: Path, records: Sequence[Mapping[str, Any]], fields: Sequence[str]
) -> list[str]:
    """The fields of labels: those with choices; else the only one, or the one called so, of text.

    A single choice is a text, as the data of a task are.
    """

    def values(name: str) -> list[Any]:
        return [record[name] for record in records if name in record]

    sure = [name for name in fields if any(map(_chosen, values(name)))]
    if sure:
        return sure
    texts = [
        name
        for name in fields
        if not (_CALLED_IMAGE.fullmatch(name) or name == IMAGE_ID)
        and all(isinstance(v, str) and not image_extension(v) for v in values(name))
    ]
    called = [name for name in texts if _CALLED_LABELS.fullmatch(name)]
    if len(chosen := texts if len(texts) == 1 else called) == 1:
        return chosen
    listed = ", ".join(map(repr, called or texts or fields))
    raise FormatError(
        f"{path} has no field that is one of labels for certain: {listed}",
        "Name the control tag of the labels: --label-column NAME.",
    )


def _chosen(value: object) -> list[str] | None:
    """The labels in an answer: choices, the last of each path in a taxonomy, labels of regions.

    None for another kind of answer.
    """
    if isinstance(value, list):
        each = [_chosen(one) for one in value if isinstance(one, dict)]
        labels = [label for some in each for label in some or ()]
        texts = [one for one in value if isinstance(one, str)]
        return [*texts, *labels] if texts or any(some is not None for some in each) else None
    if not isinstance(value, dict):
        return None
    found: list[str] | None = None
    for kind, chosen in value.items():
        if not isinstance(chosen, list):
            continue
        if kind == "taxonomy":
            leaves = [path[-1] for path in chosen if isinstance(path, list) and path]
            found = [*(found or ()), *map(str, leaves)]
        elif kind == "choices" or kind.endswith("labels"):
            found = [*(found or ()), *map(str, chosen)]
    return found


def _parsed(cell: str) -> Any:
    """A cell of a CSV export: JSON where it is a list or an object."""
    if cell.startswith(("{", "[")):
        try:
            return json.loads(cell)
        except ValueError:
            return cell
    return cell


def _image_of(path: Path, number: int, data: Mapping[str, Any]) -> str:
    """The id, path or name of the image in the data of a task."""
    if isinstance(own := data.get(IMAGE_ID), str) and own:
        return own
    texts = {name: value for name, value in data.items() if isinstance(value, str) and value}
    called = [value for name, value in texts.items() if _CALLED_IMAGE.fullmatch(name)]
    named = [value for value in texts.values() if image_extension(_plain(value))]
    for value in (*called, *named):
        if plain := _plain(value):
            return plain
    raise FormatError(
        f"{path}, task {number}: its data name no image",
        "Call the image `image` in the data of the tasks, or give its id as `image_id`.",
    )


def _plain(address: str) -> str:
    """The path in the address of an image, as tasks have it."""
    parts = urlsplit(address)
    query = parse_qs(parts.query)
    stored = query.get("filepath", [unquote(parts.path)])[0]
    if upload := _UPLOAD.fullmatch(stored):
        return upload[1]
    if parts.path.endswith("/data/local-files/") and (file := query.get("d")):
        return file[0]
    if parts.scheme in ("http", "https", "s3", "gs", "azure-blob", "file") or parts.query:
        return unquote(parts.path).lstrip("/")
    return address


# Tasks and configurations


class Shown(NamedTuple):
    """A concept as it is shown to who annotates: its id, its name or "", and its share of votes."""

    concept: str
    name: str
    score: float


def task(
    image_id: str,
    address: str,
    concepts: Sequence[Shown],
    *,
    score: float,
    model: str,
    usable: bool = True,
) -> dict[str, Any]:
    """A task with a prediction, for `configuration`.

    Args:
        image_id: Of the image.
        address: Of the image, for the browser.
        concepts: Chosen for it.
        score: Of the prediction: the expected F1, by which Label Studio can order its tasks.
        model: Name and version of the index.
        usable: Whether the image could be used; else the task has no prediction.
    """
    listed = "; ".join(f"{one.name or one.concept} {one.score:.2f}" for one in concepts)
    made = prediction([one.concept for one in concepts], score=score, model=model)
    return {
        "data": {IMAGE: address, IMAGE_ID: image_id, "scores": listed or "-"},
        "predictions": [made] if usable else [],
    }


def prediction(
    choices: Sequence[str],
    *,
    score: float,
    model: str,
    control: str = CONTROL,
    image: str = IMAGE,
) -> dict[str, Any]:
    """A prediction of a task.

    Args:
        choices: Chosen ones, by their alias, or else their value.
        score: As for `task`.
        model: Likewise.
        control: Name of the choices in the configuration.
        image: Name of the image in it.
    """
    result = {
        "id": control,
        "from_name": control,
        "to_name": image,
        "type": "choices",
        "value": {"choices": list(choices)},
    }
    return {"model_version": model, "score": score, "result": [result] if choices else []}


class Offer(NamedTuple):
    """What a labelling configuration offers.

    Attributes:
        control: Name of its choices.
        image: Name of the image that they are of.
        field: Name of the image's address in the data of a task.
        choices: Alias (or "") and value of each choice.
        several: Whether several can be chosen.
    """

    control: str
    image: str
    field: str
    choices: tuple[tuple[str, str], ...]
    several: bool

    @property
    def words(self) -> dict[str, str]:
        """The values of choices without an alias, by their local ids."""
        return {concept_id(value): value for alias, value in self.choices if not alias}

    def by_concept(self, named: Mapping[str, Sequence[str]]) -> dict[str, str]:
        """What stands for each concept in an answer: the alias of its choice, or else the value.

        Args:
            named: The concept of `words`, where they are a name of just one.
        """
        found: dict[str, str] = {}
        for alias, value in self.choices:
            id_ = concept_id(alias or value)
            found.setdefault(id_ if alias else named.get(id_, (id_,))[0], alias or value)
        return found


def read_configuration(text: str) -> Offer:
    """Read what a labelling configuration offers: our own, or any with choices of an image.

    Of several such choices those called as ours count, or else the first.

    Raises:
        FormatError: It is no such configuration.
    """
    hint = "annotator concepts label-studio prints one."
    if "<!DOCTYPE" in text or "<!ENTITY" in text:  # which may inflate to anything
        raise FormatError("the labelling configuration defines entities", hint)
    try:
        tags = list(ElementTree.fromstring(text).iter())
    except ElementTree.ParseError as error:
        raise FormatError(f"the labelling configuration is no XML: {error}", hint) from None
    images = {
        tag.attrib.get("name", ""): tag.attrib.get("value", "")
        for tag in tags
        if tag.tag == "Image"
    }
    controls = [
        tag for tag in tags if tag.tag == "Choices" and tag.attrib.get("toName", "") in images
    ]
    if not controls:
        raise FormatError("the labelling configuration has no choices of an image", hint)
    ours = (tag for tag in controls if tag.attrib.get("name") == CONTROL)
    control = next(ours, controls[0])
    image = control.attrib["toName"]
    choices = [
        (tag.attrib.get("alias", "").strip(), tag.attrib.get("value", "").strip())
        for tag in control.iter("Choice")
    ]
    if not all(any(map(str.isprintable, alias or value)) for alias, value in choices):
        raise FormatError("the labelling configuration has a choice without a value", hint)
    return Offer(
        control.attrib.get("name", ""),
        image,
        images[image].removeprefix("$"),
        tuple(choices),
        control.attrib.get("choice") == "multiple",
    )


def answer_of(task: Mapping[str, Any], annotation: Mapping[str, Any]) -> Answer | None:
    """What an annotation of a task says; None for a skipped task.

    Raises:
        FormatError: The data of the task name no image, or it is none.
    """
    data, result = task.get("data"), annotation.get("result") or []
    if not (isinstance(data, dict) and isinstance(result, list)):
        raise FormatError("this is no annotation of a task", "Send what Label Studio exports.")
    whole = {"data": data, "annotations": [annotation]}
    answers, _ = _of_tasks(Path("Label Studio"), [whole], ())
    return answers[0] if answers else None


def address_of(prefix: str, path: str) -> str:
    """The address of an image for the browser: a prefix, and its path percent-encoded."""
    return prefix + quote(path, safe="/")


def configuration(concepts: Sequence[tuple[str, str]], *, with_scores: bool = True) -> str:
    """The labelling configuration with these concepts: pairs of id and name, or "".

    People choose names, and exports have ids (the alias of each choice).

    Args:
        concepts: The concepts.
        with_scores: Whether the scores of a `task` are shown. Label Studio takes no upload of an
            image where the configuration wants more of a task than the image.
    """
    scores = '  <Text name="scores" value="$scores"/>\n' if with_scores else ""
    times: dict[str, int] = {}
    for concept, name in concepts:
        times[name or concept] = times.get(name or concept, 0) + 1
    choices = []
    for concept, name in concepts:
        shown = name or concept
        if times[shown] > 1:
            shown = f"{shown} ({concept})"
        choices.append(f"    <Choice value={quoteattr(shown)} alias={quoteattr(concept)}/>\n")
    layout = ' layout="select"' if len(concepts) > _MOST_CHOICES else ' showInLine="true"'
    return (
        "<View>\n"
        f'  <Image name="{IMAGE}" value="${IMAGE}" zoom="true" zoomControl="true"/>\n'
        f"{scores}"
        f'  <Choices name="{CONTROL}" toName="{IMAGE}" choice="multiple"{layout}>\n'
        f"{''.join(choices)}"
        "  </Choices>\n"
        "</View>\n"
    )

"""Which column of a table holds what: its header, the ids of images, and their labels.

A column is told by its name and by what is in it. Where neither settles it, the table is refused
with the option that does.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from annotator.concept_ids import is_cui
from annotator.errors import FormatError
from annotator.ids import image_extension
from annotator.tables.cells import MISSING, NO, UNSURE, YES, cuis_in, kind_of
from annotator.tables.sheet import Sheet
from annotator.tables.table import Record, holds_cui

_SHOWN = 5
COLUMN_HINT = "Name the column of labels: --label-column {}."

# Names of columns, in lower case, with single spaces for `_`, `-` and `.`.
_PICTURE = r"(?:image|img|dicom|dcm|picture|photo|figure|scan|slice|sop ?instance|radiograph)s?"
_FILE = r"(?:file|path)s?"
_ID_NAMES = [  # the earlier, the surer
    re.compile(rf"{_PICTURE}(?: ?(?:ids?|u?ids?|names?|paths?|files?|file ?names?|index|key))?"),
    re.compile(r"u?ids?(?: ?(?:code|number|no|nr|key))?"),
    re.compile(rf"{_FILE}(?: ?(?:ids?|names?|paths?))?"),
    re.compile(r"(?:base)?names?|keys?"),
    re.compile(r"(?:.* |patient|study|series|subject|case|exam|accession|sample)u?ids?"),
]
_LABEL_NAME = re.compile(
    r"(?:.* )?(?:cuis?|concepts?|labels?|findings?|tags?|classes|class(?: ?names?)?"
    r"|categor(?:y|ies)|diagnos[ie]s|patholog(?:y|ies)|diseases?|keywords?|annotations?|targets?|terms?|impressions?"
    r"|befunde?|diagnosen?)(?: (?:cuis?|names?|labels?|list|s))?"
)
_SINGULAR = re.compile(
    r"(?:.* )?(?:cui|concept|label|finding|tag|class(?: ?name)?|category|target"
    r"|diagnosis|pathology|disease|keyword|annotation|term|befund|diagnose)"
)
_TEXT_NAME = re.compile(
    r".*(?:caption|text|report|description|sentence|comments?|notes?|remarks?|history|url|link)"
)
# What is said of an image, but is no label of what it shows.
_OTHER_NAME = re.compile(
    r"(?:split|side|set|subset|fold|partition|train|test|val|valid|validation|is .*"
    r"|age|sex|gender|weight|height|width|rows|columns|date|time|year|source|dataset|site|hospital"
    r"|centre|center|scanner|manufacturer|reader|rater|patient|study|series|subject|view|position"
    r"|view ?position|frontal/lateral|ap/pa|projection|follow up.*|confidence|score|probability"
    r"|unnamed: ?\d+|index|row|no|nr|number|#|count|md5|sha256|hash)|(?:patient|study|series|image)"
    r" .*|.* (?:age|sex|gender|date|time|count|url)"
)
_PERSON = re.compile(r"patient|study|series|subject|unnamed|index|no$|nr$|number|#")
_INDEX_NAME = re.compile(r"|unnamed: ?\d+|index|row|no|nr|number|#")
_NAME_OF_CUI = re.compile(r"(?:.* )?(?:names?|terms?|preferred .*|str)")


class Layout:
    """The columns of a labelled table.

    Args:
        sheet: The table.
        chosen: Names of the columns of labels; none if they are to be found.

    Attributes:
        sheet: The table.
        header: Names of the columns; None without a header.
        rows: The rows, one or more, without the header.
        width: Number of columns.
        kinds: What each column holds; see `annotator.tables.cells.kind_of`.
        id_column: Position of the column of ids.
        columns: Positions of those of labels.

    Raises:
        FormatError: It is not certain which column holds what.
    """

    def __init__(self, sheet: Sheet, chosen: Sequence[str] = ()) -> None:
        self.sheet, self._chosen = sheet, chosen
        self.rows = list(sheet.records)
        self.header = self._header()
        if self.header is not None:
            # Files that were joined have the header of each.
            self.rows = [row for row in self.rows if tuple(row.cells) != self.header]
            if not self.rows:
                raise FormatError(
                    f"{sheet.path} has a header and no rows", "Give one row for each image."
                )
        self._join_the_rest()
        self.width = max(len(self.header or ()), *(len(cells) for _, cells in self.rows))
        self.kinds = [kind_of(self.counts(column)) for column in range(self.width)]
        self.id_column, self.columns = self._columns()

    def name(self, column: int) -> str:
        """The name of a column; "" if it has none."""
        header = self.header or ()
        return header[column] if column < len(header) else ""

    def plain_name(self, column: int) -> str:
        """The name as the patterns of this module have it."""
        return _plain(self.name(column))

    def is_singular(self, column: int) -> bool:
        """Whether a column is named as that of one label, such as `Finding`."""
        return _SINGULAR.fullmatch(self.plain_name(column)) is not None

    def called(self, columns: Sequence[int]) -> str:
        """How columns are called in a message."""
        names = [self.name(column) for column in columns]
        if len(columns) > _SHOWN:
            return f"{len(columns)} columns"
        if not all(names):
            return f"column {columns[0] + 1}"
        return f"column{'s' * (len(columns) > 1)} {', '.join(names)}"

    def counts(self, column: int) -> Counter[str]:
        """Cells of a column in lower case, and how often each occurs."""
        return Counter(row.cell(column).lower() for row in self.rows)

    def unread(self) -> list[str]:
        """Names of the columns that are neither of ids nor of labels, and no count of rows."""
        if self.header is None:
            return []
        return [
            self.name(j)
            for j in range(self.width)
            if j not in (self.id_column, *self.columns)
            and self.kinds[j] != "nothing"
            and not (_INDEX_NAME.fullmatch(self.plain_name(j)) and self._counts_up(j))
        ]

    def flags(self) -> list[int]:
        """Columns of yes and no that may say whether the label of a row holds."""
        return [
            j
            for j in range(self.width)
            if self.kinds[j] == "binary"
            and j not in (self.id_column, *self.columns)
            and not _OTHER_NAME.fullmatch(self.plain_name(j))
        ]

    # The header

    def _header(self) -> tuple[str, ...] | None:
        """The cells of the first row if it is a header; None if it is an image."""
        (line, first), rest = self.rows[0], self.rows[1:]
        if self._chosen or self._is_header(first, rest):
            return tuple(first)
        if any(map(holds_cui, first)) or self._is_image(first, rest):
            return None
        raise self.sheet.error(
            line,
            "a header or an image? Neither the names of columns nor an id like the others",
            "Give a header such as `ID,Labels`, or name the column of labels: --label-column NAME.",
        )

    def _is_header(self, first: Sequence[str], rest: Sequence[Record]) -> bool:
        names = [_plain(cell) for cell in first]
        for column, name in enumerate(names):
            below = Counter(row.cell(column).lower() for row in rest)
            kind = kind_of(below)
            is_kind = kind_of(Counter([name])) == kind
            may_be_id = column == 0 and not any(_is_id_name(other) for other in names[1:])
            if name and not may_be_id and kind in ("binary", "numbers") and not is_kind:
                return True
            if name and kind == "cuis" and column and not any(map(str.isdigit, name)):
                return not any(map(holds_cui, first))
        if any(map(holds_cui, first)):
            return False
        if any(_is_id_name(name) for name in names):
            return True
        no_id = not any(map(str.isdigit, first[0]))
        return no_id and any(_LABEL_NAME.fullmatch(name) for name in names)

    def _is_image(self, first: Sequence[str], rest: Sequence[Record]) -> bool:
        """Whether the first row looks as the others do."""
        id_, others = first[0], [cells[0] for _, cells in rest if cells[0]]
        if image_extension(id_):
            return any(image_extension(other) for other in others) or not others
        shapes = Counter(map(_shape, others))
        if any(map(str.isdigit, id_)) and 2 * shapes[_shape(id_)] >= len(others):
            return True
        known = {cell.lower() for _, cells in rest for cell in cells[1:] if cell}
        return bool(first[1:]) and all(cell.lower() in known for cell in first[1:] if cell)

    def _join_the_rest(self) -> None:
        """Join what a row has beyond its columns, where these can only be labels."""
        width = len(self.header) if self.header is not None else 2
        for i, (line, cells) in enumerate(self.rows):
            if len(cells) <= width:
                continue
            if width > 2 or width == 1:
                raise self.sheet.error(
                    line,
                    f"{len(cells)} cells under {width} names of columns",
                    f"Put cells that hold {self.sheet.separator!r} in quotes."
                    if self.sheet.separator
                    else "Name each column.",
                )
            if self.header is None and not self._may_be_joined():
                raise self.sheet.error(
                    self.rows[0].line,
                    f"{len(self.rows[0].cells)} columns and no header",
                    "Give a header, such as `ID,Labels,Age`.",
                )
            rest = (self.sheet.separator or ";").join(cells[1:])
            self.rows[i] = Record(line, [cells[0], rest])

    def _may_be_joined(self) -> bool:
        """Whether the columns after the first, without a header, are those of one list."""
        widths = {len(cells) for _, cells in self.rows}
        cells = [cell for _, row in self.rows for cell in row[1:] if cell]
        return len(widths) > 1 or all(cuis_in(cell) for cell in cells)

    # The columns

    def _columns(self) -> tuple[int, list[int]]:
        """The column of ids, and those of labels."""
        if self.header is None:
            return self._columns_without_header()
        names = [_plain(name) for name in self.header]
        names += [""] * (self.width - len(names))
        if len([n for n in names if n]) == 2 and self._is_table_of_names(names):
            raise FormatError(
                f"{self.sheet.path} is a table of names of concepts, not of labels of images",
                "Give it with --names.",
            )
        if self._chosen:
            columns = [self._named(name) for name in self._chosen]
            return self._id_column(names, columns), columns
        columns = self._label_columns(names)
        return self._id_column(names, columns), columns

    def _columns_without_header(self) -> tuple[int, list[int]]:
        if self.width == 1:
            raise FormatError(
                f"{self.sheet.path} has no column of labels",
                "Separate id and labels by a tab, `|`, comma or semicolon.",
            )
        if self.kinds[0] == "cuis":
            raise FormatError(
                f"{self.sheet.path} has CUIs in its first column",
                "Give a header, such as `CUIs,ID`.",
            )
        if self.kinds[1] == "binary":
            raise self.sheet.error(
                self.rows[0].line,
                "a column of yes and no without a name",
                "Give a header with the name of each label.",
            )
        return 0, [1]

    def _is_table_of_names(self, names: Sequence[str]) -> bool:
        cuis = [j for j, kind in enumerate(self.kinds) if kind == "cuis"]
        if len(cuis) != 1 or not re.fullmatch(r"(?:.* )?(?:cui|concept)", names[cuis[0]]):
            return False
        other = next(name for j, name in enumerate(names) if j != cuis[0])
        cells = [row.cell(cuis[0]) for row in self.rows]
        return _NAME_OF_CUI.fullmatch(other) is not None and all(map(is_cui, filter(None, cells)))

    def _named(self, name: str) -> int:
        """The column of a name."""
        header = [cell.casefold() for cell in self.header or ()]
        found = [j for j, cell in enumerate(header) if cell == name.strip().casefold()]
        if len(found) != 1:
            listed = ", ".join(filter(None, self.header or ()))
            many = "no column" if not found else f"{len(found)} columns"
            raise FormatError(f"{self.sheet.path} has {many} {name!r}", f"Its columns: {listed}.")
        return found[0]

    def _label_columns(self, names: Sequence[str]) -> list[int]:
        """The columns of labels by what is in them, then by their names."""
        columns = [
            j for j in range(self.width) if self.kinds[j] != "nothing" and not _is_id_name(names[j])
        ]
        called = [j for j in columns if names[j] and _LABEL_NAME.fullmatch(names[j])]
        cuis = [j for j in columns if self.kinds[j] == "cuis"]
        if cuis:
            of_both = [j for j in cuis if j in called]
            return self._only(cuis if len(cuis) == 1 else of_both, cuis)
        listed = [j for j in called if self.kinds[j] == "texts" and not _is_text(names[j])]
        if listed:
            return self._only(listed, listed)
        rest = [j for j in columns if not _OTHER_NAME.fullmatch(names[j]) and names[j]]
        binary = [j for j in rest if self.kinds[j] == "binary"]
        if binary:
            self._check_binary(binary, rest, names)
            return binary
        if numbers := [j for j in called if self.kinds[j] == "numbers"]:
            return self._only(numbers, numbers)  # to be refused as such
        texts = [j for j in rest if self.kinds[j] == "texts" and not _is_text(names[j])]
        if len(texts) > 1 and not any(map(_is_id_name, names)):
            texts = texts[1:]  # the first is the id
        return self._only(texts, columns)

    def _only(self, found: Sequence[int], columns: Sequence[int]) -> list[int]:
        if len(found) == 1:
            return list(found)
        listed = ", ".join(repr(self.name(j)) for j in (found or columns)[:8])
        if found:
            message = f"{self.sheet.path} has several columns that may be of labels: {listed}"
        elif not columns:
            message = f"{self.sheet.path} has no column of labels with anything in it"
        else:
            message = f"{self.sheet.path} has no column that is one of labels for certain: {listed}"
        raise FormatError(message, COLUMN_HINT.format("NAME"))

    def _check_binary(
        self, binary: Sequence[int], rest: Sequence[int], names: Sequence[str]
    ) -> None:
        """Refuse columns that are labels, or numbers, in most of their cells alone."""
        for column in binary:
            if _LABEL_NAME.fullmatch(names[column]) and not re.search(" ", names[column]):
                raise FormatError(
                    f"{self.sheet.path} has yes and no, or 1 and 0, in its column "
                    f"{self.name(column)!r}",
                    "Call the column as the label that is there or not, such as `Pneumonia`.",
                )
        for column in rest:
            if column in binary:
                continue
            for line, cells in self.rows:
                cell = Record(line, cells).cell(column).lower()
                if cell not in YES | NO | UNSURE | MISSING and self._is_nearly_binary(column):
                    raise self.sheet.error(
                        line,
                        f"{cell!r} in the column {self.name(column)!r} of yes and no",
                        "Write 1 where the label is there, and 0 where it is not.",
                    )

    def _is_nearly_binary(self, column: int) -> bool:
        counts = self.counts(column)
        filled = sum(n for cell, n in counts.items() if cell not in MISSING)
        return 2 * sum(counts[cell] for cell in YES | NO | UNSURE) > filled

    def _id_column(self, names: Sequence[str], labels: Sequence[int]) -> int:
        """The column of ids by its name; else the first that may be one."""
        others = [j for j in range(self.width) if j not in labels and self.kinds[j] != "nothing"]
        if not others:
            raise FormatError(
                f"{self.sheet.path} has no column of ids beside that of labels",
                "Give a column with the id or file name of each image.",
            )
        indices = [j for j in others if _INDEX_NAME.fullmatch(names[j]) and self._counts_up(j)]
        for pattern in _ID_NAMES:
            if named := [j for j in others if pattern.fullmatch(names[j])]:
                counting = named if len(named) == 1 else [j for j in named if self._counts_up(j)]
                better = [j for j in named if j not in counting]
                if better or not self._is_second_to_files(named[0], others, names):
                    return (better or named)[0]
        left = [j for j in others if j not in indices and self.kinds[j] != "binary"] or others
        left = [j for j in left if not _OTHER_NAME.fullmatch(names[j]) or _PERSON.match(names[j])]
        kind = self.kinds[left[0]] if left else "nothing"
        if kind in ("nothing", "cuis") or (kind == "binary" and len(others) > 1):
            raise FormatError(f"{self.sheet.path} has no column of ids", "Call it `ID`.")
        return left[0]

    def _is_second_to_files(self, column: int, others: Sequence[int], names: Sequence[str]) -> bool:
        """Whether a column numbers the rows, while another has the names of files."""
        files = [j for j in others if j != column and _ID_NAMES[2].fullmatch(names[j])]
        return bool(files) and self._counts_up(column)

    def _counts_up(self, column: int) -> bool:
        cells = [row.cell(column) for row in self.rows]
        if not all(cell.isdecimal() and len(cell) < 12 for cell in cells):
            return False
        start = int(cells[0])
        return start in (0, 1) and [int(c) for c in cells] == [*range(start, start + len(cells))]


def _plain(name: str) -> str:
    """The name of a column as the patterns have it."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|[_.\s-]+", " ", name)  # `PatientSex`, `patient_sex`
    return " ".join(words.split()).casefold()


def _is_id_name(name: str) -> bool:
    return any(pattern.fullmatch(name) for pattern in _ID_NAMES)


def _is_text(name: str) -> bool:
    return _TEXT_NAME.fullmatch(name) is not None


def _shape(id_: str) -> str:
    """An id less what differs between ids: runs of letters are a, of digits 0."""
    return re.sub(r"[^\W\d_]+", "a", re.sub(r"\d+", "0", id_))

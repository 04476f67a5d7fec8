"""What a collection takes: nodes, memory, hours, each by a formula of figures and earlier rows."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from benchmarks.scale.figures import Figure
from index.search.build import choose_kind

Unit = Literal["seconds", "bytes", "count", "rate", "nodes", "speed"]
DAY = 86_400


@dataclass(frozen=True)
class Row:
    """One line of the plan.

    Attributes:
        name: In formulas of later rows.
        what: It is.
        formula: Of figures, earlier rows and n, the number of images.
        unit: Of the result.
    """

    name: str
    what: str
    formula: str
    unit: Unit


_BUILD = (
    Row("images", "images in an object store", "n * image", "bytes"),
    Row("cpu", "encode on 2 cores", "n / (2 * core)", "seconds"),
    Row("cpus", "machines of 2 cores, to encode in a day", f"ceil(cpu / {DAY})", "count"),
    Row("gpu_s", "encode on one GPU", "n / min(gpu, gpu_cores * feed)", "seconds"),
    Row("line", "read from the object store to feed it", "n * image / gpu_s", "speed"),
    Row("gpus", "GPUs, to encode in a day", f"ceil(gpu_s / {DAY})", "count"),
    Row("scratch", "disk while building: spool, cache, coordinates",
        "n * 4 * (2 * encoder + 1024)", "bytes"),
    Row("fit_all", "fit and neighbour lists on 2 cores", "n * fit / 2", "seconds"),
    Row("held", "memory to build: texts, vectors of 4 folds of 5",
        "n * (collection + 0.8 * 4 * 512)", "bytes"),
)  # fmt: skip
_FOLDER = (
    Row("fp32", "vectors, 512 numbers", "n * 4 * 512", "bytes"),
    Row("fp32_1280", "vectors, 1,280 numbers", "n * 4 * 1280", "bytes"),
    Row("said", "ids, concepts, captions in memory", "n * texts", "bytes"),
    Row("ivf_own", "`ivf`, 512 numbers, beside them", "n * ivf_512", "bytes"),
    Row("ivf_nodes", "nodes for memory, `ivf`, 512",
        "ceil((fp32 + said + ivf_own) / node)", "nodes"),
    Row("ivf_nodes_1280", "nodes for memory, `ivf`, 1,280",
        "ceil((fp32_1280 + said + n * ivf_1280) / node)", "nodes"),
    Row("tight_own", "`compressed`, 512 numbers", "n * compressed_512", "bytes"),
    Row("tight_nodes", "nodes for memory, `compressed`, 512", "ceil((said + tight_own) / node)",
        "nodes"),
    Row("tight_nodes_1280", "nodes for memory, `compressed`, 1,280",
        "ceil((said + n * compressed_1280) / node)", "nodes"),
    Row("disk", "disk, `ivf`, 512, two versions",
        "2 * n * (4 * 512 + texts_file + ivf_file)", "bytes"),
    Row("ivf_made", "build `ivf` on 2 cores a node", "n / ivf_nodes * ivf_build", "seconds"),
    Row("tight_made", "build `compressed` on 2 cores a node", "n / tight_nodes * compressed_build",
        "seconds"),
)  # fmt: skip
_SEARCH = (
    Row("scan_q", "queries/s a core, `scan`, exact", "scan * scan_n / n", "rate"),
    Row("ivf_q", "queries/s a core, `ivf`", "ivf * (ivf_n * ivf_nodes / n) ** falls", "rate"),
    Row("ivf_all", "nodes for memory and queries/s, `ivf`",
        "ivf_nodes * ceil(wanted / (node_cores * ivf_q))", "nodes"),
    Row("tight_q", "queries/s a core, `compressed`",
        "compressed * (compressed_n * tight_nodes / n) ** falls", "rate"),
    Row("tight_all", "nodes for memory and queries/s, `compressed`",
        "tight_nodes * ceil(wanted / (node_cores * tight_q))", "nodes"),
)  # fmt: skip
_MILVUS = (
    Row("hnsw_own", "query nodes' memory, `hnsw` (auto), 512", "n * (4 * 512 + links + fields)",
        "bytes"),
    Row("hnsw_nodes", "query nodes, `hnsw`, 512", "ceil(hnsw_own / node)", "count"),
    Row("hnsw_nodes_1280", "query nodes, `hnsw`, 1,280",
        "ceil(n * (4 * 1280 + links + fields) / node)", "count"),
    Row("sq8_nodes", "query nodes, `compressed` (IVF_SQ8), 512",
        "ceil(n * (512 + fields) / node)", "count"),
    Row("hnsw_all", "query nodes for memory and queries/s, `hnsw`, 512",
        "hnsw_nodes * ceil(wanted / hnsw)", "count"),
    Row("sending", "send rows, one client", "n / sent", "seconds"),
    Row("senders", "clients and data nodes, to send in a day", f"ceil(sending / {DAY})", "count"),
    Row("stored", "object store: rows and graph", "n * (4 * 512 + fields) + hnsw_own", "bytes"),
)  # fmt: skip
FOLDERS = "An index in folders"
GROUPS: Mapping[str, tuple[Row, ...]] = {
    "From images to vectors": _BUILD,
    FOLDERS: _FOLDER,
    "Its queries": _SEARCH,
    "An index in Milvus": _MILVUS,
}


ROWS = tuple(row for rows in GROUPS.values() for row in rows)
_NAME = re.compile(r"\b[a-z_][a-z_0-9]*\b")
_FUNCTIONS = {"ceil": math.ceil, "min": min, "max": max}


@dataclass(frozen=True)
class Column:
    """The plan of one size.

    Attributes:
        n: Images.
        values: Result by name of the row.
        kinds: What `auto` takes on one node for vectors of 512 and of 1,280 numbers.
    """

    n: int
    values: Mapping[str, float]
    kinds: tuple[str, str]


def column(n: int, figures: Mapping[str, Figure]) -> Column:
    """Everything for n images."""
    known = {name: figure.value for name, figure in figures.items()} | {"n": float(n)}
    for row in ROWS:
        known[row.name] = float(eval(row.formula, {"__builtins__": {}}, {**_FUNCTIONS, **known}))
    memory = int(figures["node"].value) // 2  # as on such a machine
    few, many = (choose_kind(n, dim, memory=memory)[0] for dim in (512, 1280))
    return Column(n, {row.name: known[row.name] for row in ROWS}, (few, many))


def names(formula: str) -> list[str]:
    """Names of the values in a formula, in their order, each once."""
    return list(dict.fromkeys(name for name in _NAME.findall(formula) if name not in _FUNCTIONS))


def render(formula: str, shown: Mapping[str, str]) -> str:
    """The formula with `shown` in place of its names."""
    text = re.sub(r"\b\d{4,}\b", lambda match: f"{int(match[0]):,}", formula)
    text = _NAME.sub(lambda match: shown.get(match[0], match[0]), text)
    return re.sub(" +", " ", text.replace("**", " ^ ").replace("*", "×"))

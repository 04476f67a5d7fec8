"""What a row costs in bytes, tiny, through real indexes in processes of their own."""

from __future__ import annotations

import json

import common
import pytest
import row_bytes

ROWS = [("a1", "C0000001;C0000002", "short"), ("a2", "C0000001", "longer than that")]


def test_growth_is_by_row_and_leaves_out_what_is_needed_anyway() -> None:
    sizes = [{"memory": 1000 + 12 * n} for n in (10, 30)]
    assert row_bytes.growth(sizes, [10, 30])["bytes_per_row"] == {"memory": 12.0}


@pytest.mark.slow
def test_bytes_are_those_of_the_files(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(common, "RESULTS", tmp_path / "results")
    monkeypatch.chdir(tmp_path)
    concepts, captions = tmp_path / "concepts.csv", tmp_path / "captions.csv"
    concepts.write_text("ID,CUIs\n" + "".join(f"{i},{cuis}\n" for i, cuis, _ in ROWS))
    captions.write_text("ID,Caption\n" + "".join(f"{i},{text}\n" for i, _, text in ROWS))
    words = [str(concepts), "--captions", str(captions), "--sizes", "100", "900", "--dim", "512"]
    row_bytes.main([*words, "--only", "flat", "ivf"])
    lines = (tmp_path / "results" / "row_bytes.jsonl").read_text().splitlines()
    found = {record["kind"]: record for record in map(json.loads, lines)}
    assert list(found) == ["flat", "ivf", "collection"]
    about = found["flat"]
    assert (about["texts"], about["concepts_per_image"]) == ("concepts.csv", 1.5)
    for kind in ("flat", "ivf"):
        each = found[kind]["bytes_per_row"]
        assert each["vectors"] == 4 * 512
        # An id of three digits or fewer, a line break, a pointer, CUIs, a quoted caption, a sha256.
        assert each["texts"] == pytest.approx(3.9 + 8 + 1.5 * 4 + 10.5 + 3 + 32, abs=0.3)
    assert found["flat"]["bytes_per_row"]["structure"] == 0
    assert 512 / 8 < found["ivf"]["bytes_per_row"]["structure"] < 512 / 2  # one bit a number
    assert found["collection"]["rows"] == [25, 225]

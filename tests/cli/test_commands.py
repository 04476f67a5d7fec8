"""The commands that need no encoder; test_images.py has the others."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import click
import numpy as np
import pytest
from invoking import check_sound, command, done, info, invoke, problem, process
from versions import numbered, version_folder

from annotator import __version__
from annotator.cli import cli
from annotator.encoders.fingerprint import Fingerprint
from annotator.evaluation.measures import bootstrap_interval, group_numbers
from annotator.indexing.metadata import IndexMetadata
from annotator.knn.voting import Voting
from index import VersionWriter


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    texts = {
        "truth.csv": "ID,CUIs\na,C1;C2\nb,C3\nc,C1\nd,C2\n",
        "run.csv": "ID,CUIs\na,C1;C2\nb,C4\nc,C1\nd,\n",
        "bad.csv": "ID,CUIs\nb,C3\na,C1;C1\nc,C1\n",
        "split.csv": "ID,side,source\na,train,x\nb,test,x\nc,test,y\nd,test,y\n",
        "names.csv": "CUI,Name\nC1,first concept\n",
        "broken.csv": 'ID,CUIs\na,"C1\n',
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """An index whose encoder cannot be made."""
    fingerprint = Fingerprint("net", "sha256:0", {"size": 32}, "fp32", "middle", 3)
    with VersionWriter(tmp_path / "index") as writer:
        writer.add(np.eye(3, dtype=np.float32))
        writer.publish(
            ["a", "b", "c"],
            [["C1"], ["C1", "C2"], []],
            names={"C1": "first concept"},
            columns={},
            about=IndexMetadata("unknown-net", fingerprint, Voting()).to_dict(),
        )
    return tmp_path / "index"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from PIL import Image

    folder = tmp_path_factory.mktemp("images")
    for i in range(3):
        Image.new("L", (8, 8), i).save(folder / f"i{i}.png")
    return folder


# The group


def test_every_help_shows_an_example_and_explains_each_option() -> None:
    context = click.Context(cli)
    for name in cli.list_commands(context):
        described = cli.get_command(context, name)
        assert described is not None and described.name == name
        result = invoke(name, "--help")
        assert (result.exit_code, result.stderr) == (0, "")
        assert f"  annotator {name} " in result.stdout
        for parameter in described.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{name} {parameter.name}"


def test_help_lists_commands_and_exit_codes() -> None:
    result = invoke("--help")
    assert result.exit_code == 0
    assert all(
        f"\n  {command} " in result.stdout for command in cli.list_commands(click.Context(cli))
    )
    assert "130" in result.stdout and "Not for clinical use" in result.stdout


def test_version() -> None:
    assert invoke("--version").stdout == f"annotator, version {__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("no-such-command",),
        ("evaluate", "run.csv"),
        ("annotate", "x", "--format", "2016"),
        ("annotate", "x", "--explain"),
        ("annotate", "x", "--format", "jsonl", "--zip"),
        ("annotate", "x", "--ray-address", "host:1"),
        ("build-index", "x", "y", "--beta", "nan"),
        ("build-index", "x", "y", "--top-r", "3"),
        ("build-index", "x", "y", "--decider", "top-r", "--threshold", "0.5"),
        ("tune", "--threshold", "0.4"),
        ("tune", "images"),
        ("add",),
        ("compact", "--target-recall", "0"),
        ("remove", "--all"),
        ("validate", "run.csv"),
        ("sample", "x", "--n", "1"),
    ],
)
def test_wrong_usage_is_exit_code_2(arguments: tuple[str, ...]) -> None:
    result = invoke(*arguments, RAY_ADDRESS=None)
    assert (result.exit_code, result.stdout) == (2, "") and "Usage:" in result.stderr


def test_completion_prints_a_script() -> None:
    if shutil.which("bash") is None:
        pytest.skip("completion for bash asks bash for its version")
    result = process(command(), env=os.environ | {"_ANNOTATOR_COMPLETE": "bash_source"})
    assert result.returncode == 0 and "complete" in result.stdout and "annotator" in result.stdout


# What is not loaded


def loaded(*arguments: object) -> set[str]:
    """Top-level packages that a command imports."""
    script = (
        "import sys, atexit\n"
        "atexit.register(lambda: print('loaded', *sys.modules, file=sys.stderr))\n"
        f"sys.argv = {['annotator', *(str(a) for a in arguments)]!r}\n"
        "from annotator.cli import main\n"
        "main()"
    )
    result = process([sys.executable, "-c", script])
    last = result.stderr.splitlines()[-1].split()
    assert last[0] == "loaded", result.stderr
    return {name.split(".")[0] for name in last}


@pytest.mark.parametrize("arguments", [("--help",), ("annotate", "--help"), ("--version",)])
def test_help_loads_nothing_heavy(arguments: tuple[str, ...]) -> None:
    assert not loaded(*arguments) & {"torch", "timm", "pandas", "faiss", "numpy", "PIL", "pyarrow"}


def test_commands_on_files_never_load_torch(tables: Path, index: Path) -> None:
    run_file, truth = tables / "run.csv", tables / "truth.csv"
    for arguments in (
        ("evaluate", run_file, truth),
        ("validate", run_file, "--ids", truth),
        ("stats", truth),
    ):
        assert not loaded(*arguments) & {"torch", "faiss", "pandas", "matplotlib"}
    for name in ("info", "verify"):
        assert "torch" not in loaded(name, "--index", index)


# evaluate, validate, stats


def test_evaluate(tables: Path) -> None:
    whole = invoke("evaluate", tables / "run.csv", tables / "truth.csv")
    assert whole.exit_code == 0 and whole.stderr == ""
    assert whole.stdout.startswith("F1 0.5000 ")
    split = f"{tables / 'split.csv'}:side"
    one_side = invoke(
        "evaluate", tables / "run.csv", tables / "truth.csv", "--split", split, "--only", "test",
        "--by", f"{tables / 'split.csv'}:source", "--names", tables / "names.csv", "--json",
    )  # fmt: skip
    facts = json.loads(one_side.stdout)
    assert facts["n_images"] == 3 and facts["f1"] == pytest.approx(1 / 3)
    assert {group: facts["per_group"][group]["f1"] for group in "xy"} == {"x": 0.0, "y": 0.5}
    assert {c["cui"]: c["name"] for c in facts["per_concept"]}["C1"] == "first concept"


def test_intervals_over_groups(tables: Path) -> None:
    run, truth, groups = tables / "run.csv", tables / "truth.csv", tables / "patients.csv"
    groups.write_text("ID,patient\na,p\nb,p\nc,q\nelsewhere,r\n")
    arguments = ("evaluate", run, truth, "--against", truth, "--by", f"{tables / 'split.csv'}:side")
    plain = json.loads(invoke(*arguments, "--json").stdout)
    found = invoke(*arguments, "--groups", groups)
    assert found.exit_code == 0, found.output
    over = (
        f"Intervals are over the 3 groups of {groups}; 1 without one count as groups of their own"
    )
    assert over in found.stderr
    assert "over 3 groups, 4 images)" in found.stdout.splitlines()[0]
    assert "over 3 groups)" in found.stdout[found.stdout.index("paired") :]
    facts = json.loads(invoke(*arguments, "--groups", f"{groups}:patient", "--json").stdout)
    assert (facts["n_groups"], facts["against"]["n_groups"], facts["n_images"]) == (3, 3, 4)
    assert {side: facts["per_group"][side]["n_groups"] for side in ("train", "test")} == {
        "train": 1, "test": 3
    }  # fmt: skip
    scores, numbers = list(facts["images"].values()), group_numbers(["p", "p", "q", ""])
    assert facts["interval"] == list(bootstrap_interval(scores, numbers))
    assert plain["n_groups"] is None and plain["interval"] == list(bootstrap_interval(scores))
    assert (facts["f1"], facts["images"]) == (plain["f1"], plain["images"])
    message = problem(invoke("evaluate", run, truth, "--groups", f"{groups}:study"))
    assert "no column 'study'" in message and "patient" in message


@pytest.mark.parametrize(
    ("run", "options", "said"),
    [
        ("nowhere.csv", (), "nowhere.csv does not exist"),
        ("", (), "is a folder"),
        ("broken.csv", (), "broken.csv, line 2"),
        ("run.csv", ("--only", "test"), "--split and --only belong together"),
    ],
)
def test_what_cannot_be_evaluated(
    tables: Path, run: str, options: tuple[str, ...], said: str
) -> None:
    assert said in problem(invoke("evaluate", tables / run, tables / "truth.csv", *options))


def test_validate(tables: Path) -> None:
    good = done(invoke("validate", tables / "run.csv", "--ids", tables / "truth.csv"))
    assert "is a valid run for 4 images by the rules of 2026, recognised" in good
    bad = invoke("validate", tables / "bad.csv", "--ids", tables / "truth.csv")
    assert bad.exit_code == 1
    lines = bad.stdout.splitlines()
    assert len(lines) == 3 and all(line.startswith(f"{tables / 'bad.csv'}:") for line in lines)
    assert "3 problems by the rules of 2026, recognised" in bad.stderr


def test_stats(tables: Path, tmp_path: Path) -> None:
    plot = tmp_path / "plot.svg"
    result = invoke(
        "stats", tables / "truth.csv", "--names", tables / "names.csv",
        "--validation", tables / "run.csv", "--plot", plot,
    )  # fmt: skip
    assert result.exit_code == 0
    assert result.stdout.startswith("4 images") and "first concept" in result.stdout
    assert plot.read_text().startswith("<?xml")
    assert "no plot of that kind" in invoke("stats", tables / "truth.csv", "--plot", "x.txt").stderr


# info and verify


def test_info_and_verify(index: Path) -> None:
    result = invoke("info", "--index", index)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "images: 3\n" in result.stdout and "embedder: unknown-net\n" in result.stdout
    assert "        2  C1  first concept\n" in result.stdout
    facts = json.loads(invoke("info", "--json", ANNOTATOR_INDEX=str(index)).stdout)
    assert facts["index"] == str(index)
    assert numbered(facts["version"]) == "v000001" and facts["voting"]["k"] == 50
    check_sound(index)


def test_a_truncated_index(index: Path, images: Path) -> None:
    path = version_folder(index) / "vectors.npy"
    path.write_bytes(path.read_bytes()[:-4])
    found = invoke("verify", "--index", index)
    assert found.exit_code == 1 and f"{path.parent.name}/vectors.npy has 160 bytes" in found.stdout
    assert "vectors.npy has 160 bytes" in problem(invoke("info", "--index", index))
    assert "vectors.npy has 160 bytes" in problem(invoke("annotate", images, "--index", index))


def test_places_without_an_index(tmp_path: Path, images: Path) -> None:
    nowhere = tmp_path / "nowhere"
    for arguments in (
        ("info",),
        ("tune",),
        ("annotate", images),
        ("explain", images / "i0.png", "--out", "why.png"),
    ):
        message = problem(invoke(*arguments, "--index", nowhere))
        assert "does not exist" in message and "annotator build-index" in message
    for name in ("info", "tune"):
        assert "is no index" in problem(invoke(name, "--index", images))
    assert invoke("verify", "--index", nowhere).exit_code == 1


# tune


def test_tune(tuned_index: Path) -> None:
    said = done(invoke("tune", "--index", tuned_index, "--k", 7, "--decider", "threshold"))
    assert "Voting tuned across patients: k 7, " in said and "on 120 images." in said
    assert numbered(said).endswith(f"{tuned_index}: version v000002.\n")
    facts = info(tuned_index)
    assert numbered(facts["version"]) == "v000002" and facts["voting"]["k"] == 7
    assert facts["voting"]["decider"] == "threshold"
    check_sound(tuned_index)


def test_tune_as_json(tuned_index: Path) -> None:
    result = invoke("tune", "--index", tuned_index, "--json", "--kernel", "rank")
    assert result.exit_code == 0
    facts = json.loads(result.stdout)
    assert numbered(facts["version"]) == "v000002" and facts["images"] == 120
    assert facts["voting"]["kernel"] == "rank"
    assert {tried["kernel"] for tried in facts["grid"]} == {"rank"}
    assert any(facts["f1"] == pytest.approx(tried["f1"], abs=1e-6) for tried in facts["grid"])
    again = invoke("tune", "--index", tuned_index, "--json", "--kernel", "rank")
    assert again.stdout_bytes == result.stdout_bytes


def test_everything_that_is_given_to_tune_stays(tuned_index: Path) -> None:
    given = {
        "k": 3, "kernel": "exponential", "beta": 5.0, "prior": 0.2, "decider": "top-r",
        "top_r": 2, "min_score": 0.1,
    }  # fmt: skip
    options = [str(part) for n, v in given.items() for part in (f"--{n.replace('_', '-')}", v)]
    facts = json.loads(invoke("tune", "--index", tuned_index, "--json", *options).stdout)
    assert {name: facts["voting"][name] for name in given} == given
    assert facts["grid"] == []


def test_what_cannot_be_tuned(index: Path, tuned_index: Path) -> None:
    without_lists = problem(invoke("tune", "--index", index, "--json"))
    assert "has no neighbour lists to tune on" in without_lists
    assert "build it again" in without_lists
    with VersionWriter(tuned_index):
        message = problem(invoke("tune", "--index", tuned_index, "--k", "3", "--json"))
    assert "Another process is writing" in message
    path = version_folder(tuned_index) / "tuning.rows.npy"
    path.write_bytes(path.read_bytes()[:-4])
    assert "tuning.rows.npy has" in problem(invoke("tune", "--index", tuned_index))


# Inputs and outputs that are not there


def test_inputs_of_a_build_that_do_not_fit(images: Path, tables: Path, tmp_path: Path) -> None:
    for arguments, said in (
        ((tmp_path / "nowhere", "x.csv"), f"{tmp_path / 'nowhere'}"),
        ((images,), "Give the concepts file"),
        ((images, tables / "truth.csv"), "None of the 3 images matches one of the 4 ids"),
    ):
        assert said in problem(invoke("build-index", *arguments, "--index", tmp_path / "index"))
        assert not (tmp_path / "index").exists()


def test_images_that_cannot_be_annotated(
    tmp_path: Path, index: Path, images: Path, tables: Path
) -> None:
    for given, said in (
        (tmp_path / "nowhere", f"{tmp_path / 'nowhere'}"),
        (tables, "no image found"),
        (images, "Unknown encoder 'unknown-net'"),
    ):
        assert said in problem(invoke("annotate", given, "--index", index))


def test_outputs_that_cannot_be_written(tables: Path, tmp_path: Path) -> None:
    plot = tmp_path / "nowhere" / "plot.png"
    result = invoke("stats", tables / "truth.csv", "--plot", plot)
    assert result.exit_code == 1
    assert f"Error: {plot}: No such file or directory" in result.stderr
    occupied = tmp_path / "file"
    occupied.write_text("")
    assert f"{occupied}" in problem(invoke("sample", occupied / "sample", "--n", 20))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_no_traceback(tables: Path) -> None:
    with Path("/dev/full").open("w") as full:
        arguments = command("evaluate", tables / "run.csv", tables / "truth.csv")
        result = process(arguments, stdout=full)
    assert (result.returncode, result.stderr) == (1, "Error: No space left on device\n")


def test_a_reader_that_leaves_is_no_traceback(tmp_path: Path) -> None:
    rows = "".join(f"image{i},C1\n" for i in range(20_000))
    (tmp_path / "run.csv").write_text(f"ID,CUIs\n{rows}")
    line = " ".join(command("evaluate", "run.csv", "run.csv", "--json")) + " | head -1"
    result = process(["bash", "-c", line], tmp_path)
    assert (result.stdout, result.stderr) == ("{\n", "")


# The sample collection


def test_sample(tmp_path: Path) -> None:
    done(invoke("sample", tmp_path / "sample", "--n", 20))
    assert len(list((tmp_path / "sample" / "images").iterdir())) == 20
    stats = invoke("stats", tmp_path / "sample" / "concepts.csv")
    assert stats.stdout.startswith("20 images")

"""The sample collection: what a case says is what its labels, caption and pixels say."""

from __future__ import annotations

import csv
import hashlib
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from annotator.concept_ids import is_cui
from annotator.concepts.hierarchy import read_hierarchy
from annotator.errors import AnnotatorError
from annotator.phantoms import SamplePaths, write_sample
from annotator.phantoms.canvas import Array
from annotator.phantoms.cases import FINDINGS, NAMES, NORMAL, STUDIES, VIEWS, Case, draw_cases
from annotator.phantoms.encode import write_image
from annotator.phantoms.render import render
from index.progress import Work, reported_by

T = TypeVar("T")
CASES = list(draw_cases(600, 2026))


def first(finding: str) -> Case:
    return next(case for case in CASES if finding in case.findings)


def of_study(study: str) -> Case:
    return next(case for case in CASES if case.study == study)


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def rows(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> SamplePaths:
    return write_sample(tmp_path_factory.mktemp("sample") / "phantoms", n=40, seed=11)


# Cases: labels and captions


@given(st.integers(0, 2**63), st.integers(1, 40))
@settings(max_examples=25, deadline=None)
def test_a_smaller_collection_is_the_beginning_of_a_larger_one(seed: int, n: int) -> None:
    assert list(draw_cases(n, seed)) == list(draw_cases(40, seed))[:n]


@given(st.integers(0, 2**63))
@settings(max_examples=25, deadline=None)
def test_labels_follow_from_study_view_and_findings(seed: int) -> None:
    for case in draw_cases(30, seed):
        expected = {*STUDIES[case.study].cuis, *VIEWS[case.view].cuis}
        expected.update(cui for name in case.findings for cui in FINDINGS[name].cuis)
        assert expected <= set(case.cuis)
        assert (NORMAL in case.cuis) == (not case.findings)
        assert list(case.cuis) == sorted(set(case.cuis))
        assert set(case.cuis) <= NAMES.keys()
        # No finding is labelled that the case does not name.
        others = {
            c for name, term in FINDINGS.items() if name not in case.findings for c in term.cuis
        }
        named = {c for name in case.findings for c in FINDINGS[name].cuis}
        assert not (others - named) & set(case.cuis)


def test_captions_are_one_sentence_that_names_every_finding() -> None:
    for case in CASES:
        assert re.fullmatch(r"Phantom: [^.]+\.", case.caption)
        assert all(FINDINGS[name].words in case.caption for name in case.findings)


def test_a_patient_is_on_one_side_of_the_split_and_of_one_study() -> None:
    for key in ("split", "study"):
        by_patient: dict[int, set[str]] = {}
        for case in CASES:
            by_patient.setdefault(case.patient, set()).add(getattr(case, key))
        assert all(len(values) == 1 for values in by_patient.values())
    test_share = sum(case.split == "test" for case in CASES) / len(CASES)
    assert 0.25 < test_share < 0.35


def test_the_default_collection_has_every_study_finding_and_format() -> None:
    assert {case.study for case in CASES} == set(STUDIES)
    assert {name for case in CASES for name in case.findings} == set(FINDINGS)
    assert {case.format for case in CASES} == {"jpg", "png", "png16", "dcm"}
    assert {cui for case in CASES for cui in case.cuis} == set(NAMES)
    assert len(set(NAMES.values())) == len(NAMES)
    assert 3 <= np.mean([len(case.cuis) for case in CASES]) <= 5


# Pixels


@pytest.mark.parametrize("finding", FINDINGS)
def test_a_finding_is_drawn_where_it_is_named_and_only_there(finding: str) -> None:
    case = first(finding)
    without = replace(case, findings=tuple(f for f in case.findings if f != finding))
    present, absent = render(case), render(without)
    assert present.shape == absent.shape
    changed = np.abs(present - absent) > 0.05
    assert 0.0005 < changed.mean() < 0.5


def test_images_of_a_patient_differ_in_acquisition_but_not_in_anatomy() -> None:
    case = of_study("chest")
    again = replace(case, shot=case.shot + 1)
    assert not np.array_equal(render(case)[:50, :50], render(again)[:50, :50])
    assert case.anatomy().random() == again.anatomy().random()
    assert case.finding("nodule").random() == again.finding("nodule").random()
    assert case.acquisition().random() != again.acquisition().random()


@pytest.mark.parametrize("study", STUDIES)
def test_pictures_are_grey_images_in_range(study: str) -> None:
    picture = render(of_study(study))
    assert picture.dtype == np.float32
    assert picture.ndim == 2
    assert min(picture.shape) >= 200
    assert max(picture.shape) <= 420
    assert picture.min() >= 0
    assert picture.max() <= 1
    assert picture.std() > 0.05


# Files


@pytest.mark.parametrize("index", [2, 3])
@pytest.mark.parametrize("study", STUDIES)
def test_dicom_shows_the_same_picture(tmp_path: Path, study: str, index: int) -> None:
    case = replace(of_study(study), format="dcm", index=index)
    picture = render(case)
    ds = pydicom.dcmread(write_image(tmp_path, case, picture))
    values = ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept)
    shown = (values - float(ds.WindowCenter)) / float(ds.WindowWidth) + 0.5
    inverted = ds.PhotometricInterpretation == "MONOCHROME1"
    assert inverted == (study in ("chest", "hand") and index == 2)
    np.testing.assert_allclose(1 - shown if inverted else shown, picture, atol=1 / 79)


@pytest.mark.parametrize(("form", "mode", "white"), [("png", "L", 255), ("png16", "I;16", 65535)])
def test_png_holds_the_picture_exactly(tmp_path: Path, form: str, mode: str, white: int) -> None:
    case = replace(of_study("hand"), format=form)  # type: ignore[arg-type]
    picture = render(case)
    with Image.open(write_image(tmp_path, case, picture)) as image:
        assert image.mode == mode
        np.testing.assert_allclose(np.asarray(image) / white, picture, atol=0.51 / white)


def test_tables_and_images_name_the_same_ids(sample: SamplePaths) -> None:
    cases = list(draw_cases(40, 11))
    ids = [case.id for case in cases]
    assert rows(sample.concepts) == [["ID", "CUIs"], *([c.id, ";".join(c.cuis)] for c in cases)]
    assert rows(sample.captions) == [["ID", "Caption"], *([c.id, c.caption] for c in cases)]
    assert rows(sample.split) == [["ID", "split"], *([c.id, c.split] for c in cases)]
    assert rows(sample.patients) == [["ID", "patient"], *([c.id, c.patient_id] for c in cases)]
    assert dict(rows(sample.concept_names)[1:]) == NAMES
    hierarchy = read_hierarchy(sample.hierarchy)
    assert [concept for concept in NAMES if not hierarchy.parents.get(concept)] == []
    assert all(is_cui(c) == (c in NAMES) for c in hierarchy.closure(NAMES))
    assert hierarchy.ancestors("C0034079") == {  # of a lung nodule
        "ABNORMALITY", "CHEST_ABNORMALITY", "LUNG_ABNORMALITY", "MASS"
    }  # fmt: skip
    assert sorted(path.stem for path in sample.images.iterdir()) == ids
    assert "no patient" in sample.readme.read_text(encoding="utf-8")


def test_every_image_decodes(sample: SamplePaths) -> None:
    for path in sample.images.iterdir():
        if path.suffix == ".dcm":
            assert pydicom.dcmread(path).pixel_array.ndim == 2
        else:
            with Image.open(path) as image:
                image.load()
                assert image.mode in ("L", "I;16")


def test_the_same_seed_gives_the_same_bytes(sample: SamplePaths, tmp_path: Path) -> None:
    again = write_sample(tmp_path / "again", n=40, seed=11)
    assert digests(again.directory) == digests(sample.directory)


def test_another_seed_gives_other_images(sample: SamplePaths, tmp_path: Path) -> None:
    other = digests(write_sample(tmp_path / "other", n=3, seed=12).images)
    assert not set(other.values()) & set(digests(sample.images).values())


# The folder


def test_progress_counts_the_images(tmp_path: Path) -> None:
    totals: list[int] = []

    def count(items: Iterable[T], work: Work) -> Iterator[T]:
        for item in items:
            totals.append(work.total)
            yield item

    with reported_by(count):
        write_sample(tmp_path / "a" / "b", n=3, seed=1)
    assert totals == [3, 3, 3]


def test_a_complete_collection_is_left_as_it_is(tmp_path: Path) -> None:
    paths = write_sample(tmp_path / "s", n=2, seed=1)
    paths.captions.write_text("edited\n", encoding="utf-8")
    assert write_sample(tmp_path / "s", n=2, seed=1) == paths
    assert paths.captions.read_text(encoding="utf-8") == "edited\n"


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    assert write_sample(tmp_path / "s", n=1, seed=1).concepts.is_file()


@pytest.mark.parametrize("spoil", ["other n", "other seed", "missing image", "missing table"])
def test_another_or_damaged_collection_is_refused(tmp_path: Path, spoil: str) -> None:
    paths = write_sample(tmp_path / "s", n=2, seed=1)
    if spoil == "missing image":
        next(paths.images.iterdir()).unlink()
    if spoil == "missing table":
        paths.split.unlink()
    before = digests(paths.directory)
    with pytest.raises(AnnotatorError, match=r"(?s)other than the whole sample.*Delete it"):
        write_sample(
            tmp_path / "s", n=3 if spoil == "other n" else 2, seed=2 if spoil == "other seed" else 1
        )
    assert digests(paths.directory) == before


def test_a_foreign_folder_or_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("folder", "file"):
        with pytest.raises(AnnotatorError, match=name):
            write_sample(tmp_path / name, n=1)
    assert (tmp_path / "folder" / "notes.txt").read_text() == (tmp_path / "file").read_text()


@pytest.mark.parametrize(("n", "seed"), [(0, 1), (-1, 1), (1, -1)])
def test_impossible_sizes_and_seeds_are_refused(tmp_path: Path, n: int, seed: int) -> None:
    with pytest.raises(AnnotatorError, match="at least"):
        write_sample(tmp_path / "s", n=n, seed=seed)


def test_an_interrupted_run_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(items: Iterable[T], work: Work) -> Iterator[T]:
        yield next(iter(items))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), reported_by(interrupt):
        write_sample(tmp_path / "s", n=2, seed=1)
    assert list(tmp_path.iterdir()) == []


def loaded_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_is_light() -> None:
    light = loaded_by("import annotator.phantoms")
    assert not {"numpy", "PIL", "pydicom", "pandas", "torch"} & light


def test_who_annotates_loads_no_phantoms() -> None:
    loaded = loaded_by("import annotator.pipeline, annotator.collection, annotator.cli.annotate")
    assert not {name for name in loaded if name.startswith("annotator.phantoms")}


def test_a_renderer_with_a_checkerboard(tmp_path: Path) -> None:
    """The same cases; pictures with power at the frequency of single pixels, as networks leave."""
    plain = write_sample(tmp_path / "plain", n=20)
    other = write_sample(tmp_path / "other", n=20, renderer="upsampled")
    assert other.concepts.read_bytes() == plain.concepts.read_bytes()
    with pytest.raises(AnnotatorError, match="other than the whole sample"):
        write_sample(tmp_path / "other", n=20)
    case = next(iter(draw_cases(20, 2026)))
    flat, made = render(case), render(case, "upsampled")
    assert flat.shape == made.shape and made.dtype == np.float32 and made.min() >= 0
    assert made.max() <= 1 and 0 < np.abs(flat - made).mean() < 0.05

    def checkerboard(picture: Array) -> float:
        spectrum = np.abs(np.fft.fft2(picture[: 2 * (len(picture) // 2)], axes=(0, 1)))
        return float(spectrum[len(spectrum) // 2, 0] / spectrum[0, 0])

    assert checkerboard(made) > 5 * checkerboard(flat)

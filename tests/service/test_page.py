"""The page in a real browser, against the real server on an index of phantoms."""

from __future__ import annotations

import csv
import os
import re
import shutil
from collections.abc import Callable, Iterator
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import httpx
import pytest
from asking import serving
from browsing import Browser, Route, expect, in_a_browser
from pages import KEY, Opener, Served, Tab, opening
from PIL import Image

from annotator.ids import image_id
from annotator.knn.familiarity import UNFAMILIAR
from annotator.tables.run import validate_run

pytestmark = [pytest.mark.slow, in_a_browser]


@pytest.fixture(scope="module")
def server(place: Served) -> Iterator[str]:
    with serving(place.index, "--device", "cpu") as running:
        yield running.url


@pytest.fixture(scope="module")
def small_server(place: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One that asks for a key and takes one image at a time, of 1 MiB at most."""
    keys = tmp_path_factory.mktemp("small-server") / "keys"
    keys.touch(mode=0o600)
    keys.write_text(f"{KEY}\n")
    options = ("--api-key-file", keys, "--max-queue", 1, "--max-upload-mb", 1, "--device", "cpu")
    with serving(place.index, *options) as running:
        yield running.url


@pytest.fixture
def open_page(browser: Browser, server: str) -> Iterator[Opener]:
    with opening(browser, server) as opener:
        yield opener


def shows_concepts(tab: Tab, wanted: dict[str, Any]) -> bool:
    """Whether it shows the CUI and score of each concept of an answer."""
    shown = [
        (row.locator("code").inner_text(), row.locator(".score").inner_text())
        for row in tab.page.locator(".concept").all()
    ]
    return shown == [(c["cui"], f"{c['score']:.2f}") for c in wanted["concepts"]]


def full_answer(server: str, image: Path, **query: str | float) -> dict[str, Any]:
    files = {"image": (image.name, image.read_bytes())}
    response = httpx.post(f"{server}/v1/annotate", params=query, files=files)
    return dict(response.raise_for_status().json())


def answer(server: str, image: Path, **query: str | float) -> dict[str, Any]:
    (result,) = full_answer(server, image, **query)["results"]
    return dict(result)


def test_doubt_and_runners_up(open_page: Opener, server: str, place: Served) -> None:
    told = full_answer(server, place.images[0])
    (result,) = told["results"]
    result["concepts"][0]["rival"] = "C1"
    result["considered"] = [{"cui": "C1", "name": "Malignant", "score": 0.46, "probability": 0.31}]
    tab = open_page()
    tab.page.route("**/v1/annotate*", lambda route: route.fulfill(json=told))
    tab.annotate(place.images[0])
    expect(tab.page.locator(".concept").first).to_contain_text(
        "In doubt: Malignant excludes it, and has 46 % of the vote."
    )
    expect(tab.page.locator(".doubt")).to_have_count(1)
    expect(tab.page.locator(".runner-up")).to_have_text(["Malignant C10.4631 %"])
    expect(tab.tabs().first).to_contain_text(", 1 in doubt")


def test_the_image_itself_can_be_left_out(open_page: Opener, place: Served) -> None:
    tab = open_page()
    indexed = next(p for p in sorted(place.images[0].parent.iterdir())
                   if p.suffix == ".png" and p not in place.images)  # fmt: skip
    tab.annotate(indexed)
    notice = f"The index has this very image, as {indexed.stem}."
    expect(tab.page.locator(".answer")).to_contain_text(notice)
    expect(tab.page.locator(".neighbor").first).to_contain_text(indexed.stem)
    tab.page.get_by_text("Options", exact=True).click()
    tab.page.get_by_label("The image itself, if indexed").select_option("is left out")
    tab.button("Apply to all images").click()
    expect(tab.page.locator(".neighbor").first).not_to_contain_text(indexed.stem)
    expect(tab.page.locator(".answer")).to_contain_text(notice)


def test_one_image(open_page: Opener, server: str, place: Served) -> None:
    tab = open_page()
    expect(tab.page.locator("#info")).to_contain_text("Index v000001")
    expect(tab.page.get_by_text("Not for clinical use.")).to_be_visible()
    tab.annotate(place.images[0])
    wanted = answer(server, place.images[0])
    assert shows_concepts(tab, wanted)
    first = wanted["concepts"][0]
    expect(tab.page.locator(".concept").first).to_contain_text(first["name"])
    expect(tab.page.locator(".facts .value").first).to_have_text(f"{wanted['expected_f1']:.2f}")
    width = tab.page.locator(".concept .bar span").last.evaluate("bar => bar.style.width")
    assert float(width.removesuffix("%")) == pytest.approx(
        100 * wanted["concepts"][-1]["score"], abs=0.01
    )
    cases = tab.page.locator(".neighbor")
    expect(cases).to_have_count(10)
    nearest = wanted["neighbors"][0]
    for text in (nearest["id"], nearest["caption"], f"similarity {nearest['similarity']:.3f}"):
        expect(cases.first).to_contain_text(text)
    tab.neighbors_have_pictures()
    chosen = {c["cui"] for c in wanted["concepts"]}
    filled = cases.first.locator(".chip.chosen").evaluate_all("chips => chips.map(c => c.title)")
    assert set(filled) == chosen & set(nearest["cuis"])


def test_several_images_one_broken_one_dicom(open_page: Opener, place: Served) -> None:
    tab = open_page()
    tab.annotate(*place.images[:6], place.broken, place.dicom, failed=1)
    expect(tab.page.locator("#status")).to_have_text("Finished: 7 of 8 images annotated, 1 failed.")
    expect(tab.tabs()).to_have_count(8)
    tab.tabs().nth(6).click()
    error = tab.page.locator(".notice.error")
    expect(error).to_contain_text("JPEG")
    expect(error.get_by_role("button", name="Try again")).to_be_visible()
    tab.tabs().nth(7).click()
    expect(tab.page.locator("#panel .rendering")).to_be_visible()
    tab.page.locator("#panel .viewer img").evaluate("picture => picture.decode()")
    expect(tab.page.locator(".concept").first).to_be_visible()
    tab.button("Try failed again").click()
    tab.finished(7, failed=1)
    tab.button("Remove all").click()
    expect(tab.page.locator("#work")).to_be_hidden()


def test_at_most_four_requests_are_in_flight(open_page: Opener, place: Served) -> None:
    tab = open_page()
    running = most = 0

    def change(by: int) -> Callable[[Any], None]:
        def changed(request: Any) -> None:
            nonlocal running, most
            if "/v1/annotate" in request.url:
                running += by
                most = max(most, running)

        return changed

    tab.page.on("request", change(1))
    tab.page.on("requestfinished", change(-1))
    tab.annotate(*place.images[:9])
    assert 2 <= most <= 4


def test_a_pasted_image(open_page: Opener, place: Served) -> None:
    tab = open_page(permissions=["clipboard-read", "clipboard-write"])
    tab.page.evaluate(
        """async (data) => {
          const picture = new Blob([new Uint8Array(data)], { type: "image/png" });
          await navigator.clipboard.write([new ClipboardItem({ "image/png": picture })]);
        }""",
        list(place.noise.read_bytes()),
    )
    tab.page.keyboard.press("Control+v")
    tab.finished(1)
    expect(tab.tabs()).to_contain_text("pasted-1.png")


def test_a_dropped_image_and_a_folder(open_page: Opener, place: Served, tmp_path: Path) -> None:
    within = tmp_path / "folder" / "within"
    within.mkdir(parents=True)
    for image in place.images[1:3]:
        shutil.copy(image, within)
    (within / ".hidden").touch()
    tab = open_page()
    session = tab.page.context.new_cdp_session(tab.page)
    files = [str(place.images[0]), str(tmp_path / "folder")]

    def drag(kind: str) -> None:
        data = {"items": [], "files": files, "dragOperationsMask": 1}
        session.send("Input.dispatchDragEvent", {"type": kind, "x": 600, "y": 600, "data": data})

    drag("dragEnter")
    drag("dragOver")
    expect(tab.page.locator("#drop.over")).to_be_visible()
    drag("drop")
    expect(tab.page.locator("#drop.over")).to_have_count(0)
    tab.finished(3)
    for i, image in enumerate(place.images[:3]):
        expect(tab.tabs().nth(i)).to_contain_text(image.name)


def test_names_are_text_and_never_markup(open_page: Opener, place: Served, tmp_path: Path) -> None:
    hostile = tmp_path / '<img src=x onerror="document.title=1">.png'
    shutil.copy(place.noise, hostile)
    tab = open_page()
    tab.annotate(hostile)
    expect(tab.page.locator(".subject-line h2")).to_have_text(hostile.name)
    assert tab.page.title() == "annotator"


def focused(tab: Tab) -> str:
    """The element that has the focus, as a selector."""
    script = "e => e.tagName.toLowerCase() + (e.id && `#${e.id}`)"
    return str(tab.page.locator(":focus, body:not(:has(:focus))").evaluate(script))


def test_all_of_it_by_keyboard(open_page: Opener, place: Served) -> None:
    tab = open_page()
    press = tab.page.keyboard.press
    tab.page.on("filechooser", lambda chooser: chooser.set_files(place.images[:3]))
    expect(tab.page.locator("#info")).to_contain_text("Index v000001")
    for _ in range(4):
        press("Tab")  # past the views
    assert focused(tab) == "button#choose"
    press("Enter")
    tab.finished(3)
    order: list[str] = []
    while focused(tab) != "body" and len(order) < 80:
        order.append(focused(tab))
        press("Tab")
    assert focused(tab) == "body"  # past the last control: no trap
    n = tab.page.locator(".concept, .case, .like").count()
    assert n > 10
    assert order == [
        "button#choose", "summary", "input#q", "button", "button#review", "button#copy",
        "button#download", "button#clear", "button#tab-1", *["button"] * (4 + n), "a#docs",
    ]  # fmt: skip
    for key, now in (
        ("ArrowRight", 2), ("ArrowRight", 3), ("ArrowRight", 3), ("Home", 1), ("ArrowLeft", 1),
        ("End", 3), ("ArrowLeft", 2), ("Delete", 3),
    ):  # fmt: skip
        tab.page.locator(".tab[aria-selected=true]").press(key)
        assert focused(tab) == f"button#tab-{now}"
        name = place.images[now - 1].name
        expect(tab.page.get_by_role("tab", selected=True)).to_contain_text(name)
        expect(tab.page.get_by_role("tabpanel")).to_contain_text(name)
    expect(tab.page.locator("#status")).to_have_text(f"{place.images[1].name} removed.")
    tab.finished(2)
    summary = tab.page.locator("#annotate-view summary")
    summary.press("Enter")
    tab.page.get_by_label("Neighbours to list").press_sequentially("1")
    press("Enter")
    expect(tab.page.locator(".neighbor")).to_have_count(1)


def test_a_concept_and_its_cases_light_up(open_page: Opener, server: str, place: Served) -> None:
    tab = open_page()
    tab.annotate(place.images[0])
    wanted = answer(server, place.images[0])
    lit = tab.page.locator(".neighbor.lit")
    for concept, row in zip(wanted["concepts"], tab.page.locator(".concept").all(), strict=True):
        holders = sum(concept["cui"] in n["cuis"] for n in wanted["neighbors"])
        row.hover()
        expect(lit).to_have_count(holders)
    tab.page.mouse.move(0, 0)
    expect(lit).to_have_count(0)
    rows = tab.page.locator("li.lit > .concept")
    chosen = {c["cui"] for c in wanted["concepts"]}
    for neighbor, card in zip(wanted["neighbors"], tab.page.locator(".case").all(), strict=True):
        card.focus()
        expect(rows).to_have_count(len(chosen & set(neighbor["cuis"])))
    tab.page.locator(".concept").first.click()  # stays
    tab.page.locator("#choose").focus()
    tab.page.mouse.move(0, 0)
    expect(tab.page.locator(".concept").first).to_have_attribute("aria-pressed", "true")
    assert lit.count() > 0


def test_the_cases_of_a_concept(open_page: Opener, server: str) -> None:
    wanted = httpx.get(f"{server}/v1/search", params={"q": "Brain", "k": 8}).json()
    tab = open_page()
    field = tab.page.get_by_label("Find cases of the index")
    field.press_sequentially("brai")
    known = tab.page.locator("#known option")
    expect(known.first).to_have_attribute("value", "Brain")
    found = tab.find("brain")
    concept = wanted["concept"]
    expect(found.locator("h2")).to_have_text(f"Brain {concept['cui']} · {concept['images']} images")
    lists = found.locator(".cases")
    expect(lists).to_have_count(3)
    cards = lists.first.locator(".neighbor")
    expect(cards).to_have_count(len(wanted["cases"]))
    for card, case in zip(cards.all(), wanted["cases"], strict=True):
        expect(card).to_contain_text(case["id"])
        expect(card).to_contain_text(f"{case['score']:.2f} of the votes")
        expect(card.locator(".chip.chosen")).to_have_text(["Brain"])
        card.locator("img").evaluate("picture => picture.decode()")
    expect(tab.page.locator("#status")).to_contain_text(f"Brain {concept['cui']}")
    tab.button("Close").click()
    expect(found).to_be_hidden()
    expect(field).to_be_focused()


def test_what_is_not_found_and_what_means_several(open_page: Opener, server: str) -> None:
    tab = open_page()
    found = tab.find("a wardrobe")
    expect(found.locator(".notice.error")).to_contain_text("is called 'a wardrobe'")
    found = tab.find("ma")
    expect(found.locator("h2")).to_have_text("Which “ma”?")
    choice = found.get_by_role("button", name=re.compile("Magnetic Resonance Imaging"))
    choice.press("Enter")
    expect(found.locator("h2")).to_contain_text("Magnetic Resonance Imaging")
    expect(found.locator("h2")).to_be_focused()


def test_cases_like_one_that_is_shown(open_page: Opener, server: str, place: Served) -> None:
    tab = open_page()
    tab.annotate(place.images[0])
    nearest = answer(server, place.images[0])["neighbors"][0]["id"]
    tab.page.get_by_role("button", name=f"Similar cases to {nearest}").click()
    found = tab.page.locator("#found")
    expect(found.locator("h2")).to_have_text(f"Like {nearest}")
    wanted = httpx.get(f"{server}/v1/similar", params={"id": nearest, "k": 8}).json()
    (result,) = wanted["results"]
    expect(found.locator(".case-id")).to_have_text([case["id"] for case in result["cases"]])
    first = result["cases"][0]
    expect(found.locator(".neighbor").first).to_contain_text(f"similarity {first['score']:.3f}")
    found.get_by_role("button", name=f"Similar cases to {first['id']}").click()  # and on from there
    expect(found.locator("h2")).to_have_text(f"Like {first['id']}")
    expect(tab.page.locator(".concept").first).to_be_visible()  # the annotation stays


def test_a_search_asks_for_the_key(open_page: Opener, small_server: str) -> None:
    tab = open_page(small_server)
    tab.page.get_by_label("Find cases of the index").fill("Brain")
    tab.page.keyboard.press("Enter")
    expect(tab.page.locator("#found")).to_be_hidden()
    tab.sign_in()
    expect(tab.find("Brain").locator(".neighbor").first).to_be_visible()


def test_the_key_is_asked_for_and_forgotten(
    open_page: Opener, small_server: str, place: Served
) -> None:
    tab = open_page(small_server)
    field = tab.page.get_by_label("Key", exact=True)
    expect(field).to_be_focused()
    tab.upload(place.images[0])
    expect(tab.tabs()).to_contain_text("waiting")
    for wrong, why in (
        ("a key with spaces", "no spaces"),
        ("not-the-key-at-all", "not accepted"),
    ):
        field.fill(wrong)
        field.press("Enter")
        expect(tab.page.get_by_role("alert")).to_contain_text(why)
        expect(field).to_be_visible()
    field.fill(KEY)
    field.press("Enter")
    tab.finished(1)
    expect(field).to_be_hidden()
    expect(tab.page.locator("#info")).to_contain_text("Index v000001")
    expect(tab.page.locator(".neighbor")).to_have_count(10)
    tab.neighbors_have_pictures()  # fetched with the key, too
    kept = "() => JSON.stringify([localStorage, sessionStorage, document.cookie, location.href])"
    assert KEY not in tab.page.evaluate(kept)
    expect(tab.page.get_by_role("link", name="HTTP API")).to_be_hidden()  # it would answer 401
    tab.page.reload()
    expect(field).to_be_visible()


def test_a_late_refusal_of_a_former_key(
    open_page: Opener, small_server: str, place: Served
) -> None:
    tab = open_page(small_server)
    field = tab.page.get_by_label("Key", exact=True)
    expect(field).to_be_focused()
    tab.upload(place.images[0])
    held: list[Route] = []
    tab.page.route("**/v1/info", lambda route: route.continue_() if held else held.append(route))
    field.fill("not-the-key-at-all")
    field.press("Enter")
    expect(tab.page.get_by_role("alert")).to_contain_text("not accepted")
    field.fill(KEY)
    field.press("Enter")
    tab.finished(1)
    held[0].continue_()
    expect(tab.page.locator("#info")).to_contain_text("Index v000001")
    expect(field).to_be_hidden()
    tab.upload(place.images[1])
    tab.finished(2)


def test_a_busy_server_is_waited_for(open_page: Opener, small_server: str, place: Served) -> None:
    tab = open_page(small_server)
    tab.sign_in()
    statuses: list[int] = []
    tab.page.on("response", lambda response: statuses.append(response.status))
    tab.upload(*place.images[:3])
    expect(tab.tabs().filter(has_text="server busy, again in").first).to_be_visible()
    tab.finished(3)
    assert 429 in statuses


def test_a_file_that_is_too_large(
    open_page: Opener, small_server: str, place: Served, tmp_path: Path
) -> None:
    tab = open_page(small_server)
    tab.sign_in()
    expect(tab.page.locator("#info")).to_contain_text("Index v000001")
    large = tmp_path / "large.png"
    large.write_bytes(bytes(1_500_000))
    tab.annotate(large, place.images[0], failed=1)
    expect(tab.page.locator(".notice.error")).to_contain_text("1.4 MiB; the server takes 1.0 MiB")
    assert sum("/v1/annotate" in url for url in tab.requests) == 1


def test_without_a_server(open_page: Opener, place: Served) -> None:
    tab = open_page()
    tab.page.context.set_offline(True)
    tab.upload(place.images[0])
    error = tab.page.locator(".notice.error")
    expect(error).to_contain_text("The server cannot be reached")
    tab.page.context.set_offline(False)
    error.get_by_role("button", name="Try again").press("Enter")
    tab.finished(1)


def test_options_change_the_answer(open_page: Opener, server: str, place: Served) -> None:
    tab = open_page()
    tab.annotate(*place.images[:2])
    before = answer(server, place.images[0])
    assert shows_concepts(tab, before)
    tab.page.get_by_text("Options").click()
    tab.page.get_by_label("Neighbours that vote (k)").fill("3")
    tab.page.get_by_label("Decider").select_option("top-r")
    tab.page.get_by_label("Least score (0 to 1)").fill("0.6")
    tab.page.get_by_label("Neighbours to list").fill("2")
    tab.button("Apply to all images").click()
    expect(tab.page.locator(".neighbor")).to_have_count(2)
    wanted = answer(server, place.images[0], k=3, decider="top-r", min_score=0.6, neighbors=2)
    assert shows_concepts(tab, wanted) and not shows_concepts(tab, before)
    tab.button("Back to the defaults").click()
    expect(tab.page.locator(".neighbor")).to_have_count(10)
    assert shows_concepts(tab, before)
    tab.page.get_by_label("Least score (0 to 1)").fill("7")
    tab.page.get_by_text("Options").click()
    tab.upload(place.images[2])  # annotated as before; the form says what is wrong with it
    tab.finished(3)
    expect(tab.page.get_by_label("Least score (0 to 1)")).to_be_focused()


def test_the_run_is_valid(open_page: Opener, server: str, place: Served, tmp_path: Path) -> None:
    twin = tmp_path / "other" / place.images[0].name  # two images with one id
    twin.parent.mkdir()
    shutil.copy(place.images[1], twin)
    awkward = tmp_path / " a,b|c d.png "
    shutil.copy(place.noise, awkward)
    tab = open_page(permissions=["clipboard-read", "clipboard-write"])
    tab.annotate(*place.images[:2], place.broken, twin, awkward, failed=1)
    with tab.page.expect_download() as download:
        tab.button("Download run.csv").click()
    assert download.value.suggested_filename == "run.csv"
    run = tmp_path / "run.csv"
    download.value.save_as(run)
    first, second = (image_id(image.name) for image in place.images[:2])
    with run.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    ids = [row[0] for row in rows[1:]]
    assert ids[:3] == [first, second, f"{first}-2"]
    assert validate_run(run, ids) == []
    for row, image in zip(rows[1:], (*place.images[:2], twin, awkward), strict=True):
        assert row[1] == ";".join(c["cui"] for c in answer(server, image)["concepts"])
    tab.button("Copy run.csv").click()
    expect(tab.button("Copied")).to_be_visible()
    assert tab.page.evaluate("() => navigator.clipboard.readText()") == run.read_text()


def test_an_unfamiliar_image_is_called_so(open_page: Opener, server: str, place: Served) -> None:
    tab = open_page()
    body = full_answer(server, place.images[0])
    tab.page.route("**/v1/annotate?*", lambda route: route.fulfill(json=body))
    for familiarity in (
        None,
        0.0,
        UNFAMILIAR - 1e-4,
        UNFAMILIAR,
    ):  # at the threshold, which no image meets
        body["results"][0]["familiarity"] = familiarity
        unfamiliar = familiarity is not None and familiarity < UNFAMILIAR
        body["results"][0]["unfamiliar"] = unfamiliar
        tab.annotate(place.images[0])
        fact = tab.page.locator("dt", has_text="Familiarity")
        expect(fact).to_have_count(int(familiarity is not None))
        expect(tab.page.locator(".notice.warning")).to_have_count(int(unfamiliar))
        expect(tab.tabs().filter(has_text="resembles nothing")).to_have_count(int(unfamiliar))
        tab.button("Remove all").click()
        expect(tab.tabs()).to_have_count(0)


def test_what_was_done_to_a_picture_is_said(
    open_page: Opener, place: Served, tmp_path: Path
) -> None:
    tab = open_page()
    stack = tmp_path / "stack.tif"
    with Image.open(place.images[0]) as picture:
        blank = [Image.new("L", picture.size)] * 2
        picture.convert("L").save(stack, save_all=True, append_images=blank)
    tab.annotate(stack)
    expect(tab.page.locator(".notice")).to_have_text(
        "About the picture: middle frame is blank; the nearest one that is not is used."
    )


# For each visible text, the contrast with what is behind it (WCAG 2, success criterion 1.4.3).
CONTRASTS = r"""() => {
  const parts = (colour) => colour.match(/[\d.]+/g).map(Number);
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((v) => v / 255)
      .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const [r, g, b, alpha = 1] = parts(getComputedStyle(e).backgroundColor);
      if (alpha === 1) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; (node = walker.nextNode()); ) {
    const element = node.parentElement;
    if (!node.data.trim() || !element.checkVisibility()) continue;
    const [a, b] = [parts(getComputedStyle(element).color).slice(0, 3), behind(element)]
      .map(luminance).sort((x, y) => y - x);
    found.push([node.data.trim(), (a + 0.05) / (b + 0.05)]);
  }
  return found;
}"""


def test_every_text_can_be_read(open_page: Opener, place: Served) -> None:
    tab = open_page(reduced_motion="reduce")
    tab.annotate(place.images[0], place.broken, place.noise, place.dicom, failed=1)
    tab.page.get_by_text("Options").click()
    tab.find("Brain")
    for scheme, i in product(("light", "dark"), range(4)):
        tab.page.emulate_media(color_scheme=scheme)
        ground = tab.page.evaluate("() => getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", ground))) > 380) == (scheme == "light")
        tab.tabs().nth(i).click()
        if tab.page.locator(".concept").count():
            tab.page.locator(".concept").first.hover()
        contrasts = tab.page.evaluate(CONTRASTS)
        assert len(contrasts) > 20
        assert [(text, ratio) for text, ratio in contrasts if ratio < 4.5] == []


def test_every_control_has_a_name(open_page: Opener, small_server: str, place: Served) -> None:
    tab = open_page(small_server)
    tab.sign_in()
    tab.annotate(place.images[0], place.dicom)
    tab.page.get_by_text("Options").click()
    tab.page.evaluate("() => { document.querySelector('#key-form').hidden = false; }")
    session = tab.page.context.new_cdp_session(tab.page)
    nodes = [
        (node["role"]["value"], node.get("name", {}).get("value", "").strip())
        for node in session.send("Accessibility.getFullAXTree")["nodes"]
        if not node["ignored"]
    ]
    controls = {
        "button", "tab", "textbox", "spinbutton", "combobox", "tablist", "tabpanel", "image",
        "DisclosureTriangle", "progressbar", "searchbox", "region",
    }  # fmt: skip
    seen = {role for role, _ in nodes}
    assert seen >= {"button", "tab", "textbox", "spinbutton", "combobox", "tabpanel", "image"}
    assert [role for role, name in nodes if role in controls and not name] == []
    assert seen >= {"banner", "main", "contentinfo", "status"}
    levels = tab.page.locator("h1, h2, h3").evaluate_all("all => all.map(h => +h.tagName[1])")
    assert levels[0] == 1 and all(b - a <= 1 for a, b in pairwise(levels))
    ids = tab.page.locator("[id]").evaluate_all("all => all.map(e => e.id)")
    assert len(ids) == len(set(ids))
    assert tab.page.locator("html").get_attribute("lang") == "en"


@pytest.mark.parametrize(
    ("width", "height", "scale"), [(360, 740, 1), (640, 400, 2)], ids=["phone", "zoom-200"]
)
def test_small_windows(
    open_page: Opener, place: Served, width: int, height: int, scale: int
) -> None:
    tab = open_page(viewport={"width": width, "height": height}, device_scale_factor=scale)
    tab.annotate(*place.images[:5], place.broken, failed=1)
    tab.page.get_by_text("Options").click()
    for i in (0, 5):
        tab.tabs().nth(i).click()
        html = "document.documentElement"
        assert tab.page.evaluate(f"() => {html}.scrollWidth - {html}.clientWidth") == 0
    tab.page.locator("#info").scroll_into_view_if_needed()
    expect(tab.page.get_by_text("Not for clinical use.")).to_be_in_viewport()


def test_a_picture_for_the_documentation(open_page: Opener, place: Served) -> None:
    target = os.environ.get("ANNOTATOR_SCREENSHOT")
    if not target:
        pytest.skip("ANNOTATOR_SCREENSHOT names no file")
    tab = open_page(reduced_motion="reduce")
    tab.annotate(*place.images[::2][:7])
    tab.neighbors_have_pictures()
    tab.page.locator(".concept").last.hover()
    tab.page.screenshot(path=target, full_page=True)

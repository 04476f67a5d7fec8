"""The image by the steps of its Dockerfile, and the service in it as a cluster runs it.

Takes minutes and the network, so it only runs where it is asked for:
    ANNOTATOR_REQUIRE_IMAGE=1 python -m pytest tests/deploy/test_image.py
IMAGE_BASE names a folder with Debian bookworm; without it debootstrap makes one.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import httpx
import pytest
from asking import build as build_index
from asking import drawing, finish, started_request
from image import Container, Image, build

ROOT = Path(__file__).parents[2]
KEY = "a-key-of-the-tests-0123456789"
HEADERS = {"X-API-Key": KEY}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3000),
    pytest.mark.skipif(
        os.environ.get("ANNOTATOR_REQUIRE_IMAGE") != "1",
        reason="the image takes minutes to make: set ANNOTATOR_REQUIRE_IMAGE=1, as root",
    ),
]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """The image for CPUs."""
    work = tmp_path_factory.mktemp("image")
    base = Path(os.environ.get("IMAGE_BASE", work / "base"))
    if not base.exists():
        subprocess.run(["debootstrap", "--variant=minbase", "bookworm", base], check=True)
        for name in ("doc", "man", "info", "locale"):  # as Debian's slim images
            shutil.rmtree(base / "usr/share" / name, ignore_errors=True)
    index = os.environ.get("IMAGE_TORCH_INDEX", "https://download.pytorch.org/whl/cpu")
    return build(ROOT / "service/deploy/Dockerfile", ROOT, base, work, TORCH_INDEX=index)


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An index and a secret, as volumes of a cluster have them: of root, for a group."""
    from annotator.encoders.registry import make_embedder

    folder = tmp_path_factory.mktemp("volumes")
    build_index(folder / "index", make_embedder(device="cpu"))
    (folder / "secret").mkdir()
    keys = folder / "secret" / "keys"
    keys.write_text(f"annotate:{KEY} Ada\n")
    keys.chmod(0o440)
    for path in (folder / "secret", keys):
        shutil.chown(path, 0, 10001)
    return {"/index": folder / "index", "/etc/annotator": folder / "secret"}


def served(image: Image, volumes: dict[str, Path]) -> Container:
    return Container(
        image, volumes, ANNOTATOR_API_KEY_FILE="/etc/annotator/keys", ANNOTATOR_PORT=18321
    )


def wait_until_ready(container: Container) -> str:
    assert container.process.stdout is not None
    line = container.process.stdout.readline()
    assert line.startswith("Serving on http"), container.wait()
    return "http://127.0.0.1:18321"


def test_it_is_small_and_has_nothing_to_build_with(image: Image) -> None:
    print(f"{image.bytes / 1e9:.2f} GB")
    assert image.bytes < 1.2e9
    for name in ("gcc", "cc", "make", "pip", "pip3", "curl", "wget"):
        for place in ("usr/bin", "usr/local/bin", "opt/annotator/bin"):
            assert not (image.root / place / name).exists(), name


def test_nothing_can_be_written_and_nobody_is_root(image: Image, volumes: dict[str, Path]) -> None:
    script = (
        "id -u; id -g; grep -E '^(CapEff|NoNewPrivs)' /proc/self/status; "
        "for f in /x /opt/annotator/x /index/x /etc/annotator/x /etc/annotator/keys /dev/x; "
        "do (: >> $f) 2>/dev/null && echo $f is written; done; : > /tmp/x && echo tmp; "
        "python3 -c 'from index.cores import usable_cores; print(usable_cores())'"
    )
    with Container(image, volumes, 1, ["sh", "-c", script]) as container:
        code, out, errors = container.wait()
    assert code == 0, errors
    assert out.split() == [
        "10001", "10001", "CapEff:", "0" * 16, "NoNewPrivs:", "1", "tmp", "1"
    ]  # fmt: skip


def test_it_starts_serves_drains_and_starts_again(image: Image, volumes: dict[str, Path]) -> None:
    for _ in range(2):
        with served(image, volumes) as container:
            url = wait_until_ready(container)
            assert httpx.get(f"{url}/readyz").status_code == 200
            assert httpx.get(f"{url}/v1/info").status_code == 401
            files = {"f": ("scan.png", drawing(3))}
            answer = httpx.post(
                f"{url}/v1/annotate", files=files, headers=HEADERS, timeout=60
            ).json()
            assert answer["results"][0]["neighbors"][0]["id"] == "train03"
            check = Container(image, {}, command=image.health, ANNOTATOR_PORT=18321)
            with check:
                assert check.wait()[0] == 0

            class Address:
                host, port = "127.0.0.1", 18321

            held = started_request(Address, drawing(4), f"X-API-Key: {KEY}")
            time.sleep(0.2)
            container.send_signal(signal.SIGTERM)
            status, body = finish(held, drawing(4)[-1:])
            assert (status, body["results"][0]["neighbors"][0]["id"]) == (200, "train04")
            code, _, errors = container.wait()
            assert code == 0 and '"event": "stopped"' in errors, errors
            assert "Traceback" not in errors and '"error"' not in errors
    with Container(image, {}, command=image.health, ANNOTATOR_PORT=18321) as check:
        assert check.wait()[0] != 0  # nobody is there

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from annotator.cli import cli
from annotator.cli.serve import serve_command
from service.settings import Settings, read_settings

DOCS = Path(__file__).parents[2] / "docs" / "service.md"


def test_flags_win_over_the_environment_and_that_over_defaults(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ANNOTATOR_PORT", "8001")
    monkeypatch.setenv("ANNOTATOR_MAX_QUEUE", "7")
    monkeypatch.setenv("ANNOTATOR_INDEX", "/somewhere")
    settings = read_settings(port=8002, host=None)
    assert (settings.port, settings.max_queue, settings.host) == (8002, 7, "127.0.0.1")
    assert settings.index == "/somewhere"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"port": 70000}, r"port \(environment: ANNOTATOR_PORT\): .*65535"),
        ({"timeout_s": 0}, "timeout_s .* greater than 0"),
        ({"host": "0.0.0.0"}, "0.0.0.0 can be reached from other machines.*--api-key-file"),
        ({"allow_reload": True}, "--allow-reload needs --api-key-file"),
        ({"writable": True}, "--writable needs --api-key-file"),
        ({"label_studio": "labels.example.org"}, "--label-studio must look like"),
        ({"cors_origin": "https://example.org/path"}, "--cors-origin must look like"),
    ],
)
def test_what_is_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read_settings(**given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_needs_no_key(host: str) -> None:
    assert read_settings(host=host).is_loopback


def test_other_addresses_with_a_key_or_insecure() -> None:
    assert read_settings(host="0.0.0.0", api_key_file="keys").host == "0.0.0.0"
    assert read_settings(host="::", insecure=True).insecure


def test_a_request_never_holds_more_images_than_the_queue() -> None:
    assert read_settings(max_queue=8).images_per_request == 8
    assert read_settings(max_images=3).images_per_request == 3


def test_the_command_shows_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANNOTATOR_MAX_BATCH", "4")
    result = CliRunner().invoke(cli, ["serve", "--port", "0", "--allow-reload", "--api-key-file",
                                      "keys.txt", "--show-settings"])  # fmt: skip
    shown = json.loads(result.stdout)
    assert result.exit_code == 0 and shown.keys() == Settings.model_fields.keys()
    assert (shown["port"], shown["max_batch"], shown["allow_reload"]) == (0, 4, True)


def test_the_command_refuses_to_be_open_to_everybody() -> None:
    result = CliRunner().invoke(cli, ["serve", "--host", "0.0.0.0"])
    assert result.exit_code == 2
    assert "0.0.0.0 can be reached from other machines, and no API keys are set" in result.stderr


@pytest.mark.parametrize("package", ["fastapi", "pydantic_settings"])
def test_the_command_names_the_extra_that_is_missing(package: str) -> None:
    script = f"import sys; sys.modules['{package}'] = None; from annotator.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script, "serve"],
        capture_output=True, text=True, cwd=DOCS.parents[1],
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        f"Error: The service needs the package {package}, which is not installed.",
        '  pip install "cui-annotator[service]"',
    ]


def test_every_flag_is_a_setting() -> None:
    flags = {p.name for p in serve_command.params if p.expose_value} - {"show_settings"}
    assert flags <= Settings.model_fields.keys()


def test_the_table_in_the_documentation() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \| (.*?) \|$", DOCS.read_text(), re.M)
    flags = {p.name: p.opts[0] for p in serve_command.params}
    expected = []
    for name, field in Settings.model_fields.items():
        default = "" if field.default is None else f"`{json.dumps(field.default, default=str)}`"
        flag = f"`{flags[name]}`" if name in flags else ""
        expected.append((name, flag, default.replace('"', ""), field.description))
    assert rows == expected

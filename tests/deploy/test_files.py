"""The files with which the service is deployed agree with it and with each other."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from image import _instructions as instructions

from annotator import __version__

pytest.importorskip("service.settings", reason="the extra `service` is not installed")

from service.routes import HEALTH_PATHS
from service.settings import Settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "service" / "deploy"


def load(name: str) -> Any:
    return yaml.safe_load((DEPLOY / name).read_text())


def settings_in(names: set[str]) -> set[str]:
    return {n.removeprefix("ANNOTATOR_").lower() for n in names if n.startswith("ANNOTATOR_")}


def test_the_dockerfile_ends_without_root_and_without_tools() -> None:
    steps = instructions(DEPLOY / "Dockerfile")
    last = max(i for i, (keyword, _) in enumerate(steps) if keyword == "FROM")
    final = steps[last:]
    assert ("USER", "10001:10001") in final
    assert not any("pip" in text or "venv" in text for _, text in final)
    health = next(text for keyword, text in final if keyword == "HEALTHCHECK")
    assert any(path in health for path in HEALTH_PATHS)
    named = {text.partition("=")[0] for keyword, text in final if keyword == "ENV"}
    assert settings_in(named) - {"cache"} <= Settings.model_fields.keys()
    for keyword, text in steps:
        if keyword == "COPY" and "--from" not in text:
            for name in text.split()[:-1]:
                assert (ROOT / name).exists(), name


def test_the_compose_file_gives_little_away() -> None:
    compose = load("compose.yaml")
    service = compose["services"]["annotator"]
    assert service["read_only"] and service["cap_drop"] == ["ALL"]
    assert settings_in(set(service["environment"])) <= Settings.model_fields.keys()
    assert (DEPLOY / service["build"]["context"]).resolve() == ROOT
    assert (ROOT / service["build"]["dockerfile"]).is_file()
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    scraped = load("prometheus.yaml")["scrape_configs"][0]["static_configs"][0]["targets"]
    assert scraped == ["annotator:" + service["command"][-1]]
    if shutil.which("docker"):  # parses it, without a daemon
        done = subprocess.run(
            ["docker", "compose", "-f", DEPLOY / "compose.yaml", "config", "--quiet"],
            capture_output=True, text=True,
        )  # fmt: skip
        if "unknown" not in done.stderr and "is not a docker command" not in done.stderr:
            assert done.returncode == 0, done.stderr


def test_the_charts_settings_exist() -> None:
    assert load("chart/Chart.yaml")["appVersion"] == __version__
    values = load("chart/values.yaml")
    assert values["settings"].keys() <= Settings.model_fields.keys()
    text = (DEPLOY / "chart/templates/deployment.yaml").read_text()
    named = set(re.findall(r"name: (ANNOTATOR_[A-Z_]+)\n", text))
    assert settings_in(named) - {"cache"} <= Settings.model_fields.keys()
    schema = json.loads((DEPLOY / "chart/values.schema.json").read_text())
    assert values.keys() <= schema["properties"].keys()
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    jsonschema.validate(values, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**values, "replicaCount": 3}, schema)


def test_a_pod_ends_after_the_service_has_drained() -> None:
    defaults = {name: field.default for name, field in Settings.model_fields.items()}
    drained = defaults["read_timeout_s"] + defaults["timeout_s"] + 5
    text = (DEPLOY / "chart/templates/deployment.yaml").read_text()
    grace = re.search(r"terminationGracePeriodSeconds: (\d+)", text)
    assert grace is not None
    assert int(grace[1]) >= drained + load("chart/values.yaml")["settings"]["shutdown_delay_s"]
    stop = load("compose.yaml")["services"]["annotator"]["stop_grace_period"]
    assert int(stop.removesuffix("s")) >= drained


def test_nginx_takes_its_example(tmp_path: Path) -> None:
    if shutil.which("nginx") is None or shutil.which("openssl") is None:
        pytest.skip("nginx or openssl is not installed")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x", "-days", "1",
         "-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    example = (DEPLOY / "nginx.conf").read_text()
    example = re.sub(r"(ssl_certificate) \S+;", rf"\1 {tmp_path}/cert.pem;", example)
    example = re.sub(r"(ssl_certificate_key) \S+;", rf"\1 {tmp_path}/key.pem;", example)
    config = tmp_path / "nginx.conf"
    config.write_text(
        f"pid {tmp_path}/pid; error_log stderr; events {{}}\n"
        f"http {{ access_log off; client_body_temp_path {tmp_path}/a; proxy_temp_path {tmp_path}/b;"
        f" fastcgi_temp_path {tmp_path}/c; uwsgi_temp_path {tmp_path}/d;"
        f" scgi_temp_path {tmp_path}/e;\n{example}\n}}\n"
    )
    done = subprocess.run(["nginx", "-t", "-c", config], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    limit = Settings.model_fields["max_upload_mb"].default
    assert f"client_max_body_size {limit}m;" in example

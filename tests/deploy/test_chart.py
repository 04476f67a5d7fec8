"""The chart, linted and rendered by Helm, and its objects by the schemas of Kubernetes."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import Settings

CHART = Path(__file__).parents[2] / "service" / "deploy" / "chart"
KUBERNETES = "1.31"
KEYS: dict[str, Any] = {"keys": {"lines": ["correct:0123456789abcdef0123 Ada"]}}
WAY_OUT: dict[str, Any] = {"to": [{"ipBlock": {"cidr": "192.0.2.7/32"}}], "ports": [{"port": 443}]}
ISSUER = {"issuer": "https://login.example.org", "audience": "annotator"}
CHOICES: Mapping[str, dict[str, Any]] = {
    "default": {},
    "writable": {"writable": True, "index": {"accessMode": "ReadWriteOnce"}},
    "keda": {"autoscaling": {"kind": "keda"}},
    "hpa": {"autoscaling": {"kind": "hpa"}},
    "claim": {
        "index": {"existingClaim": "mine", "subPath": "a/b"},
        "networkPolicy": {"from": {"podSelector": {"matchLabels": {"web": "yes"}}}},
        "nodeSelector": {"disk": "fast"},
    },
    "tokens": {
        "keys": {},
        "oidc": {
            "issuer": "https://login.example.org/r",
            "audience": "annotator",
            "rolesClaim": "a.b",
        },
        "otel": {
            "endpoint": "http://collector:4318",
            "sampler": "traceidratio",
            "samplerArgument": "0.1",
        },
        "networkPolicy": {"egress": [WAY_OUT]},
    },
}


class Refused(Exception):
    """Helm does not render the chart."""


def render(values: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    """The objects of a release, after a strict lint; by helm, or by its SDK in Python."""
    given = folder / "given.yaml"
    given.write_text(yaml.safe_dump(values))
    if shutil.which("helm"):
        lint = ["helm", "lint", "--strict", CHART, "--values", given]
        make = ["helm", "template", "demo", CHART, "--namespace", "prod", "--values", given]
        for command in (lint, make):
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise Refused(done.stderr + done.stdout)
        texts = [done.stdout]
    else:
        helm = pytest.importorskip(
            "helm_python", reason="neither helm nor helm-python-sdk is installed"
        )
        try:
            with helm.Chart.load(str(CHART)) as chart:
                made = chart.render(values, name="demo", namespace="prod")
        except helm.HelmError as error:
            raise Refused(str(error)) from error
        report = helm.lint(str(CHART), values, strict=True, kube_version=f"v{KUBERNETES}.0")
        assert not report["errors"] and all(m["severity"] < 2 for m in report["messages"]), report
        texts = [text for name, text in made.items() if not name.endswith("NOTES.txt")]
    return [found for text in texts for found in yaml.safe_load_all(text) if found]


@pytest.mark.parametrize("choice", CHOICES)
def test_objects_are_of_kubernetes(choice: str, tmp_path: Path) -> None:
    objects = render({**KEYS, **CHOICES[choice]}, tmp_path)
    kinds = [one["kind"] for one in objects]
    assert {"Deployment", "Service", "NetworkPolicy"} <= set(kinds)
    assert ("Secret" in kinds) == (choice != "tokens")
    assert ("PersistentVolumeClaim" in kinds) == (choice != "claim")
    assert ("ScaledObject" in kinds) == (choice == "keda")
    assert ("HorizontalPodAutoscaler" in kinds) == (choice == "hpa")
    schemas = pytest.importorskip(
        "kubernetes_validate", reason="kubernetes-validate is not installed"
    )
    for one in objects:
        if one["kind"] != "ScaledObject":  # KEDA's, not of Kubernetes
            schemas.validate(one, KUBERNETES, strict=True)


@pytest.mark.parametrize("choice", CHOICES)
def test_pods_are_restricted(choice: str, tmp_path: Path) -> None:
    """The Pod Security Standard "restricted", version 1.31, as far as our fields go."""
    objects = {one["kind"]: one for one in render({**KEYS, **CHOICES[choice]}, tmp_path)}
    spec = objects["Deployment"]["spec"]["template"]["spec"]
    assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"]
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
    (container,) = spec["containers"]
    allowed = container["securityContext"]
    assert allowed["capabilities"] == {"drop": ["ALL"]} and allowed["readOnlyRootFilesystem"]
    assert allowed["allowPrivilegeEscalation"] is False and "privileged" not in allowed
    kinds = {kind for volume in spec["volumes"] for kind in volume.keys() - {"name"}}
    assert kinds - {"secret"} == {"persistentVolumeClaim", "emptyDir"}
    (index,) = (mount for mount in container["volumeMounts"] if mount["name"] == "index")
    assert index["readOnly"] == (choice != "writable")
    secrets = [volume["secret"] for volume in spec["volumes"] if "secret" in volume]
    assert len(secrets) == (choice != "tokens")
    for secret in secrets:
        assert secret["defaultMode"] == 0o440  # more, and the service refuses its keys
        assert objects["Secret"]["metadata"]["name"] == secret["secretName"]
        assert objects["Secret"]["stringData"]["keys"].split("\n") == [*KEYS["keys"]["lines"], ""]
    if choice == "writable":
        assert objects["Deployment"]["spec"]["replicas"] == 1
        assert objects["Deployment"]["spec"]["strategy"] == {"type": "Recreate"}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "needs API keys"),
        ({**KEYS, "replicaCount": 3}, "replicaCount"),
        ({**KEYS, "settings": {"max_queue": [1]}}, "max_queue"),
        ({**KEYS, "writable": True, "autoscaling": {"kind": "hpa"}}, "one replica"),
        ({"oidc": ISSUER}, "networkPolicy.egress"),
        ({**KEYS, "otel": {"endpoint": "http://collector:4318"}}, "networkPolicy.egress"),
        (
            {"oidc": {"issuer": ISSUER["issuer"]}, "networkPolicy": {"egress": [WAY_OUT]}},
            "oidc.audience",
        ),
    ],
)
def test_what_cannot_run_is_refused(values: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=said):
        render(values, tmp_path)


def test_a_provider_of_tokens_and_a_collector_of_spans(tmp_path: Path) -> None:
    """Both are told to the service by its settings and OpenTelemetry's, and may be reached."""
    objects = {one["kind"]: one for one in render(dict(CHOICES["tokens"]), tmp_path)}
    (container,) = objects["Deployment"]["spec"]["template"]["spec"]["containers"]
    given = {one["name"]: one["value"] for one in container["env"]}
    assert "ANNOTATOR_API_KEY_FILE" not in given
    settings = Settings(
        index="/index",
        **{
            name: given[f"ANNOTATOR_{name.upper()}"]
            for name in ("oidc_issuer", "oidc_audience", "oidc_roles_claim")
        },
    )
    assert settings.oidc_issuer == "https://login.example.org/r"
    assert settings.oidc_audience == "annotator" and settings.oidc_roles_claim == "a.b"
    assert given["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://collector:4318"
    assert given["OTEL_TRACES_SAMPLER"] == "traceidratio"
    assert given["OTEL_TRACES_SAMPLER_ARG"] == "0.1"
    way_out, names = objects["NetworkPolicy"]["spec"]["egress"]
    assert way_out == WAY_OUT and {port["port"] for port in names["ports"]} == {53}


def test_a_pod_that_asks_nobody_may_go_nowhere(tmp_path: Path) -> None:
    objects = {one["kind"]: one for one in render(dict(KEYS), tmp_path)}
    assert objects["NetworkPolicy"]["spec"]["egress"] == []

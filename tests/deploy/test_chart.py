"""The chart, linted and rendered by Helm, and its objects by the schemas of Kubernetes."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

CHART = Path(__file__).parents[2] / "service" / "deploy" / "chart"
KUBERNETES = "1.31"
KEYS: dict[str, Any] = {"keys": {"lines": ["correct:0123456789abcdef0123 Ada"]}}
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
    assert {"Deployment", "Service", "Secret", "NetworkPolicy"} <= set(kinds)
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
    assert kinds == {"persistentVolumeClaim", "secret", "emptyDir"}
    (index,) = (mount for mount in container["volumeMounts"] if mount["name"] == "index")
    assert index["readOnly"] == (choice != "writable")
    (secret,) = (volume["secret"] for volume in spec["volumes"] if "secret" in volume)
    assert secret["defaultMode"] == 0o440  # more, and the service refuses its keys
    if "Secret" in objects:
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
    ],
)
def test_what_cannot_run_is_refused(values: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=said):
        render(values, tmp_path)

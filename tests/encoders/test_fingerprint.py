"""Fingerprints: equal for comparable vectors, different for anything that shapes them."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
import torch
from torch import nn

from annotator.encoders.fingerprint import Fingerprint, weights_digest
from annotator.errors import AnnotatorError

FINGERPRINT = Fingerprint(
    architecture="timm resnet18",
    weights="sha256:00",
    preprocess={"size": 224, "resize": "crop", "mean": (0.5, 0.25, 0.125), "decoder": 1},
    precision="fp32",
    frames="middle",
    dim=512,
)
CHANGES: dict[str, Any] = {
    "architecture": "timm resnet34",
    "weights": "sha256:01",
    "precision": "bf16",
    "frames": "all",
    "dim": 256,
}


def with_preprocess(**changes: Any) -> Fingerprint:
    return dataclasses.replace(FINGERPRINT, preprocess={**FINGERPRINT.preprocess, **changes})


def test_digest_is_the_same_in_every_run() -> None:
    """A changed recipe would make every cache and index useless without a word."""
    assert FINGERPRINT.digest == "c2cd4db239c5f8a6417245f1d7ee878a397e965a0d0a43987a40996ea6cbb160"


def test_every_field_counts() -> None:
    assert set(CHANGES) | {"preprocess"} == {f.name for f in dataclasses.fields(Fingerprint)}
    others = [dataclasses.replace(FINGERPRINT, **{key: value}) for key, value in CHANGES.items()]
    others += [
        with_preprocess(size=225),
        with_preprocess(mean=(0.5, 0.25, 0.126)),
        with_preprocess(decoder=2),
        with_preprocess(new=None),
    ]
    digests = {fingerprint.digest for fingerprint in (FINGERPRINT, *others)}
    assert len(digests) == 1 + len(others)


def test_json_round_trip_and_another_order_of_preprocess() -> None:
    fields = json.loads(json.dumps(FINGERPRINT.to_dict()))
    fields["preprocess"] = dict(reversed(fields["preprocess"].items()))
    read = Fingerprint.from_dict(fields)
    assert read == FINGERPRINT
    assert read.digest == FINGERPRINT.digest
    assert read.differences(FINGERPRINT) == []


def test_a_missing_field_is_named() -> None:
    fields = FINGERPRINT.to_dict()
    del fields["dim"], fields["frames"]
    with pytest.raises(AnnotatorError, match="lacks frames, dim"):
        Fingerprint.from_dict(fields)


def test_differences_name_the_field() -> None:
    for field, value in CHANGES.items():
        other = dataclasses.replace(FINGERPRINT, **{field: value})
        mine = getattr(FINGERPRINT, field)
        assert FINGERPRINT.differences(other) == [f"{field}: {mine}, not {value}"]
        assert other.differences(FINGERPRINT) == [f"{field}: {value}, not {mine}"]
    other = dataclasses.replace(with_preprocess(size=384, extra=1), dim=3)
    assert FINGERPRINT.differences(other) == [
        "dim: 512, not 3",
        "preprocess.extra: None, not 1",
        "preprocess.size: 224, not 384",
    ]


def network(dtype: torch.dtype = torch.float32) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(generator=generator)
    return model.to(dtype)


def test_weights_digest_is_a_function_of_the_weights() -> None:
    digest = weights_digest(network())
    assert digest.startswith("sha256:")
    channels_last = network().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert weights_digest(channels_last) == weights_digest(network()) == digest
    digests = {digest}
    for name, tensor in network().state_dict().items():  # one flipped bit in each
        changed = network()
        target = changed.state_dict()[name].view(-1)
        if tensor.is_floating_point():
            target = target.view(torch.int32)
        target[-1] ^= 1
        digests.add(weights_digest(changed))
    assert len(digests) == 1 + len(network().state_dict())


def test_names_shapes_and_dtypes_count() -> None:
    model = network()
    renamed = nn.Sequential()
    renamed.inner = model
    reshaped = network()
    reshaped[0].weight = nn.Parameter(reshaped[0].weight.detach().transpose(2, 3).reshape(4, 9, 3))  # type: ignore[index]
    half = network(torch.bfloat16)
    assert len({weights_digest(m) for m in (model, renamed, reshaped, half)}) == 4

"""Settings from flags, the environment (`ANNOTATOR_*`) and defaults, in this order."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

_ORIGIN = re.compile(r"https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?")
_LABEL_STUDIO = re.compile(r"https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[A-Za-z0-9._/-]*)?")
# Keys that come over plain HTTP are as good as none, but for tests on one machine.
_ISSUER = re.compile(
    r"(https://[A-Za-z0-9.-]+|http://(localhost|127\.0\.0\.1))(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?"
)
_MEBIBYTE = 1 << 20


class Settings(BaseSettings):
    """Settings of the service; None chooses for the machine, or turns off."""

    model_config = SettingsConfigDict(
        env_prefix="ANNOTATOR_", frozen=True, hide_input_in_errors=True
    )

    index: str = Field(
        "concept-index", description="Folder of the index, or milvus://HOST:PORT/NAME."
    )
    images: str | None = Field(
        None,
        description="Folder or pattern of the index's image files, to show them large.",
    )
    names: Path | None = Field(
        None,
        description="Table of names by CUI, to suggest concepts that no image has yet.",
    )
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 for any free one.")
    metrics_port: int | None = Field(
        None, ge=0, le=65535, description="Port for /metrics alone, without a key; 0 for any."
    )
    api_key_file: Path | None = Field(
        None, description="File with one API key a line; without it, no key is asked for."
    )
    api_keys: SecretStr | None = Field(
        None, description="API keys themselves, separated by commas."
    )
    oidc_issuer: str | None = Field(
        None, description="Identity provider whose tokens are accepted, as `iss` has it."
    )
    oidc_audience: str | None = Field(
        None, description="What `aud` of these tokens has to hold: the name of this service there."
    )
    oidc_roles_claim: str = Field(
        "roles", description="Their claim with roles; with dots for claims within others."
    )
    insecure: bool = Field(
        False, description="Without keys, serve other machines and other host names, too."
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where the encoder runs.")
    engine: Literal["auto", "openvino", "torch"] = Field(
        "auto", description="What runs the encoder; auto: OpenVINO on a CPU where it can."
    )
    max_batch: int | None = Field(
        None, ge=1, le=4096, description="Images encoded at once (8 or 16; on a GPU 128)."
    )
    batch_wait_ms: float = Field(
        2.0, ge=0, le=1000, description="How long a batch waits for images that are being decoded."
    )
    processes: int = Field(
        1, ge=1, le=64, description="Processes that share the port, the index and the limits."
    )
    workers: int | None = Field(
        None, ge=1, le=256, description="Threads that decode (the cores, at most 16)."
    )
    encoders: int | None = Field(
        None, ge=1, le=64, description="Batches encoded at the same time (the cores; on a GPU 1)."
    )
    max_queue: int = Field(
        128, ge=1, le=100_000, description="Images accepted and unfinished; beyond, 429."
    )
    max_connections: int = Field(
        512, ge=8, le=100_000, description="Connections at once; beyond, silent ones are closed."
    )
    max_upload_mb: int = Field(64, ge=1, le=4096, description="Largest request body, in MiB.")
    max_images: int = Field(32, ge=1, le=10_000, description="Most images in a request.")
    max_megapixels: float = Field(
        64.0, gt=0, le=1000, description="Largest frame of an image, in millions of pixels."
    )
    max_decode_mb: int = Field(
        2048, ge=64, le=1 << 20, description="Memory for images being decoded, in MiB; others wait."
    )
    max_decode_s: float = Field(
        20.0,
        gt=0,
        le=3600,
        description="CPU time to decode JPEG 2000 or compressed DICOM, in seconds an image.",
    )
    max_frames: int = Field(
        64, ge=1, le=10_000, description="Most frames used of an image, if the index uses all."
    )
    allow_blank: bool = Field(
        False, description="Annotate images that are blank (nearly constant), too."
    )
    min_familiarity: float | None = Field(
        None, ge=0, le=1, description="No concepts for images that are less familiar."
    )
    timeout_s: float = Field(
        30.0, gt=0, le=3600, description="Seconds to answer in once the images are there."
    )
    read_timeout_s: float = Field(
        30.0,
        gt=0,
        le=3600,
        description="Seconds that a client has to send the body of a request.",
    )
    header_timeout_s: float = Field(
        10.0, gt=0, le=3600, description="Seconds that a client has to send the headers."
    )
    send_timeout_s: float = Field(
        30.0, gt=0, le=3600, description="Seconds that a client has to take what was sent."
    )
    shutdown_delay_s: float = Field(
        0.0, ge=0, le=600, description="Seconds to go on accepting after SIGTERM."
    )
    allow_reload: bool = Field(
        False, description="Offer `POST /v1/reload` (needs API keys). SIGHUP always reloads."
    )
    writable: bool = Field(
        False,
        description="Take corrections and images by `/v1/images` (needs a key that may correct).",
    )
    label_studio: str | None = Field(
        None,
        description="Address of a Label Studio, to be its machine learning back end.",
    )
    label_studio_token: SecretStr | None = Field(
        None, description="Access token with which images are fetched from Label Studio."
    )
    cors_origin: str | None = Field(
        None, description="Origin whose pages may call the service, such as https://example.org."
    )

    @model_validator(mode="after")
    def _check_combinations(self) -> Settings:
        if not self.has_keys and not self.insecure and not self.is_loopback:
            raise ValueError(
                f"{self.host} can be reached from other machines, and no API keys are set: give "
                "--api-key-file or ANNOTATOR_API_KEYS, or --insecure if something else keeps "
                "strangers out"
            )
        if self.allow_reload and not self.has_keys:
            raise ValueError("--allow-reload needs --api-key-file or ANNOTATOR_API_KEYS")
        if self.writable and not self.has_keys:
            raise ValueError(
                "--writable needs --api-key-file or ANNOTATOR_API_KEYS, with a key that may correct"
            )
        if self.writable and self.processes > 1:
            raise ValueError("--writable needs --processes 1: one process alone changes an index")
        if self.label_studio is not None and not _LABEL_STUDIO.fullmatch(self.label_studio):
            raise ValueError(
                "--label-studio must look like https://labels.example.org, or with a path"
            )
        if self.oidc_issuer is not None:
            if not _ISSUER.fullmatch(self.oidc_issuer):
                raise ValueError("ANNOTATOR_OIDC_ISSUER must look like https://login.example.org")
            if not self.oidc_audience:
                raise ValueError("ANNOTATOR_OIDC_ISSUER needs ANNOTATOR_OIDC_AUDIENCE")
        if self.cors_origin is not None and not _ORIGIN.fullmatch(self.cors_origin):
            raise ValueError("--cors-origin must look like https://example.org, without a path")
        return self

    @property
    def has_keys(self) -> bool:
        """Whether requests need an API key, or a token in its place."""
        given = (self.api_key_file, self.api_keys, self.oidc_issuer)
        return any(one is not None for one in given)

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the service."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def upload_bytes(self) -> int:
        """Limit on a request body, in bytes."""
        return self.max_upload_mb * _MEBIBYTE

    @property
    def buffered_bytes(self) -> int:
        """Limit on all request bodies in memory of a process, in bytes."""
        return max(2, 16 // self.processes) * self.upload_bytes

    @property
    def decode_bytes(self) -> int:
        """Memory for images that are being decoded, in bytes."""
        return self.max_decode_mb * _MEBIBYTE

    @property
    def images_per_request(self) -> int:
        """Limit on the images of a request: a larger one than the queue could never be served."""
        return min(self.max_images, self.max_queue)

    @property
    def pixels(self) -> int:
        """Limit on a frame, in pixels."""
        return int(self.max_megapixels * 1_000_000)


def read_settings(**flags: object) -> Settings:
    """Read the settings.

    Args:
        flags: Values by name of the setting; None where the flag was not given.

    Raises:
        ValueError: A value is out of range, or some exclude each other; the message is one line.
    """
    given: dict[str, Any] = {name: value for name, value in flags.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        faults = []
        for fault in error.errors(include_input=False, include_url=False):
            name = ".".join(map(str, fault["loc"]))
            where = f"{name} (environment: ANNOTATOR_{name.upper()}): " if name else ""
            faults.append(where + fault["msg"].removeprefix("Value error, "))
        raise ValueError("; ".join(faults)) from None

"""`annotator serve`."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from annotator.cli.console import is_quiet
from annotator.cli.options import file_path
from annotator.cli.sections import Command, option
from annotator.errors import AnnotatorError
from index.distribution import pip_install

if TYPE_CHECKING:
    from service.settings import Settings


@click.command("serve", cls=Command, short_help="Serve an index over HTTP: a page and an API.")
@option("Index", "--index", help="Index: a folder, or milvus://HOST:PORT/NAME [concept-index].")
@option(
    "Index",
    "--images",
    help="Folder or pattern of the index's image files; the page shows them large.",
)
@option(
    "Input",
    "--names",
    type=file_path(),
    help="Table with the name of each CUI, to suggest concepts that no image has yet.",
)
@option("Network", "--host", help="Address to listen on [127.0.0.1].")
@option("Network", "--port", type=int, help="Port to listen on; 0 for any free one [8000].")
@option(
    "Network", "--metrics-port", type=int, help="Port for /metrics alone, without a key; 0 for any."
)
@option("Network", "--api-key-file", type=file_path(), help="File with one API key per line.")
@option(
    "Network",
    "--insecure",
    is_flag=True,
    default=None,
    help="Allow non-loopback hosts without API keys.",
)
@option(
    "Network", "--cors-origin", help="Allowed origin of web pages, such as https://example.org."
)
@option(
    "Network",
    "--allow-reload",
    is_flag=True,
    default=None,
    help="Enable POST /v1/reload (needs API keys).",
)
@option(
    "Network",
    "--writable",
    is_flag=True,
    default=None,
    help="Take corrections by /v1/images (needs a key that may correct).",
)
@option(
    "Network",
    "--label-studio",
    metavar="URL",
    help="Be the machine learning back end of this Label Studio, at /label-studio.",
)
@option(
    "Running",
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    help="Device for the encoder [auto].",
)
@option(
    "Running",
    "--engine",
    type=click.Choice(["auto", "openvino", "torch"]),
    help="What runs the encoder; auto: OpenVINO on a CPU where it is installed and can, else "
    "torch [auto].",
)
@option(
    "Running",
    "--max-batch",
    type=int,
    help="Images per batch of the encoder [8 or 16; on a GPU 128].",
)
@option(
    "Running", "--batch-wait-ms", type=float, help="Maximum wait for more images of a batch [2]."
)
@option("Running", "--processes", type=int, help="Processes that share the port and the index [1].")
@option("Running", "--workers", type=int, help="Decoding threads [number of cores].")
@option("Limits", "--max-queue", type=int, help="Maximum number of pending images [128].")
@option("Limits", "--max-upload-mb", type=int, help="Maximum request size, in MiB [64].")
@option("Limits", "--max-images", type=int, help="Maximum number of images per request [32].")
@option(
    "Limits", "--min-familiarity", type=float, help="No concepts for images that are less familiar."
)
@option("Limits", "--timeout-s", type=float, help="Request timeout, in seconds [30].")
@click.option("--show-settings", is_flag=True, help="Print the settings as JSON and exit.")
def serve_command(
    index: str | None,
    images: str | None,
    names: Path | None,
    host: str | None,
    port: int | None,
    metrics_port: int | None,
    api_key_file: Path | None,
    insecure: bool | None,
    device: str | None,
    engine: str | None,
    max_batch: int | None,
    batch_wait_ms: float | None,
    max_queue: int | None,
    max_upload_mb: int | None,
    max_images: int | None,
    min_familiarity: float | None,
    timeout_s: float | None,
    processes: int | None,
    workers: int | None,
    allow_reload: bool | None,
    writable: bool | None,
    label_studio: str | None,
    cors_origin: str | None,
    show_settings: bool,
) -> int:
    """Serve an index over HTTP: a page at /, the API under /v1, its description at /openapi.json.

    Options can also be set in the environment (--max-batch as ANNOTATOR_MAX_BATCH); docs/service.md
    lists all settings. SIGHUP reloads the current version of the index; SIGTERM stops after the
    open requests.

    \b
    annotator serve
    annotator serve --index concept-index --host 0.0.0.0 --api-key-file keys.txt
    curl -F image=@scan.png http://127.0.0.1:8000/v1/annotate
    """
    # Each encoder thread uses one core. BLAS and FAISS threads for the few products of a batch
    # would contend with them: a third of the throughput. Read when numpy is imported.
    for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(variable, "1")
    settings = service_settings(
        index=index,
        images=images,
        names=names,
        host=host,
        port=port,
        metrics_port=metrics_port,
        api_key_file=api_key_file,
        insecure=insecure,
        device=device,
        engine=engine,
        max_batch=max_batch,
        batch_wait_ms=batch_wait_ms,
        max_queue=max_queue,
        max_upload_mb=max_upload_mb,
        max_images=max_images,
        min_familiarity=min_familiarity,
        timeout_s=timeout_s,
        processes=processes,
        workers=workers,
        allow_reload=allow_reload,
        writable=writable,
        label_studio=label_studio,
        cors_origin=cors_origin,
    )
    if show_settings:
        click.echo(settings.model_dump_json(indent=2))
        return 0
    return run_service(settings, log_requests=not is_quiet())


def service_settings(**flags: object) -> Settings:
    """Settings of the service, by the flags that are not None, the environment, and defaults.

    Raises:
        click.UsageError: A setting is wrong.
        AnnotatorError: The extra `service` is not installed.
    """
    try:
        import service.server  # noqa: F401  # with all that the extra installs
        from service.settings import read_settings
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        raise AnnotatorError(
            f"The service needs the package {package}, which is not installed.",
            pip_install("service"),
        ) from error
    try:
        return read_settings(**flags)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def run_service(
    settings: Settings, started: Callable[[str], None] | None = None, *, log_requests: bool
) -> int:
    """Serve until the process is stopped; returns the exit code.

    Args:
        settings: From `service_settings`.
        started: Called with the address once it is announced and connections are accepted.
        log_requests: Whether to log all requests, or problems only.

    Raises:
        AnnotatorError: As `service.server.serve`.
    """
    from service.server import announce, serve

    def tell(url: str) -> None:
        announce(url)
        if started is not None:
            started(url)

    return serve(settings, tell, log_level=logging.INFO if log_requests else logging.WARNING)

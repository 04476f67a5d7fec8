"""`annotator serve`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from annotator.cli.options import file_path
from annotator.cli.sections import Command, option
from annotator.errors import AnnotatorError
from index.distribution import pip_install


@click.command("serve", cls=Command)
@option("Index", "--index", help="The index: a folder, or milvus://HOST:PORT/NAME [concept-index].")
@option("Network", "--host", help="Address to listen on [127.0.0.1].")
@option("Network", "--port", type=int, help="Port to listen on; 0 for any free one [8000].")
@option("Network", "--api-key-file", type=file_path(), help="File with one API key per line.")
@option(
    "Network",
    "--insecure",
    is_flag=True,
    default=None,
    help="Serve other machines even without API keys.",
)
@option(
    "Network", "--cors-origin", help="Origin whose pages may call, such as https://example.org."
)
@option(
    "Network",
    "--allow-reload",
    is_flag=True,
    default=None,
    help="Offer POST /v1/reload (needs API keys).",
)
@option(
    "Running",
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    help="Device for the encoder [auto].",
)
@option("Running", "--max-batch", type=int, help="Images encoded at once [16; on a GPU 128].")
@option(
    "Running", "--batch-wait-ms", type=float, help="How long a batch waits for more images [2]."
)
@option("Running", "--workers", type=int, help="Threads that decode [the number of cores].")
@option("Limits", "--max-queue", type=int, help="Most images accepted and unfinished [128].")
@option("Limits", "--max-upload-mb", type=int, help="Largest request, in MiB [64].")
@option("Limits", "--max-images", type=int, help="Most images in a request [32].")
@option("Limits", "--timeout-s", type=float, help="Seconds until a request times out [30].")
@click.option("--show-settings", is_flag=True, help="Print the settings as JSON and exit.")
def serve_command(
    index: str | None,
    host: str | None,
    port: int | None,
    api_key_file: Path | None,
    insecure: bool | None,
    device: str | None,
    max_batch: int | None,
    batch_wait_ms: float | None,
    max_queue: int | None,
    max_upload_mb: int | None,
    max_images: int | None,
    timeout_s: float | None,
    workers: int | None,
    allow_reload: bool | None,
    cors_origin: str | None,
    show_settings: bool,
) -> int:
    """Serve an index over HTTP: a page at /, the API under /v1, its description at /openapi.json.

    Every option can also be set in the environment (--max-batch as ANNOTATOR_MAX_BATCH), and so can
    a few more (docs/service.md). SIGHUP loads the index's current version; SIGTERM finishes the
    open requests and stops.

    \b
    annotator serve
    annotator serve --index concept-index --host 0.0.0.0 --api-key-file keys.txt
    curl -F image=@scan.png http://127.0.0.1:8000/v1/annotate
    """
    # The encoders take a core each. Threads that BLAS and FAISS start for a batch's few products
    # would only wait for each other: a third of the throughput. Read when numpy is loaded.
    for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(variable, "1")
    try:
        from service.server import serve
        from service.settings import read_settings
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        raise AnnotatorError(
            f"The service needs the package {package}, which is not installed.",
            pip_install("service"),
        ) from error
    try:
        settings = read_settings(
            index=index,
            host=host,
            port=port,
            api_key_file=api_key_file,
            insecure=insecure,
            device=device,
            max_batch=max_batch,
            batch_wait_ms=batch_wait_ms,
            max_queue=max_queue,
            max_upload_mb=max_upload_mb,
            max_images=max_images,
            timeout_s=timeout_s,
            workers=workers,
            allow_reload=allow_reload,
            cors_origin=cors_origin,
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if show_settings:
        click.echo(settings.model_dump_json(indent=2))
        return 0
    return serve(settings)

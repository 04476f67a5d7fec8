"""Starts a Milvus server with the package `milvus`, in whose environment this is run.

    python start_server.py FOLDER PORT [SETTING=VALUE ...]

Prints the number of the server's process once it answers, and stops it when stdin is closed.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

from milvus import MilvusServer, MilvusServerConfig  # type: ignore[import-not-found]

# What a server waits for before it looks again, or gives up on one that was killed: the usual
# values suit clusters, and tests would do little but wait for them.
QUICK = {
    "proxy.timeTickInterval": 20,  # ms, usually 200: a query for what is there now waits for it
    "queryCoord.checkInterval": 100,  # ms, 1000
    "queryCoord.distPullInterval": 50,  # ms, 500
    "queryCoord.checkHandoffInterval": 500,  # ms, 5000
    "dataCoord.segment.assignmentExpiration": 300,  # ms, 2000: a flush waits for it
    "common.session.ttl": 10,  # s, 30: who starts again waits for what was killed to be forgotten
    "grpc.client.maxBackoff": 0.5,  # s, 10
}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class Config(MilvusServerConfig):  # type: ignore[misc]
    """Takes a port again on which a server was just killed, as the server itself would."""

    def try_bind_port(self, port: int) -> socket.socket | None:
        try:
            return socket.create_server(("127.0.0.1", port))  # with SO_REUSEADDR
        except OSError:
            return None


def main() -> None:
    folder, port = Path(sys.argv[1]), int(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    # The etcd inside takes two fixed ports unless it is told others: two servers at a time.
    client, peer = free_port(), free_port()
    urls = {
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
    }
    lines = [f"{name}: http://127.0.0.1:{number}\n" for name, number in urls.items()]
    config = folder / "etcd.yaml"
    config.write_text("".join([*lines, f"initial-cluster: default=http://127.0.0.1:{peer}\n"]))
    os.environ["ETCD_CONFIG_PATH"] = str(config)
    ports = {
        f"{name}_port": free_port()
        for name in (
            "root_coord", "proxy_internal", "query_coord", "query_node", "index_coord",
            "index_node", "data_coord", "data_node",
        )
    }  # fmt: skip
    settings = dict(setting.split("=", 1) for setting in sys.argv[3:])
    server = MilvusServer(Config(), proxy_port=port, etcd_port=client, **ports)
    server.set_base_dir(str(folder))
    for name, value in QUICK.items():
        server.config.set(name, str(value))
    for name, value in settings.items():
        server.config.set(name, value == "true" if value in ("true", "false") else value)
    server.start()
    print(server.server_proc.pid, flush=True)
    sys.stdin.read()
    server.stop()


if __name__ == "__main__":
    main()

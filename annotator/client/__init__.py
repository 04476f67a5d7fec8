"""A client of `annotator serve`: `Client`, and `AsyncClient` for programs on asyncio."""

from __future__ import annotations

from annotator.client.client import AsyncClient, Client
from annotator.client.errors import ImageChanged, ServiceError, ServiceProblem

__all__ = ["AsyncClient", "Client", "ImageChanged", "ServiceError", "ServiceProblem"]

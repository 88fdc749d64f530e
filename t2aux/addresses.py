"""Addresses in the format of URLs and gRPC."""

from __future__ import annotations


def with_port(host: str, port: int) -> str:
    """HOST:PORT, or [HOST]:PORT for IPv6."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

"""Refuse and note every connection off this machine: Python runs this first where the folder is on its path."""

import os
import socket
from pathlib import Path

HERE = ("127.0.0.1", "::1", "localhost", "0.0.0.0", "::", None, "", socket.gethostname())


def _refuse(host):
    with Path(os.environ["REFUSED"]).open("a") as log:
        log.write(f"{host}\n")
    raise OSError(f"offline: {host}")


def _guarded(real, host_of):
    def call(*given, **named):
        host = host_of(*given)
        here = host in HERE or str(host).startswith("127.")
        return real(*given, **named) if here else _refuse(host)

    return call


def _peer(own, address, *_):
    return address[0] if own.family in (socket.AF_INET, socket.AF_INET6) else None


socket.socket.connect = _guarded(socket.socket.connect, _peer)
socket.socket.connect_ex = _guarded(socket.socket.connect_ex, _peer)
socket.getaddrinfo = _guarded(socket.getaddrinfo, lambda host, *_: host)

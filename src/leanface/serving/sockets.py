"""Open a server's socket before anything that takes long."""

import ipaddress
import socket

from leanface.errors import BackendError


def listen(host: str, port: int) -> socket.socket:
    """Take an address; the caller closes the socket.

    Args:
        host: a name or an address. "::" listens on IPv4 too, where the system can.
        port: 0 for any free one.

    Raises:
        BackendError: the address is taken, not this machine's, not allowed, or no address at all.
    """
    host = host.removeprefix("[").removesuffix("]")  # as in a URL
    try:
        # Of a name that has several addresses the first, which browsers and curl try first, too.
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        both = host == "::" and socket.has_dualstack_ipv6()
        return socket.create_server(address[:2], family=family, dualstack_ipv6=both)
    except PermissionError:
        reason, fix = "not allowed: ports below 1024 belong to the administrator", "choose a --port from 1024 on"
    except OSError as error:
        reason, fix = error.strerror or str(error), "choose another --port or --host"
    except UnicodeError:  # of a name that cannot be one
        reason, fix = "not a host name or address", "choose another --host"
    raise BackendError(f"cannot listen on {url(host, port)} ({reason}): {fix}.")


def is_local(listening: socket.socket) -> bool:
    """Tell whether a socket can be reached from this machine only."""
    return ipaddress.ip_address(listening.getsockname()[0]).is_loopback


def url(host: str, port: int) -> str:
    """Write an address as browsers take it."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"

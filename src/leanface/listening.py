"""The socket that a server listens on, opened before anything that takes long."""

import socket

from leanface.errors import BackendError


def listen(host: str, port: int) -> socket.socket:
    """Take an address; the caller closes it.

    Raises:
        BackendError: it is taken, not this machine's, or no address.
    """
    try:
        # The first address of a name, as browsers' and curl's fallback finds it.
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        raise BackendError(
            f"cannot listen on {url(host, port)} ({error.strerror or error}): choose another --port or --host."
        ) from None


def url(host: str, port: int) -> str:
    """As a browser takes it."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"

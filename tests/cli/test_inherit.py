"""The listening socket, whose options its connections inherit."""

import socket

import pytest

from oar_cli.inherit import listen
from server.settings import Settings


def test_connections_do_not_wait_for_acknowledgements_nor_for_dead_clients() -> None:
    """Each answer of `oar api` came 40 ms late: head and body are two packets, and Nagle held the second one back."""
    with listen(Settings(port=0, socket_send_timeout=2)) as listener:
        with socket.create_connection(listener.getsockname()):
            connection, _ = listener.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 9000


def test_a_port_in_use_is_a_sentence() -> None:
    import click

    with listen(Settings(port=0)) as listener, pytest.raises(click.ClickException, match="cannot listen on"):
        listen(Settings(port=listener.getsockname()[1]))

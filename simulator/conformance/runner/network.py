"""The ports 8883, 443 and 5671: in a network namespace of the suite's own if it can have one."""

import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys

from . import CannotStart

PORTS = (8883, 443, 5671)
_MARK = "CONFORMANCE_NETWORK"
_SET_FLAGS, _SET_MTU = 0x8914, 0x8922  # linux/sockios.h
_UP_AND_RUNNING = 0x1 | 0x40
_PACKET_BYTES = 16 * 1024
_WAYS = (["unshare", "--net"], ["unshare", "--user", "--map-root-user", "--net"])


def is_own():
    """Whether this process was started again inside of a network of its own."""
    return _MARK in os.environ


def enter_own(argv, program):
    """Starts this command again in a new network, or returns if the ports can be had here."""
    for way in _WAYS:
        if shutil.which(way[0]) and subprocess.run([*way, "true"], capture_output=True).returncode == 0:
            environment = {**os.environ, _MARK: "1", "SIMULATOR": str(program)}
            os.execvpe(way[0], [*way, sys.executable, *argv], environment)
    os.environ["SIMULATOR"] = str(program)
    for port in PORTS:
        _bind(port)


def _bind(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except PermissionError:
            raise CannotStart(
                f"port {port} is not allowed, and Microsoft's packages know no other. Run the suite as root, or allow it"
                " once with: sysctl net.ipv4.ip_unprivileged_port_start=443"
            ) from None
        except OSError as error:
            raise CannotStart(f"port {port}: {error.strerror}; stop what holds it, or run the suite as root") from None


def bring_up_loopback():
    """A new network starts with its loopback interface down.

    azure-eventhub sets every TCP option of a connection to the value that it reads there. With the usual 64 KiB packets of
    loopback, some kernels give it a segment size that they do not take back; smaller packets avoid that.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SET_MTU, struct.pack("16si20x", b"lo", _PACKET_BYTES))
        fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sH22x", b"lo", _UP_AND_RUNNING))

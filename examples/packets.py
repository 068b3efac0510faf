"""Photos over a link of small packets: each is a file in one packet, so that a lost packet loses one photo.

A sender and a receiver on one machine, with UDP in the place of a satellite, which loses one packet in ten:

    python examples/packets.py photo.jpg other.jpg --bytes 1000

A packet is a number (4 bytes), how many there are (4 bytes), and a whole .dlf file of at most the rest.  The
file carries a checksum of its own, so that a damaged packet is known for one.
"""

from __future__ import annotations

import argparse
import random
import socket
import struct
from pathlib import Path

import dlf

HEAD = struct.Struct(">II")


def packets(paths: list[Path], size: int, codec: dlf.Codec) -> list[bytes]:
    """One packet of at most `size` bytes for each photo."""
    files = [codec.encode(path, max_bytes=size - HEAD.size, best=True) for path in paths]
    return [HEAD.pack(number, len(files)) + file for number, file in enumerate(files)]


def send(sent: list[bytes], address: tuple[str, int], loss: float, seed: int) -> int:
    """Send packets, of which some are lost on the way; returns how many."""
    weather, lost = random.Random(seed), 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        for packet in sent:
            if weather.random() < loss:
                lost += 1
            else:
                link.sendto(packet, address)
    return lost


def receive(link: socket.socket, folder: Path, codec: dlf.Codec, patience: float = 1.0) -> list[Path]:
    """Decode what comes until nothing more does; a packet that is damaged or no photo is passed over."""
    link.settimeout(patience)
    painted = []
    while True:
        try:
            packet, _ = link.recvfrom(65536)
        except TimeoutError:
            return painted
        if len(packet) <= HEAD.size:
            continue
        number, count = HEAD.unpack(packet[: HEAD.size])
        try:
            image = codec.decode(packet[HEAD.size :])
        except dlf.DlfError as error:
            print(f"packet {number + 1} of {count}: {error}")
            continue
        painted.append(folder / f"{number:04d}.png")
        image.save(painted[-1])
        print(f"packet {number + 1} of {count}: {len(packet)} bytes, {image.width}x{image.height}")


def main() -> None:
    """Send photos to this machine, and decode those that arrive."""
    parser = argparse.ArgumentParser(description="Photos over a link of small packets.")
    parser.add_argument("photos", type=Path, nargs="+")
    parser.add_argument("--bytes", type=int, default=1000, help="of a packet, its head included")
    parser.add_argument("--loss", type=float, default=0.1, help="share of the packets that is lost")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, default=Path("received"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    codec = dlf.Codec(max_pixels=4_000_000)  # whoever decodes what strangers send sets a limit
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**20)
        link.bind(("127.0.0.1", 0))
        sent = packets(options.photos, options.bytes, codec)
        lost = send(sent, link.getsockname(), options.loss, options.seed)
        painted = receive(link, options.output, codec)
    print(f"sent {len(sent)}, lost {lost}, painted {len(painted)} into {options.output}")


if __name__ == "__main__":
    main()

"""Send frames into a switch and tell where each of them comes out.

usage: frames.py SENDER...

Each SENDER is an interface, or INTERFACE.TAG to send with that VLAN tag. All interfaces are listened to. Prints a JSON object:
for each sender the sorted list of where its frames were heard, in the same form; ` xN` is behind one where a frame was
heard N times.
"""

import json
import select
import socket
import struct
import sys
import time

SOL_PACKET, PACKET_AUXDATA, PACKET_OUTGOING = 263, 8, 4
VLAN_VALID = 1 << 4
MAGIC = b"frames.py "
ROUNDS, PAUSE, QUIET = 5, 0.3, 2.0

senders = sys.argv[1:]
sockets = {}
for sender in senders:
    name = sender.split(".")[0]
    if name not in sockets:
        sockets[name] = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        sockets[name].setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        sockets[name].bind((name, 0))
names = {s: name for name, s in sockets.items()}
heard = {sender: {} for sender in senders}


def take(s):
    frame, anc, _, address = s.recvmsg(2048, 256)
    at = frame.find(MAGIC)
    if address[2] == PACKET_OUTGOING or at < 0:
        return
    index, number = struct.unpack("!BB", frame[at + len(MAGIC) :][:2])
    where = names[s]
    for level, kind, data in anc:
        if level == SOL_PACKET and kind == PACKET_AUXDATA:
            status, tci = struct.unpack("=I12xH", data[:18])
            if status & VLAN_VALID:
                where += f".{tci & 0xFFF}"
    counts = heard[senders[index]].setdefault(where, {})
    counts[number] = counts.get(number, 0) + 1


def listen(seconds):
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        for s in select.select(list(names), [], [], left)[0]:
            take(s)


for number in range(ROUNDS):
    for index, sender in enumerate(senders):
        name, _, tag = sender.partition(".")
        header = b"\xff" * 6 + bytes([2, 0, 0, 0, 0, index])
        if tag:
            header += struct.pack("!HH", 0x8100, int(tag))
        frame = header + struct.pack("!H", 0x88B5) + MAGIC + bytes([index, number])
        sockets[name].send(frame.ljust(64, b"\0"))
    listen(PAUSE)
listen(QUIET)
result = {}
for sender, places in heard.items():
    times = {where: max(counts.values()) for where, counts in places.items()}
    result[sender] = sorted(where if n == 1 else f"{where} x{n}" for where, n in times.items())
print(json.dumps(result))

"""The two ends of a link: opens two taps as QEMU would, sends numbered frames both ways and prints as JSON what arrived.

usage: link.py TAP TAP FRAMES BYTES INTERVAL

FRAMES frames of BYTES bytes go each way, one every INTERVAL seconds. For each direction ("01" from the first tap to the
second, "10" back): how many were sent, how many frames were heard, the delay of each in seconds in the order in which they
were heard, and the bits per second from the first to the last.
"""

import fcntl
import json
import select
import struct
import sys
import time

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 2, 0x1000
MACS = [bytes([0x52, 0x54, 0, 0, 0, n]) for n in (1, 2)]
# An EtherType for local experiments.
EXPERIMENT = b"\x88\xb5"
# No frame is on its way for longer.
PATIENCE = 1.0


def attach(tap):
    device = open("/dev/net/tun", "r+b", buffering=0)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", tap.encode(), IFF_TAP | IFF_NO_PI))
    return device


def frame(sender, number, size):
    head = MACS[1 - sender] + MACS[sender] + EXPERIMENT
    return (head + struct.pack("!BId", sender, number, time.monotonic())).ljust(size, b"\0")


def main():
    taps, (count, size), interval = sys.argv[1:3], map(int, sys.argv[3:5]), float(sys.argv[5])
    ends = [attach(tap) for tap in taps]
    # The switch passes frames once it has heard of the carriers, and has learned both addresses.
    heard = set()
    deadline = time.monotonic() + 60
    while heard != {0, 1}:
        assert time.monotonic() < deadline, "no frame passes between the taps"
        for sender, end in enumerate(ends):
            end.write(frame(sender, 0, 60))
        for end in select.select(ends, [], [], 0.3)[0]:
            data = end.read(4096)
            if data[12:14] == EXPERIMENT:
                heard.add(ends.index(end))
    # What is still on its way is not to be measured.
    while select.select(ends, [], [], 0.7)[0]:
        for end in select.select(ends, [], [], 0)[0]:
            end.read(4096)

    results = {direction: {"sent": 0, "delays": [], "times": []} for direction in ("01", "10")}
    start, last, sent = time.monotonic(), time.monotonic(), 0
    while sent < count or time.monotonic() - last < PATIENCE:
        now = time.monotonic()
        if sent < count and now >= start + sent * interval:
            for sender, end in enumerate(ends):
                end.write(frame(sender, 1 + sent, size))
                results["01" if sender == 0 else "10"]["sent"] += 1
            sent += 1
            last = now
        wait = max(0.0, start + sent * interval - now) if sent < count else 0.1
        for end in select.select(ends, [], [], wait)[0]:
            data = end.read(4096)
            now = last = time.monotonic()
            if data[12:14] == EXPERIMENT:
                sender, number, began = struct.unpack("!BId", data[14:27])
                result = results["01" if sender == 0 else "10"]
                result["delays"].append(now - began)
                result["times"].append(now)
    for result in results.values():
        times = result.pop("times")
        lasting = times[-1] - times[0] if len(times) > 1 else 0
        result["heard"] = len(times)
        result["rate"] = 8 * size * (len(times) - 1) / lasting if lasting else 0
    json.dump(results, sys.stdout)


main()

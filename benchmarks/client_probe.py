# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""
A client of the ``pyvo.samp`` that its interpreter finds. It gets commands as lines of standard input.

``cycle N``: connect and disconnect, N times. ``join``: connect and subscribe. ``send N ID``: send N notifications to a
client. ``call N ID``: make N calls that wait. ``cpu``: report the CPU seconds and the number of received messages so
far. Each response is one line of JSON.
"""

from __future__ import annotations

import json
import sys
import time
from statistics import median

from pyvo.samp import SAMPIntegratedClient

MTYPE = "table.highlight.row"
MESSAGE = {
    "samp.mtype": MTYPE,
    "samp.params": {"table-id": "table-1", "url": "http://127.0.0.1:2525/dynamic/1/t1.vot", "row": "42"},
}


class Probe:
    def __init__(self) -> None:
        self.client = SAMPIntegratedClient(name="probe")
        self.received = 0

    def on_notification(self, private_key, sender_id, mtype, params, extra):
        self.received += 1

    def cycle(self, count):
        connect, disconnect, cpu = [], [], time.process_time()
        for _ in range(int(count)):
            start = time.perf_counter()
            client = SAMPIntegratedClient(name="probe")
            client.connect()
            middle = time.perf_counter()
            client.disconnect()
            connect.append(middle - start)
            disconnect.append(time.perf_counter() - middle)
        cpu = (time.process_time() - cpu) / int(count)
        return {"connect": median(connect), "disconnect": median(disconnect), "cpu": cpu}

    def join(self):
        self.client.connect()
        self.client.bind_receive_notification(MTYPE, self.on_notification)
        return {"id": self.client.get_public_id()}

    def send(self, count, recipient):
        return self.time(count, lambda: self.client.notify(recipient, MESSAGE))

    def call(self, count, recipient):
        return self.time(count, lambda: self.client.call_and_wait(recipient, MESSAGE, "20"))

    @staticmethod
    def time(count, action):
        cpu, start = time.process_time(), time.perf_counter()
        for _ in range(int(count)):
            action()
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
        return {"wall": wall / int(count), "cpu": cpu / int(count)}

    def cpu(self):
        return {"cpu": time.process_time(), "received": self.received}


if __name__ == "__main__":
    probe = Probe()
    for line in sys.stdin:
        command, *arguments = line.split()
        print(json.dumps(getattr(probe, command)(*arguments)), flush=True)
    if probe.client.is_connected:
        probe.client.disconnect()

"""Trains on speech clips from an object store, which runs beside it and answers as if from far away."""

import http.server
import multiprocessing
import os
import time
import urllib.request

import torch
from torch.utils.data import DataLoader, Dataset

torch.set_num_threads(1)
SCALE = float(os.environ.get("CASES_SCALE", "1"))
GREETING, ANSWER, STEP = 0.02, 0.003, 0.02  # a connection's handshakes, one request, one step


class Store(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # a connection may be kept
    disable_nagle_algorithm = True

    def setup(self):
        super().setup()
        time.sleep(GREETING)

    def do_GET(self):
        time.sleep(ANSWER)
        self.send_response(200)
        self.send_header("Content-Length", "32000")
        self.end_headers()
        self.wfile.write(bytes(32_000))

    def log_message(self, *_):
        pass


class Clips(Dataset):
    def __init__(self, port):
        self.bucket = f"http://127.0.0.1:{port}/clips"

    def __len__(self):
        return 20_000

    def __getitem__(self, i):
        with urllib.request.urlopen(f"{self.bucket}/{i:06d}.pcm") as answer:  # <- blame
            return torch.frombuffer(bytearray(answer.read()), dtype=torch.int16)


def main():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Store)
    multiprocessing.Process(target=server.serve_forever, daemon=True).start()
    loader = DataLoader(Clips(server.server_port), batch_size=8, shuffle=True, num_workers=2)
    for step, batch in enumerate(loader):
        if step >= 100 * SCALE:
            break
        time.sleep(STEP)


if __name__ == "__main__":
    main()

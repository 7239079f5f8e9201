"""Data sets that are slow for one reason each, which a counter shows; and like them, slow for another."""

from __future__ import annotations

import gc
import gzip
import http.server
import io
import threading
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset, Sampler

from tests.diagnosis.planted import Burn, burn

SAMPLES = 4096


class Sized(Dataset[torch.Tensor]):
    """A map-style data set of small samples; `work` costs what is planted."""

    def __init__(self, samples: int = SAMPLES) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, index: int) -> torch.Tensor:
        self.work(index)
        return torch.full((64,), float(index))

    def work(self, index: int) -> None:
        """Do nothing."""


def listed(samples: list[torch.Tensor]) -> torch.Tensor:
    """Collate by way of Python's numbers: torch walks over them in one native call that keeps the GIL."""
    return torch.tensor([[float(index)] * 60_000 for index, _ in enumerate(samples)])


class Bulky:
    """A collate function whose batches are large and soon made: sharing them takes longer."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes

    def __call__(self, samples: list[torch.Tensor]) -> torch.Tensor:
        return torch.empty(self.size_bytes // 4)


class Indexed(Sized):
    """An index of many Python objects, and a collector that is asked to walk it, or only what is young."""

    def __init__(self, objects: int) -> None:
        super().__init__()
        # lists: the collector does not walk dictionaries of strings
        self.index = [[number] for number in range(objects)]


class Collects:
    """A collate function that asks for a garbage collection, of all objects or of the youngest ones."""

    def __init__(self, generation: int, cpu_ms: float = 0.0) -> None:
        self.generation, self.cpu_ms = generation, cpu_ms

    def __call__(self, samples: list[torch.Tensor]) -> torch.Tensor:
        gc.collect(self.generation)
        burn(self.cpu_ms)
        return torch.stack(samples)


class Multiplies(Sized):
    """Samples that torch computes, with as many threads as a worker is given."""

    def work(self, index: int) -> None:
        table = torch.rand(384, 384)
        for _ in range(4):
            table = table @ table / 384


def sixteen_threads(worker: int) -> None:
    """Give a worker the pool of a large server."""
    torch.set_num_threads(16)


class Archived(Sized):
    """Samples of an archive that is opened for each of them."""

    def __init__(self, path: Path, members: int, cpu_ms: float = 0.0) -> None:
        super().__init__()
        self.path, self.members, self.cpu_ms = path, members, cpu_ms
        with zipfile.ZipFile(path, "w") as archive:
            for member in range(members):
                archive.writestr(f"{member:06d}", b"sample")

    def work(self, index: int) -> None:
        with zipfile.ZipFile(self.path) as archive:
            archive.read(f"{index % self.members:06d}")
        burn(self.cpu_ms)


class Compressed(Sized):
    """Slices of a compressed volume, each found from its start; or read from there to the end."""

    SLICE, DEPTH = 64 << 10, 64

    def __init__(self, path: Path, skips: bool) -> None:
        super().__init__()
        self.path, self.skips = path, skips
        noise = np.random.default_rng(0).integers(0, 24, self.SLICE * self.DEPTH, np.uint8)
        path.write_bytes(gzip.compress(noise.tobytes(), compresslevel=1))

    def __getitem__(self, index: int) -> torch.Tensor:
        with gzip.open(self.path) as volume:
            if self.skips:
                volume.seek(self.SLICE * (self.DEPTH // 2 + index % (self.DEPTH // 2)))
                return torch.frombuffer(bytearray(volume.read(self.SLICE)), dtype=torch.uint8)
            return torch.frombuffer(bytearray(volume.read(self.SLICE * self.DEPTH)), dtype=torch.uint8)


class Pictured(Sized):
    """Pictures of a size, of which each sample is a smaller one."""

    def __init__(self, size: tuple[int, int], kept: tuple[int, int]) -> None:
        super().__init__()
        self.kept = kept
        rough = np.random.default_rng(0).integers(0, 255, (size[1] // 20, size[0] // 20, 3), np.uint8)
        Image.fromarray(rough).resize(size).save(held := io.BytesIO(), "JPEG")
        self.held = held.getvalue()

    def __getitem__(self, index: int) -> torch.Tensor:
        with Image.open(io.BytesIO(self.held)) as picture:
            small = picture.convert("RGB").resize(self.kept, Image.Resampling.NEAREST)  # next to nothing
            return torch.from_numpy(np.asarray(small).copy())


class SlowDraws(Sampler[int]):
    """Indices that are drawn with much effort, in the main process."""

    def __init__(self, cpu_ms: float) -> None:
        self.cpu_ms = cpu_ms

    def __len__(self) -> int:
        return SAMPLES

    def __iter__(self) -> Iterator[int]:
        for index in range(SAMPLES):
            burn(self.cpu_ms)
            yield index


class Cached(Sized):
    """Samples that cost only the first time; what is kept of them grows the process that made them."""

    def __init__(self, samples: int, ms: float) -> None:
        super().__init__(samples)
        self.ms, self.kept = ms, dict[int, bytearray]()

    def work(self, index: int) -> None:
        if index not in self.kept:
            time.sleep(self.ms / 1e3)
            self.kept[index] = bytearray(b"x") * 500_000


class Copied(IterableDataset[torch.Tensor]):
    """A stream that each worker gives whole."""

    def __init__(self, ms: float) -> None:
        self.ms = ms

    def __iter__(self) -> Iterator[torch.Tensor]:
        for index in range(SAMPLES):
            time.sleep(self.ms / 1e3)
            yield torch.full((64,), float(index))


class _Store(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    greeting_s = answer_s = 0.0

    def setup(self) -> None:
        super().setup()
        time.sleep(self.greeting_s)

    def do_GET(self) -> None:
        time.sleep(self.answer_s)
        self.send_response(200)
        self.send_header("Content-Length", "256")
        self.end_headers()
        self.wfile.write(bytes(256))

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


class Stored(Sized):
    """Samples of a server on this machine, which takes its time to greet or to answer."""

    def __init__(self, greeting_ms: float, answer_ms: float, keeps: bool) -> None:
        super().__init__()
        kind = type("Store", (_Store,), {"greeting_s": greeting_ms / 1e3, "answer_s": answer_ms / 1e3})
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind)
        self.keeps, self.kept = keeps, dict[str, HTTPConnection]()

    def work(self, index: int) -> None:
        host, port = self.server.server_address[:2]
        if not self.keeps:
            with urllib.request.urlopen(f"http://{host}:{port}/{index}") as answer:
                answer.read()
            return
        if not self.kept:
            self.kept["connection"] = HTTPConnection(str(host), port)
        self.kept["connection"].request("GET", f"/{index}")
        self.kept["connection"].getresponse().read()


@contextmanager
def serving(stored: Stored) -> Iterator[None]:
    """Let the server answer meanwhile."""
    thread = threading.Thread(target=stored.server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stored.server.shutdown()
        stored.server.server_close()
        thread.join()


def packed(loader: Any, cpu_ms: float) -> Iterator[Any]:
    """Pack batches in Python, between loader and step."""
    for batch in loader:
        end = time.thread_time() + cpu_ms / 1e3
        text = 0
        while time.thread_time() < end:
            text += sum(len(str(number)) for number in range(200))
        yield batch


def multiplied(ms: float) -> None:
    """A step that torch computes, on one core: more would take the worker's, which is another case."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    layer, end = torch.nn.Linear(64, 64), time.monotonic() + ms / 1e3
    while time.monotonic() < end:
        layer(torch.rand(256, 64))
    torch.set_num_threads(threads)


CHEAP = Burn(0.1)

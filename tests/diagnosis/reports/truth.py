"""The exam of public reports: what each script shows, and what may and must not be said of it.

Written from the threads, before pipeprof saw the scripts. The words are those of pipeprof's vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
BLAME = "# <- blame"
"""Marks the lines of a script that a hot line may name."""


@dataclass(frozen=True)
class Truth:
    """A public report, rebuilt, and the judgement of an engineer who read its thread.

    Causes, fixes and forbidden words are patterns (`storage-*`);
    a forbidden word counts as cause, detail or fix, and among the other fixes that are advised.
    """

    script: str
    source: str
    seen: str
    true_cause: str
    helped: str
    causes: frozenset[str]
    mechanisms: frozenset[str | None]
    """None where the place stands alone; then no mechanism may be named."""
    fixes: frozenset[str]
    forbidden: frozenset[str]
    disk_bytes_per_s: int | None = field(default=None, kw_only=True)
    """Read limit of the disk that the script needs; None where any disk will do."""

    @property
    def path(self) -> Path:
        """The script."""
        return HERE / f"{self.script}.py"

    @property
    def blamed(self) -> frozenset[int]:
        """Numbers of the lines to blame; empty where no line of the script can be."""
        lines = self.path.read_text().splitlines()
        return frozenset(number for number, line in enumerate(lines, 1) if BLAME in line)


def words(text: str) -> frozenset[str]:
    """Return the words of `text`, separated by blanks."""
    return frozenset(text.split())


def mechanisms(text: str) -> frozenset[str | None]:
    """Return the mechanisms in `text`; `none` is no mechanism."""
    return frozenset(None if word == "none" else word for word in text.split())


STORAGE = "storage-* page-cache faster-storage"

GIVEN = [
    Truth(
        "zip_reopened",
        "metatensor/metatrain#859, zarr-developers/zarr-python#66",
        "reading from one zip takes 0.17 s a sample on a fast disk",
        "the archive is opened for each sample, and its whole directory parsed",
        "keep it open, one handle a worker: 250 samples 41.3 s → 0.07 s",
        words("stage:getitem"),
        mechanisms("reopened"),
        words("keep-open cheaper-transform more-workers"),
        words(f"{STORAGE} ram shards"),
    ),
    Truth(
        "parquet_row_group",
        "mlcommons/storage#362, #364, #378; uber/petastorm#398",
        "no I/O on the NVMe, CPU at 88–95 %, accelerator at 54 %",
        "a whole row group is read and decoded for one row, in Arrow's own threads",
        "byte ranges without decoding: AU 54.4 → 99.8 %; smaller row groups",
        words("stage:getitem"),
        mechanisms("over-read"),
        words("smaller-chunks cheaper-transform cheaper-decode"),
        words(f"{STORAGE} blocked"),
    ),
    Truth(
        "mmap_readahead",
        "hyperledger-archives/sawtooth-core#1232 (the opposite on network file systems: deepmd-kit#5413)",
        "extra read I/O, useful pages pushed from the cache",
        "read-around brings 128 KiB for a record of 4 KiB",
        "readahead=False (MADV_RANDOM)",
        words("storage-bandwidth storage-latency"),
        mechanisms("read-ahead"),
        words("no-read-ahead ram faster-storage"),
        words("decode stage:* transfer more-workers"),
        disk_bytes_per_s=20 << 20,
    ),
    Truth(
        "oversized_jpegs",
        "roboflow/rf-detr#1389, open-mmlab/mmcv#214",
        "loader bound by PIL, GPU below 80 %",
        "8-megapixel JPEGs decoded whole for 224 pixels",
        "Image.draft, or pictures shrunk once",
        words("decode"),
        mechanisms("over-decode"),
        words("cheaper-decode"),
        words("storage-* ram transform:* more-workers"),
    ),
    Truth(
        "numpy_list_collate",
        "pytorch/pytorch#13918, #57467",
        "collate takes most of the step",
        "torch.tensor(list of arrays) walks through each element, and holds the GIL meanwhile",
        "np.stack first: 1.97 s → 0.06 s",
        words("collate"),
        mechanisms("gil none"),
        words("cheaper-collate cheaper-work file-system-sharing more-workers"),
        words("lighter-transfer transfer stage:getitem storage-*"),
    ),
    Truth(
        "in_memory_rows",
        "pytorch/pytorch#4959, #106704, #154318, #10260",
        "a table in memory loads slower than it trains",
        "one __getitem__ and one stack a row",
        "rows by the batch: 1.39 s → 0.09 s (two workers: 4.71 s)",
        words("stage:getitem collate"),
        mechanisms("per-sample"),
        words("batch-fetch cheaper-transform"),
        words("more-workers storage-* ram persistent-workers"),
    ),
    Truth(
        "weighted_sampler",
        "pytorch/pytorch#32221, #50689, #94131",
        "each epoch begins with seconds of nothing",
        "multinomial without replacement over all weights, in the main process, each epoch",
        "replacement=True, or draw in pieces",
        words("main startup"),
        mechanisms("sampler"),
        words("cheaper-sampler loop"),
        words("persistent-workers more-workers decode stage:*"),
    ),
    Truth(
        "iterator_per_step",
        "pytorch/pytorch#1917, TRAIS-Lab/dattri#188",
        "next(iter(loader)) in the loop: slow, memory grows",
        "workers are started and thrown away in each step",
        "make the iterator once",
        words("startup inconclusive"),
        mechanisms("iterator-per-step"),
        words("one-iterator loop persistent-workers"),
        words("more-workers deeper-prefetch stage:getitem"),
    ),
    Truth(
        "cache_dies_with_workers",
        "pytorch/pytorch#15849, szymonmaszke/torchdatasets#26, open-mmlab/mmhuman3d#233",
        "caching in the data set helps nothing",
        "workers, and what they keep, end with the epoch",
        "persistent_workers=True: 7 min → 35 s",
        words("decode"),
        mechanisms("lost-cache"),
        words("persistent-workers"),
        words(STORAGE),
    ),
    Truth(
        "worker_threads",
        "open-mmlab/mmdetection#6867, transferable-samplers#12, open-mmlab/mmocr#721",
        "the machine crawls, more cores make it worse",
        "each worker computes with as many threads as the server has cores",
        "one thread a worker: up to 10 times",
        words("cpu-contention"),
        mechanisms("threads"),
        words("one-thread fewer-workers"),
        words("more-workers free-cores neighbour blocked"),
    ),
    Truth(
        "gc_every_batch",
        "NVIDIA/Megatron-Energon#40, karpathy/nanochat#477, facebookresearch/spdl (notes)",
        "workers slow although each sample is trivial",
        "the collector walks all Python objects of the index, each batch",
        "gc.freeze() before workers start: about 5 times; tensors instead of lists",
        words("collate"),
        mechanisms("gc"),
        words("gc-freeze arrays cheaper-collate"),
        words("lighter-transfer transfer more-workers storage-*"),
    ),
    Truth(
        "pack_in_main",
        "AnswerDotAI/ModernBERT#236",
        "loader workers idle, GPU idle too",
        "tokenising and packing in one thread between loader and step",
        "tokenise beforehand, or in the workers",
        words("main"),
        mechanisms("host-body"),
        words("loop"),
        words("accelerator none more-workers deeper-prefetch"),
    ),
    Truth(
        "float32_over_the_wire",
        "woven-by-toyota/l5kit#222, open-mmlab/mmaction2#586, talmolab/sleap-nn#406",
        "making batches costs more than training",
        "floats made on the CPU: 4 times the bytes through shared memory and to the device",
        "send bytes, normalise on the device: 77.9 → 49.9 ms a sample",
        words("transfer collate stage:getitem"),
        mechanisms("none"),
        words("lighter-transfer"),
        words("storage-* decode ram"),
    ),
    Truth(
        "iterable_copies",
        "pytorch/pytorch#30599, huggingface/datasets#3423, Lightning-AI/pytorch-lightning#15734",
        "an epoch has twice the steps; more workers, longer epochs",
        "each worker yields the whole stream",
        "share the stream out by get_worker_info()",
        words("stage:iter"),
        mechanisms("duplicates"),
        words("split-stream"),
        words("more-workers"),
    ),
]
"""Handed to us, with the judgement."""

OWN = [
    Truth(  # speech
        "store_connection_per_clip",
        "lhotse-speech/lhotse#335 (merged), piskvorky/smart_open#569",
        "reading recordings from S3 is slow: 44 s for 1,000",
        "a client and its connection are made for each call; most of the wait is the handshake",
        "one cached client: 44 → 18.9 s",
        words("storage-network"),
        mechanisms("connections"),
        words("keep-open"),
        words("decode collate transfer stage:* cpu-contention cheaper-* free-cores more-cores"),
    ),
    Truth(  # video
        "video_seeks",
        "dmlc/decord#111, huggingface/lerobot#92 (merged)",
        "the deeper in the video, the slower a frame; 300 random frames take 45 s",
        "all frames since the last key frame are decoded for one, and key frames are 250 apart",
        "a key frame every 2 frames (-g 2), or sequential clips",
        words("decode stage:getitem"),
        mechanisms("over-decode"),
        words("cheaper-decode smaller-chunks"),
        words(f"{STORAGE} ram more-workers transfer lighter-transfer blocked"),
    ),
    Truth(  # point clouds
        "neighbours_of_clouds",
        "liuQuan98/GCL#3 (closed)",
        "data time 12 to 20 s beside 2.3 s of training, in each iteration",
        "exhaustive nearest-neighbour search across the frames around, in __getitem__",
        "fewer query points and frames",
        words("stage:getitem"),
        mechanisms("none"),
        words("cheaper-work cheaper-transform"),
        words(f"{STORAGE} ram transfer lighter-transfer decode more-workers blocked"),
    ),
    Truth(  # medical volumes
        "slices_of_gzip",
        "kaiko-ai/eva#705, confusius-tools/confusius#439 (closed), MIC-DKFZ/nnUNet#566",
        "the deeper the slice, the slower it loads; each costs as much as the volume",
        ".gz has no random access: everything before the slice is decompressed for it",
        "decompress beforehand, read the slice alone",
        words("stage:getitem decode"),
        mechanisms("over-read"),
        words("smaller-chunks cheaper-decode cheaper-work cheaper-transform"),
        words(f"{STORAGE} ram more-workers keep-open transfer blocked"),
    ),
    Truth(  # tables
        "rows_of_stream",
        "uber/petastorm#540 (merged), pytorch/pytorch#26957",
        "100,000 rows a second whatever the batch size; training is bound by the CPU",
        "Python walks over single rows of a columnar file",
        "columns by the batch: 1.08e5 → 1.6e6 rows a second",
        words("stage:iter collate"),
        mechanisms("per-sample"),
        words("batch-fetch cheaper-work cheaper-transform"),
        words(f"{STORAGE} ram more-workers transfer lighter-transfer decode"),
    ),
    Truth(  # replay buffers
        "permuted_replay",
        "AgileRL/AgileRL#541 (merged), sdpkjc/abcdrl#31 (merged), DeepX-inc/machina#179",
        "sampling gets slower as the buffer grows",
        "all indices of the buffer are shuffled for each batch, in the training process",
        "draw with replacement, or by rejection",
        words("main"),
        mechanisms("sampler"),
        words("cheaper-sampler loop"),
        words(
            f"{STORAGE} ram more-workers deeper-prefetch persistent-workers stage:* transfer accelerator none"
        ),
    ),
    Truth(  # packing for language models
        "snapshot_every_step",
        "ByteDance-Seed/VeOmni#822 (merged), meta-pytorch/data#1317, #1283",
        "the stateful loader takes 2 s a step where the plain one takes 10 ms",
        "each batch carries a snapshot: the packing buffer is deep-copied, pickled and sent every step",
        "snapshot_every_n_steps at the interval of the checkpoints: 2.6 s a step less",
        words("stage:*"),
        mechanisms("none"),
        words("cheaper-work"),
        words(f"{STORAGE} ram decode more-workers persistent-workers deeper-prefetch accelerator none"),
    ),
    Truth(  # graph sampling
        "graphs_in_batch",
        "snap-stanford/deepsnap#51",
        "incredibly slower once each sample carries its NetworkX graph",
        "Python objects that nobody uses are collated, pickled and unpickled with each batch",
        "leave the graph out of the batch",
        words("transfer"),
        mechanisms("none"),
        words("lighter-transfer cheaper-collate"),
        words(f"{STORAGE} ram decode stage:* more-workers persistent-workers deeper-prefetch startup"),
    ),
    Truth(  # geodata
        "pickled_scenes",
        "allenai/olmoearth_pretrain#150 (merged), allenai/rslearn_projects#17, pytorch/pytorch#139792",
        "30 s until a worker has started",
        "the list of all samples is pickled into each worker, one after the other",
        "the list moved out of the data set: 30 → 6 s a worker",
        words("startup"),
        mechanisms("start-up"),
        words("lighter-dataset fork persistent-workers"),
        words(f"{STORAGE} ram decode stage:* transfer more-workers deeper-prefetch fewer-workers"),
    ),
    Truth(  # multi-modal
        "chunk_decodes_cameras",
        "huggingface/lerobot#4392 (closed), #93",
        "3.0 it/s, 32 workers at full load; 250 to 300 ms a sample",
        "a query for the actions of the next rows decodes the pictures of those rows too",
        "fetch the one column: 13.6 it/s, 1 to 3 ms",
        words("decode stage:getitem"),
        mechanisms("over-decode over-read"),
        words("cheaper-decode cheaper-work smaller-chunks"),
        words(f"{STORAGE} ram more-workers transfer lighter-transfer blocked"),
    ),
]
"""Found by us, of fields that the others leave out."""

TRUTHS = [*GIVEN, *OWN]

"""Limits of control groups, of both versions, on made trees."""

from __future__ import annotations

from pathlib import Path

from pipeprof.measure.host.cgroups import (
    cpu_quota_cores,
    memory_left_bytes,
    memory_limit_bytes,
    read_limits,
)
from pipeprof.record.meta import IoLimitMeta


def group(root: Path, **files: str) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (root / name.replace("__", ".")).write_text(text)
    return root


def test_cpu_quota_of_cgroup_v2_is_the_tightest_on_the_way_up(tmp_path: Path) -> None:
    group(tmp_path / "a", cpu__max="150000 100000")
    group(tmp_path / "a" / "b", cpu__max="max 100000", memory__max="1000000")
    (tmp_path / "membership").write_text("0::/a/b\n")
    assert cpu_quota_cores(tmp_path, tmp_path / "membership") == 1.5
    assert memory_limit_bytes(tmp_path, tmp_path / "membership") == 1_000_000


def test_cpu_quota_of_cgroup_v1(tmp_path: Path) -> None:
    group(tmp_path / "cpu,cpuacct" / "job", cpu__cfs_quota_us="50000", cpu__cfs_period_us="100000")
    group(tmp_path / "memory" / "job", memory__limit_in_bytes="2000000")
    (tmp_path / "membership").write_text("4:memory:/job\n1:cpu,cpuacct:/job\n0::/\n")
    assert cpu_quota_cores(tmp_path, tmp_path / "membership") == 0.5
    assert memory_limit_bytes(tmp_path, tmp_path / "membership") == 2_000_000


def test_a_container_that_sees_its_group_as_the_root(tmp_path: Path) -> None:
    group(tmp_path, cpu__max="200000 100000")
    (tmp_path / "membership").write_text("0::/host/path/that/is/not/here\n")
    assert cpu_quota_cores(tmp_path, tmp_path / "membership") == 2


def test_no_quota_is_none(tmp_path: Path) -> None:
    group(tmp_path / "cpu" / "job", cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    (tmp_path / "membership").write_text("1:cpu:/job\n")
    assert cpu_quota_cores(tmp_path, tmp_path / "membership") is None
    assert memory_limit_bytes(tmp_path, tmp_path / "membership") is None


def test_memory_left_counts_the_page_cache_as_free(tmp_path: Path) -> None:
    def limited(path: str, limit: str, used: int, cached: int) -> None:
        stat = f"anon 1\nactive_file {cached}\ninactive_file {cached}\n"
        group(tmp_path / path, memory__max=limit, memory__current=str(used), memory__stat=stat)

    own = tmp_path / "self"
    own.write_text("0::/outer/inner\n")
    limited("outer/inner", "max", 0, 0)
    assert memory_left_bytes(tmp_path, own) is None
    limited("outer", "5000", 4000, 100)
    assert memory_left_bytes(tmp_path, own) == 1200
    limited("outer/inner", "900", 1000, 20)
    assert memory_left_bytes(tmp_path, own) == 0


def test_memory_left_of_cgroup_v1(tmp_path: Path) -> None:
    stat = "inactive_file 1\ntotal_inactive_file 30\ntotal_active_file 3\n"
    files = {"memory__limit_in_bytes": "5000", "memory__usage_in_bytes": "4000", "memory__stat": stat}
    group(tmp_path / "memory" / "job", **files)
    own = tmp_path / "self"
    own.write_text("5:cpu,cpuacct:/job\n4:memory:/job\n")
    assert memory_left_bytes(tmp_path, own) == 1033
    assert memory_left_bytes(tmp_path, tmp_path / "missing") is None


def test_read_limits_of_both_versions(tmp_path: Path) -> None:
    (tmp_path / "self").write_text("7:blkio:/job\n0::/job/worker\n")
    v1 = tmp_path / "cgroup/blkio/job"
    v1.mkdir(parents=True)
    (v1 / "blkio.throttle.read_iops_device").write_text("8:0 77\n")
    v2 = tmp_path / "cgroup/job"
    v2.mkdir(parents=True)
    (v2 / "io.max").write_text("8:16 rbps=1048576 wbps=max riops=max wiops=max\n")
    limits = read_limits(tmp_path / "cgroup", tmp_path / "self")
    assert limits == [
        IoLimitMeta("8:0", str(v1), read_requests_per_s=77),
        IoLimitMeta("8:16", str(v2), read_bytes_per_s=1048576),
    ]
    assert read_limits(tmp_path, tmp_path / "none") == []

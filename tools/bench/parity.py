"""What parity costs and how fast it mends, on one pack: `python -m tools.bench.parity [MIB [PERCENT]]`.

CPU seconds of this process, in memory and on one core; a disk comes on top. Prints one line per figure.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from pathlib import Path

from cas.catalog import PackRow, PackState
from cas.chunk import Hasher, Identity
from cas.frame import encode_frame
from cas.mending import mend_pack
from cas.pack import PackHeader, PackKind, encode_footer
from cas.packs import LocalPacks
from cas.parity import plan_geometry
from cas.protection import check_image, finish, make_sidecar
from cas.recovery import Recovery
from cas.sidecars import LocalSidecars

PACK = 1 << 32 | 1
CHUNK = 32 << 10


def main() -> int:
    mib = int(sys.argv[1]) if len(sys.argv) > 1 else 64
    percent = int(sys.argv[2]) if len(sys.argv) > 2 else 10
    with tempfile.TemporaryDirectory() as directory:
        measure(Path(directory), mib << 20, percent)
    return 0


def measure(directory: Path, size: int, percent: int) -> None:
    identity = Identity(b"S" * 16, b"K" * 32)
    image = pack_of(identity, size)
    place, sidecars = LocalPacks(directory), LocalSidecars(directory)
    writer = place.create(PACK)
    writer.write(0, [image])
    writer.finish(len(image))
    writer.close()
    geometry = plan_geometry(len(image), percent)
    rows = f"{geometry.data_rows} + {geometry.parity_rows} rows of {geometry.groups} blocks"
    print(f"pack {len(image):,} bytes: {rows}, bursts up to {geometry.burst_bytes:,} bytes")

    took = cpu(lambda: check_image(PACK, image))
    print(f"verify the pack         {len(image) / took / 1e6:6.0f} MB/s")
    steps = make_sidecar(place, identity.store_id, PACK, len(image), percent, footerless=False)
    began = time.process_time()
    data = finish(steps)
    took = time.process_time() - began
    print(
        f"make its sidecar        {len(image) / took / 1e6:6.0f} MB/s, {took * (1 << 30) / len(image):.2f} s of CPU per GiB"
    )
    print(f"overhead                {100 * len(data) / len(image):6.2f} %")
    sidecars.put(PACK, data)

    row = PackRow(PackState.SEALED, PackKind.DATA, 0, len(image))
    recovery = Recovery(place, sidecars, identity.store_id)
    damage_and_mend(recovery, place, row, image, percent, "nothing", [])
    damage_and_mend(recovery, place, row, image, percent, "one byte", [(len(image) // 2, 1)])
    rng = random.Random(1)
    spread = [(rng.randrange(len(image)), 1) for _ in range(100)]
    damage_and_mend(recovery, place, row, image, percent, "100 scattered bytes", spread)
    burst = [(len(image) // 3, min(geometry.burst_bytes, len(image) // 2))]
    damage_and_mend(recovery, place, row, image, percent, "the largest burst", burst)
    place.rewrite(PACK, [(len(image) // 2, bytes([image[len(image) // 2] ^ 1]))])
    took = cpu(lambda: recovery.recover(PACK, len(image) // 2, len(image) // 2 + 1))
    print(f"read one damaged block  {1000 * took:6.1f} ms")


def damage_and_mend(recovery, place, row, image, percent, what, ranges) -> None:
    place.rewrite(
        PACK, [(start, bytes(byte ^ 0xA5 for byte in image[start : start + n])) for start, n in ranges]
    )
    began, cpu_began = time.perf_counter(), time.process_time()
    mended = mend_pack(recovery, place, PACK, row, percent)
    took, cpu_took = time.perf_counter() - began, time.process_time() - cpu_began
    assert mended.whole
    assert place.read(PACK, [(0, len(image))])[0] == image
    print(f"mend {what:<19}{took:6.2f} s, {cpu_took:.2f} s of CPU, {mended.mended_blocks:,} blocks")


def pack_of(identity: Identity, size: int) -> bytearray:
    """A sealed pack of about `size` bytes that do not compress."""
    hasher, rng = Hasher(identity.hash_key), random.Random(0)
    image = bytearray(PackHeader.of(identity, PACK, PackKind.DATA).encode())
    headers = []
    while len(image) < size:
        chunks = [rng.randbytes(CHUNK) for _ in range(8)]
        frame = encode_frame(hasher.chunk_ids(chunks), chunks)
        headers.append((len(image), frame.header))
        image += b"".join([frame.header, *frame.payload])
    return image + encode_footer(len(image), headers)


def cpu(work) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


if __name__ == "__main__":
    sys.exit(main())

"""Bytes to pixels: every format, mode and orientation, and what hostile files get."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from clipkit.errors import RecordError
from clipkit.images.decode import REDUCED, Limits, decode, probe

# What `decode` sets for the process; the filters that pytest lays over each test would hide it.
pytestmark = pytest.mark.filterwarnings(r"ignore::Warning:PIL\..*")

WRITTEN = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
LOSSLESS = {"WEBP": {"lossless": True}, "AVIF": {"quality": 100, "subsampling": "4:4:4"}}


def encode(image: Image.Image, container: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, container, **options)
    return buffer.getvalue()


def gradient(width: int, height: int) -> Image.Image:
    """Red grows to the right, green downwards: no two turns of it look alike."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, np.full_like(x, 40)], 2).astype(np.uint8))


def distance(one: Image.Image, other: Image.Image) -> float:
    """Mean absolute difference in levels."""
    assert one.size == other.size
    return float(np.abs(np.asarray(one, np.float32) - np.asarray(other, np.float32)).mean())


def kind(data: bytes, **options: object) -> str:
    with pytest.raises(RecordError) as caught:
        decode(data, **options)
    return caught.value.kind


# Formats


@pytest.mark.parametrize("container", WRITTEN)
def test_each_format_by_its_content(container: str) -> None:
    picture = gradient(40, 30)
    data = encode(picture, container, **LOSSLESS.get(container, {}))
    image = decode(data)
    assert (image.mode, image.size, image.info) == ("RGB", (40, 30), {})
    assert distance(image, picture) < (8 if container == "GIF" else 3)  # a palette of 256
    mode = "P" if container == "GIF" else "RGB"
    assert probe(data).__dict__ == {"format": container, "width": 40, "height": 30, "mode": mode}


def test_heic_with_the_extra() -> None:
    heif = pytest.importorskip("pillow_heif")
    buffer = io.BytesIO()
    heif.from_pillow(gradient(64, 48)).save(buffer, quality=95)
    assert distance(decode(buffer.getvalue()), gradient(64, 48)) < 4
    assert probe(buffer.getvalue()).format == "HEIF"


def test_heic_without_the_extra_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(RecordError) as caught:
        decode(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    assert caught.value.kind == "image-format"
    assert "clipkit[heif]" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b"<!DOCTYPE html><html>", "HTML"),
        (b"%PDF-1.7", "PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "PostScript"),
        (b"8BPS\0\1", "Photoshop"),
        (b"P6 2 2 255 " + bytes(12), "unknown"),
        (b"not found", "text"),
        (b"\0\0\0\x18ftypisom\0\0\2\0isomiso2", "unknown"),
    ],
)
def test_anything_else_is_refused_and_named(data: bytes, named: str) -> None:
    with pytest.raises(RecordError, match=named) as caught:
        decode(data)
    assert caught.value.kind == "image-format"


def test_no_other_decoder_of_pillow_ever_runs() -> None:
    for container in ("TGA", "PCX", "ICO", "SGI", "PPM", "DDS"):
        assert kind(encode(gradient(8, 8), container)) == "image-format"


def test_first_frame_of_animations() -> None:
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "blue")]
    for container in ("GIF", "PNG", "WEBP", "TIFF"):
        data = encode(frames[0], container, save_all=True, append_images=frames[1:])
        assert distance(decode(data), frames[0]) < 3


# Orientation


@pytest.mark.parametrize("container", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_orientations_come_out_upright(container: str, orientation: int) -> None:
    upright = gradient(48, 32)
    stored = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    turned = upright.transpose(stored[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(turned, container, exif=exif, **LOSSLESS.get(container, {}))
    assert distance(decode(data), upright) < 4
    found = probe(data)
    assert (found.width, found.height) == (48, 32)


def test_orientation_behind_the_pixels_of_a_png() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(gradient(32, 48), "PNG", exif=exif)
    at = data.index(b"eXIf") - 4
    length = 12 + int.from_bytes(data[at : at + 4], "big")
    chunk, rest = data[at : at + length], data[:at] + data[at + length :]
    late = rest[:-12] + chunk + rest[-12:]
    assert decode(late).size == (48, 32)
    assert (probe(late).width, probe(late).height) == (48, 32)


def test_broken_exif_does_not_hide_the_picture() -> None:
    data = encode(gradient(32, 16), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert decode(data).size == (32, 16)


def test_the_eight_real_photos_look_the_same(shared_data: Path) -> None:
    folder = shared_data / "decode" / "exif-orientation"
    images = [decode(path.read_bytes()) for path in sorted(folder.glob("*_[1-8].jpg"))]
    assert len(images) == 8
    assert {image.size for image in images} == {images[0].size}
    small = [image.resize((24, 24), Image.Resampling.BOX) for image in images]
    assert max(distance(small[0], other) for other in small) < 2


# Modes: values worked out by hand


def test_alpha_goes_over_white() -> None:
    # 200 * 128/255 + 255 * 127/255 = 227.39; 0 + 127 = 127; opaque and transparent at the ends
    image = Image.new("RGBA", (3, 1))
    image.putdata([(200, 0, 255, 128), (10, 20, 30, 255), (10, 20, 30, 0)])
    for container, options in (("PNG", {}), ("WEBP", {"lossless": True, "exact": True}), ("TIFF", {})):
        pixels = np.asarray(decode(encode(image, container, **options)))
        assert pixels.tolist() == [[[227, 127, 255], [10, 20, 30], [255, 255, 255]]]


def test_grey_alpha_and_transparent_palettes_go_over_white() -> None:
    grey = Image.new("LA", (2, 1))
    grey.putdata([(100, 255), (100, 0)])
    assert np.asarray(decode(encode(grey, "PNG"))).tolist() == [[[100] * 3, [255] * 3]]
    palette = Image.new("P", (2, 1))
    palette.putpalette([9, 8, 7, 1, 2, 3])
    palette.putdata([0, 1])
    assert np.asarray(decode(encode(palette, "PNG", transparency=1))).tolist() == [[[9, 8, 7], [255] * 3]]
    assert np.asarray(decode(encode(palette, "PNG", transparency=b"\xff\x80"))).tolist() == [
        [[9, 8, 7], [128, 128, 129]]
    ]
    colour = Image.new("RGB", (2, 1))
    colour.putdata([(5, 6, 7), (1, 2, 3)])
    assert np.asarray(decode(encode(colour, "PNG", transparency=(1, 2, 3)))).tolist() == [[[5, 6, 7], [255] * 3]]


@pytest.mark.parametrize("container", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_not_clipped(container: str) -> None:
    values = np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16)  # /257: 0, 0.498, 0.502, 1, 127.5.., 255
    pixels = np.asarray(decode(encode(Image.fromarray(values), container)))
    assert pixels[0, :, 0].tolist() == [0, 0, 1, 1, 128, 255]
    assert (pixels == pixels[:, :, :1]).all()


def test_16_bit_grey_with_a_transparent_value() -> None:
    values = np.array([[0, 65535, 32768, 257 * 77]], np.uint16)
    pixels = np.asarray(decode(encode(Image.fromarray(values), "PNG", transparency=32768)))
    assert pixels[0, :, 0].tolist() == [0, 255, 255, 77]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 100, 255], [0, 100, 255]),  # 8-bit numbers in 32 bits
        ([0, 257 * 100, 65535], [0, 100, 255]),  # 16-bit numbers in 32 bits
        ([-100, 0, 100], [0, 128, 255]),  # no usual range: black to white
        ([7, 7, 7], [7, 7, 7]),
    ],
)
def test_32_bit_grey(values: list[int], expected: list[int]) -> None:
    data = encode(Image.fromarray(np.array([values], np.int32)), "TIFF")
    assert np.asarray(decode(data))[0, :, 0].tolist() == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 30.0, 200.0], [0, 30, 200]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([float("nan"), 2.0, float("inf")], [0, 2, 255]),
    ],
)
def test_float_grey(values: list[float], expected: list[int]) -> None:
    data = encode(Image.fromarray(np.array([values], np.float32)), "TIFF")
    assert np.asarray(decode(data))[0, :, 0].tolist() == expected


def test_cmyk() -> None:
    # ink to light: 255 - c, scaled by what black leaves
    colours = [(0, 0, 0, 0), (255, 0, 0, 0), (0, 0, 0, 255), (0, 255, 255, 0)]
    expected = [(255, 255, 255), (0, 255, 255), (0, 0, 0), (255, 0, 0)]
    for ink, light in zip(colours, expected, strict=True):
        image = Image.new("CMYK", (16, 16), ink)
        for container in ("JPEG", "TIFF"):  # Pillow writes JPEG as Adobe does, inverted
            assert np.abs(np.asarray(decode(encode(image, container)), int) - light).max() <= 2


def test_other_modes() -> None:
    one = Image.new("1", (2, 1))
    one.putdata([0, 255])
    assert np.asarray(decode(encode(one, "PNG")))[0].tolist() == [[0] * 3, [255] * 3]
    lab = ImageCms.profileToProfile(
        Image.new("RGB", (8, 8), (200, 30, 30)),
        ImageCms.createProfile("sRGB"),
        ImageCms.createProfile("LAB"),
        outputMode="LAB",
    )
    assert np.abs(np.asarray(decode(encode(lab, "TIFF")), int) - (200, 30, 30)).max() <= 6


# Limits and faults


def test_limits_hold_before_decoding() -> None:
    data = encode(gradient(40, 30), "PNG")
    assert kind(data, limits=Limits(max_pixels=1199)) == "image-too-many-pixels"
    assert decode(data, limits=Limits(max_pixels=1200)).size == (40, 30)
    assert kind(data, limits=Limits(max_bytes=len(data) - 1)) == "image-too-large"
    assert kind(b"") == "image-empty"


@pytest.mark.parametrize("container", ["PNG", "GIF", "BMP", "WEBP", "JPEG"])
def test_a_header_that_lies_about_its_size(container: str) -> None:
    data = bytearray(encode(gradient(16, 16), container, **LOSSLESS.get(container, {})))
    if container == "PNG":
        data[16:24] = (60000).to_bytes(4, "big") * 2
        data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    elif container == "GIF":
        data[6:10] = b"\xff\xff\xff\xff"
    elif container == "BMP":
        data[18:26] = (30000).to_bytes(4, "little") * 2
    elif container == "WEBP":
        assert data[12:16] == b"VP8L"
        data[21:25] = b"\xff\xff\xff\x0f"  # 14 bits each
    else:
        at = data.index(b"\xff\xc0")
        data[at + 5 : at + 9] = b"\xff\xff\xff\xff"
    assert kind(bytes(data)) in ("image-too-many-pixels", "image-broken")
    with pytest.raises(RecordError):
        probe(bytes(data))


def test_a_tiff_whose_tiles_are_larger_than_its_picture() -> None:
    tags = {256: 16, 257: 16, 258: 8, 259: 8, 262: 1, 277: 1, 322: 40000, 323: 40000, 324: 8, 325: 64}
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    header = struct.pack("<2sHI", b"II", 42, 72)
    data = header + bytes(64) + struct.pack("<H", len(tags)) + directory + bytes(4)
    assert kind(data) == "image-too-many-pixels"
    with pytest.raises(RecordError):
        probe(data)


def test_formats_that_cost_more_have_lower_limits() -> None:
    webp = encode(gradient(40, 30), "WEBP")
    assert kind(webp, limits=Limits(max_pixels=2399)) == "image-too-many-pixels"
    assert decode(webp, limits=Limits(max_pixels=2400)).size == (40, 30)
    rle = bytearray(encode(Image.new("P", (40, 30)), "BMP"))
    rle[30:34] = (1).to_bytes(4, "little")
    assert kind(bytes(rle), limits=Limits(max_pixels=9599)) == "image-too-many-pixels"


def test_a_jpeg_that_repeats_its_scans() -> None:
    data = encode(gradient(64, 64), "JPEG", progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    assert decode(data[:-2] + 10 * scan + data[-2:]).size == (64, 64)
    assert kind(data[:-2] + 200 * scan + data[-2:]) == "image-broken"


@pytest.mark.parametrize("container", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "AVIF"])
@pytest.mark.parametrize("part", [0.3, 0.7])
def test_truncated_files_are_errors(container: str, part: float) -> None:
    noise = Image.effect_noise((96, 96), 60).convert("RGB")
    data = encode(noise, container)
    assert kind(data[: int(len(data) * part)]) == "image-broken"
    if container == "JPEG":
        assert kind(data[: int(len(data) * part)], fit=8) == "image-broken"


BASE = {container: encode(gradient(24, 18), container) for container in WRITTEN}


def survives(data: bytes) -> None:
    for attempt in (lambda: decode(data), lambda: decode(data, fit=4), lambda: probe(data)):
        try:
            attempt()
        except RecordError as error:
            assert error.kind.startswith("image-")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(container=st.sampled_from(WRITTEN), flips=st.lists(st.integers(0, 10**6), max_size=6), keep=st.floats(0.2, 1))
def test_damaged_files_never_raise_anything_else(container: str, flips: list[int], keep: float) -> None:
    data = bytearray(BASE[container])
    for flip in flips:
        data[flip // 8 % len(data)] ^= 1 << flip % 8
    survives(bytes(data[: max(1, int(len(data) * keep))]))


@settings(max_examples=200, deadline=None)
@given(head=st.sampled_from([b"", *(data[:16] for data in BASE.values())]), tail=st.binary(max_size=200))
def test_random_bytes_never_raise_anything_else(head: bytes, tail: bytes) -> None:
    survives(head + tail)


def test_threads_get_the_same_pixels() -> None:
    files = [encode(gradient(200 + 10 * size, 150), container) for size in range(4) for container in WRITTEN]
    alone = [decode(data).tobytes() for data in files]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda data: decode(data).tobytes(), files * 4))
    assert together == alone * 4


# Reduced scale


def test_only_much_larger_jpegs_are_reduced() -> None:
    data = encode(gradient(448, 896), "JPEG", quality=95)
    assert decode(data, fit=224).size == (224, 448) or REDUCED in decode(data, fit=112).info
    assert decode(data, fit=225).size == (448, 896)
    assert decode(data, fit=225).tobytes() == decode(data).tobytes()
    assert REDUCED not in decode(data, fit=225).info
    png = encode(gradient(448, 896), "PNG")
    assert decode(png, fit=32).size == (448, 896)


@pytest.mark.parametrize(("fit", "size"), [(224, (448, 896)), (113, (448, 896)), (112, (224, 448)), (56, (112, 224))])
def test_the_scale_leaves_twice_what_is_needed(fit: int, size: tuple[int, int]) -> None:
    assert decode(encode(gradient(896, 1792), "JPEG"), fit=fit).size == size


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_reduction_knows_where_the_original_lies(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = gradient(405, 803)
    data = encode(stored, "JPEG", exif=exif)
    reduced = decode(data, fit=50)
    box = reduced.info[REDUCED].box
    upright = decode(data)
    assert reduced.info[REDUCED].size == upright.size
    assert (box[2] - box[0], box[3] - box[1]) == (upright.width / 4, upright.height / 4)
    one = upright.resize((32, 32), Image.Resampling.BOX)
    assert distance(one, reduced.resize((32, 32), Image.Resampling.BOX, box=box)) < 1.0


# Real and hostile files

LIST = """
import json, re, sys, time
from pathlib import Path
from clipkit.errors import RecordError
from clipkit.images.decode import decode, probe
folder = Path(sys.argv[1])
for line in (folder / "expected.jsonl").open():
    record = json.loads(line)
    data = (folder / record["image"]).read_bytes()
    started = time.monotonic()
    try:
        image = decode(data)
        found = probe(data)
        assert image.mode == "RGB" and image.size == (found.width, found.height), record["id"]
        said = list(image.size)
    except RecordError as error:
        said = error.kind
    print(json.dumps([record["id"], said, time.monotonic() - started]))
status = Path("/proc/self/status")  # getrusage would count the parent's memory too
print(1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", status.read_text())[1]) if status.exists() else 0)
"""
READ = {"JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"}
DAMAGED = {  # Pillow's first load() of these raises; the list was made by a second one, which gives back what was left
    "pillow/broken_data_stream.png",
    "pillow/truncated_end_chunk.png",
    "pillow/apng__chunk_no_fctl.png",
}


def test_every_file_of_the_list_gives_pixels_or_a_typed_error(shared_data: Path) -> None:
    folder = shared_data / "decode"
    run = subprocess.run([sys.executable, "-c", LIST, folder], capture_output=True, text=True, timeout=120)
    assert (run.returncode, run.stderr) == (0, "")
    *lines, peak = map(json.loads, run.stdout.splitlines())
    assert peak < 1e9
    said = {name: outcome for name, outcome, _ in lines}
    assert max(seconds for _, _, seconds in lines) < 10
    records = [json.loads(line) for line in (folder / "expected.jsonl").read_text().splitlines()]
    assert len(said) == len(records)
    for record in records:
        outcome, pillow = said[record["id"]], record["pillow"]
        if pillow["ok"] and pillow["format"] in READ and record["id"] not in DAMAGED:
            sideways = (pillow.get("exif_orientation") or 1) >= 5 and pillow["format"] != "TIFF"
            assert outcome == (pillow["size"][::-1] if sideways else pillow["size"]), record["id"]
        elif not Path(record["id"]).suffix.startswith(".hei"):
            assert isinstance(outcome, str), record["id"]

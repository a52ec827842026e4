"""Makes the fixtures of tests/vision with NumPy and Pillow.

Run here: python make.py
example_0.png and example_1.png are pictures of the easy-VQA data set (MIT licence, Victor Zhou) and stay.
"""

import base64
import io
import json
import pathlib
import struct
import zipfile

import numpy as np
from PIL import Image
from safetensors.numpy import save_file

HERE = pathlib.Path(__file__).parent

# Three regions of five features, exact in 16-bit floats too.
FEATURES = np.array([[10 * row + column / 4 for column in range(5)] for row in range(3)], np.float32)
WIDTH, HEIGHT = 256, 512
PIXELS = np.array([[16, 64, 128, 256], [0, 0, 256, 512], [64, 32, 192, 480]], np.float32)
BOXES = PIXELS / np.array([WIDTH, HEIGHT, WIDTH, HEIGHT], np.float32)


def safetensors_files():
    for name, dtype in [("f32", np.float32), ("f16", np.float16), ("f64", np.float64)]:
        save_file({"features": FEATURES.astype(dtype), "boxes": BOXES.astype(dtype)}, HERE / f"{name}.safetensors")
    save_file({"visual_feats": FEATURES[None], "visual_pos": BOXES[None]}, HERE / "batch.safetensors")
    save_file({"features": FEATURES, "boxes": PIXELS}, HERE / "pixels.safetensors")

    # NumPy has no bfloat16; these values need only its upper half.
    parts, header, at = [], {}, 0
    for name, array in [("features", FEATURES), ("boxes", BOXES)]:
        upper = (array.view(np.uint32) >> 16).astype("<u2")
        assert np.array_equal((upper.astype(np.uint32) << 16).view(np.float32), array)
        header[name] = {"dtype": "BF16", "shape": array.shape, "data_offsets": [at, at + upper.nbytes]}
        parts.append(upper.tobytes())
        at += upper.nbytes
    text = json.dumps(header).encode()
    (HERE / "bf16.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + b"".join(parts))


def npy(array, version=None):
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, version=version)
    return buffer.getvalue()


def npz_files():
    np.savez(HERE / "names.npz", features=FEATURES, boxes=BOXES)
    np.savez_compressed(HERE / "deflated.npz", features=FEATURES, boxes=BOXES)
    np.savez_compressed(HERE / "batch.npz", visual_feats=FEATURES[None], visual_pos=BOXES[None])
    info = np.array({"objects": [1, 2, 3]}, dtype=object)
    np.savez_compressed(HERE / "pixels.npz", x=FEATURES, bbox=PIXELS, image_w=WIDTH, image_h=HEIGHT, num_bbox=3, info=info)
    np.savez(
        HERE / "arrays_of_one.npz",
        x=FEATURES.astype(np.float16), bbox=PIXELS.astype(np.int64), image_w=np.array([WIDTH], np.uint16), image_h=np.array([HEIGHT], np.float64),
    )
    np.savez(HERE / "fortran.npz", features=np.asfortranarray(FEATURES), boxes=np.asfortranarray(BOXES.astype(np.float64)))
    np.savez(HERE / "big_endian.npz", features=FEATURES.astype(">f4"), boxes=BOXES.astype(">f8"))
    np.savez(HERE / "transposed.npz", x=np.ascontiguousarray(FEATURES.T), bbox=PIXELS, image_w=WIDTH, image_h=HEIGHT)
    np.savez(HERE / "no_size.npz", x=FEATURES, bbox=PIXELS)
    np.savez(HERE / "objects.npz", features=np.array([{}, {}], dtype=object), boxes=BOXES)
    with zipfile.ZipFile(HERE / "versions.npz", "w") as archive:
        archive.writestr(zipfile.ZipInfo("features.npy"), npy(FEATURES, (2, 0)))
        archive.writestr(zipfile.ZipInfo("boxes.npy"), npy(BOXES, (3, 0)))


def npy_files():
    np.save(HERE / "features.npy", FEATURES)
    np.save(HERE / "boxes.npy", BOXES)


def tsv_files():
    def line(image_id, features, boxes, repr_of_bytes):
        def text(array):
            plain = base64.b64encode(np.ascontiguousarray(array).tobytes())
            return repr(plain) if repr_of_bytes else plain.decode()

        ids, confidences = np.arange(len(boxes), dtype=np.int64), np.ones(len(boxes), np.float32)
        fields = [image_id, HEIGHT, WIDTH, text(ids), text(confidences), text(ids), text(confidences), len(boxes), text(boxes), text(features)]
        return "\t".join(map(str, fields))

    lines = [line("first", FEATURES[:1] + 100, PIXELS[:1], False), line("second", FEATURES, PIXELS, False), line("third", FEATURES[:2], PIXELS[:2], False)]
    (HERE / "plain.tsv").write_text("\n".join(lines) + "\n")
    lines = [line("first", FEATURES[:1] + 100, PIXELS[:1], True), line("second", FEATURES, PIXELS, True)]
    (HERE / "repr.tsv").write_bytes("\r\n".join(lines).encode())


def image_files():
    y, x = np.mgrid[0:7, 0:9]
    rgb = np.stack([x * 28, y * 40, (x * y * 5) % 256], -1).astype(np.uint8)
    alpha = ((x + y) * 16).astype(np.uint8)
    grey16 = (x * 7000 + y * 300 + 129).astype(np.uint16)
    Image.fromarray(rgb).save(HERE / "rgb.png")
    Image.fromarray(np.dstack([rgb, alpha])).save(HERE / "rgba.png")
    Image.fromarray(np.dstack([rgb[..., 0], alpha])).save(HERE / "grey_alpha.png")
    Image.fromarray(rgb[..., 0]).save(HERE / "grey.png")
    Image.fromarray(rgb).quantize(16).save(HERE / "palette.png", transparency=3)
    Image.fromarray(rgb[..., 0] > 100).save(HERE / "one_bit.png")
    Image.fromarray(grey16).save(HERE / "grey16.png")
    (HERE / "rgb16.png").write_bytes(png16(np.stack([grey16, 65535 - grey16, grey16 // 3], -1)))
    # A flat picture, which every JPEG decoder gives back alike; the name is wrong on purpose.
    Image.new("RGB", (16, 8), (200, 100, 50)).save(HERE / "jpeg_named.png", format="jpeg", quality=95, subsampling=0)
    Image.new("L", (16, 8), 77).save(HERE / "grey.jpg", quality=95)

    expected = {}
    for name in ["rgb", "rgba", "grey_alpha", "grey", "palette", "one_bit", "rgb16", "jpeg_named"]:
        pixels = np.asarray(Image.open(HERE / f"{name}.png").convert("RGB"))
        expected[f"{name}.png"] = {"width": pixels.shape[1], "height": pixels.shape[0], "pixels": pixels.flatten().tolist()}
    (HERE / "decoded.json").write_text(json.dumps(expected, separators=(",", ":")) + "\n")

    # Texture with all frequencies, so that a filter without antialiasing would be far off.
    rng = np.random.default_rng(5)
    for name, (width, height) in {"small": (21, 30), "large": (150, 96)}.items():
        image = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        image.save(HERE / f"{name}.png")
        image.resize((32, 48), Image.Resampling.BILINEAR).save(HERE / f"{name}_32x48.png")


def png16(array):
    """A PNG of 16-bit colours, which Pillow reads but does not write."""
    import zlib

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, _ = array.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def patch_features():
    """Features of some patches of the two easy-VQA pictures: 8 x 8 pixels, value / 127.5 - 1."""
    recorded = {"patches": np.array([0, 9, 27, 36, 63], np.int64)}
    for number in [0, 1]:
        pixels = np.asarray(Image.open(HERE / f"example_{number}.png").convert("RGB")).astype(np.float64)
        patches = pixels.reshape(8, 8, 8, 8, 3).transpose(0, 2, 1, 3, 4).reshape(64, 192) / 127.5 - 1
        recorded[f"{number}.features"] = patches[recorded["patches"]].astype(np.float32)
    save_file(recorded, HERE / "patches.safetensors")


safetensors_files()
npz_files()
npy_files()
tsv_files()
image_files()
patch_features()

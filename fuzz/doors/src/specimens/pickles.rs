//! Files of `torch.save`: a pickle, which is a program for a small machine, beside its numbers.

use std::io::{Cursor, Write};

use zip::CompressionMethod;
use zip::write::{SimpleFileOptions, ZipWriter};

use super::{List, fixture};
use crate::tiny;

pub fn add(all: &mut List) {
    all.good("torch", "valid", archive(&state_dict(), &numbers()));
    for (name, words) in [
        ("deflated.bin", "is compressed"),
        ("legacy-2.bin", "posix.system"),
        ("legacy-4.bin", "posix.system"),
        ("plain.bin", "not one of torch.save"),
        ("small-legacy.bin", "unknown"),
        ("small-zip.bin", "unknown"),
        ("tensor.bin", "no dictionary of tensors"),
        ("zip-2.bin", "posix.system"),
        ("zip-4.bin", "posix.system"),
    ] {
        all.bad("torch", name, words, fixture(&format!("converter/tests/fixtures/hostile/{name}")));
    }
    let pickle = |body: &[u8]| archive(&[b"\x80\x02", body, b"."].concat(), &[]);
    all.bad("torch", "calls-a-program", "posix.system", pickle(b"cposix\nsystem\nX\x02\0\0\0id\x85R"));
    all.bad("torch", "empty-stack", "pickle is refused", pickle(b"R"));
    all.bad("torch", "no-end", "pickle is refused", archive(b"\x80\x02}", &[]));
    all.bad("torch", "nested-marks", "nested more than", pickle(&[b'('; 5000]));
    all.bad(
        "torch",
        "nested-tuples",
        "no dictionary",
        pickle(&[&b"N"[..], &b"\x85".repeat(50_000)].concat()),
    );
    all.bad("torch", "many-objects", "more than", pickle(&b"]".repeat(263_000)));
    all.bad("torch", "memo-far-away", "pickle is refused", pickle(b"}r\xff\xff\xff\xffj\xfe\xff\xff\xff"));
    all.bad("torch", "text-length-huge", "pickle is refused", pickle(b"X\xff\xff\xff\xff"));
    all.bad(
        "torch",
        "number-of-255-bytes",
        "no dictionary",
        pickle(&[&[0x8a, 255][..], &[0xff; 255]].concat()),
    );
    let tensor =
        |shape: &[u8], stride: &[u8]| pickle(&dictionary(&[one_tensor("a", 6, b"K\0", shape, stride)]));
    all.bad("torch", "shape-negative", "a size is -1", tensor(b"(J\xff\xff\xff\xfft", b"(K\x01t"));
    all.bad(
        "torch",
        "shape-wraps",
        "pickle is refused",
        tensor(b"(\x8a\x08\0\0\0\0\0\0\0\x40\x8a\x08\0\0\0\0\0\0\0\x40t", b"(K\x01K\x01t"),
    );
    all.bad(
        "torch",
        "stride-huge",
        "pickle is refused",
        tensor(b"(K\x02K\x03t", b"(\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7fK\x01t"),
    );
    all.bad("torch", "more-axes-than-strides", "2 axes and 1 strides", tensor(b"(K\x02K\x03t", b"(K\x01t"));
    let far = pickle(&dictionary(&[one_tensor("a", 6, b"J\xff\xff\xff\x7f", b"(K\x06t", b"(K\x01t")]));
    all.bad("torch", "offset-beyond-storage", "pickle is refused", far);
    all.bad("torch", "no-such-storage", "has 0 bytes", tensor(b"(K\x06t", b"(K\x01t"));
    let mut cut = archive(&state_dict(), &numbers());
    cut.truncate(cut.len() - 100);
    all.bad("torch", "directory-cut-short", "damaged or cut short", cut);
    all.bad("torch", "zip-bomb", "more than 16777216 bytes", bomb());
}

/// A pickle of 20 MiB, compressed to a thousandth.
fn bomb() -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    zip.start_file("archive/data.pkl", options).expect("a member");
    for _ in 0..20 {
        zip.write_all(&[b'N'; 1 << 20]).expect("memory");
    }
    zip.finish().expect("memory").into_inner()
}

/// An archive as `torch.save` makes it, with one storage.
fn archive(pickle: &[u8], storage: &[u8]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for (name, bytes) in [
        ("archive/data.pkl", pickle),
        ("archive/byteorder", b"little"),
        ("archive/data/0", storage),
        ("archive/version", b"3\n"),
    ] {
        zip.start_file(name, options).expect("a member");
        zip.write_all(bytes).expect("memory");
    }
    zip.finish().expect("memory").into_inner()
}

fn text(text: &str) -> Vec<u8> {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

/// A dictionary of names and tensors.
fn dictionary(tensors: &[Vec<u8>]) -> Vec<u8> {
    [&b"}("[..], &tensors.concat(), b"u"].concat()
}

/// A name, and a tensor in the storage of that many numbers; offset, shape and strides are pickled already.
fn one_tensor(name: &str, elements: u32, offset: &[u8], shape: &[u8], stride: &[u8]) -> Vec<u8> {
    let storage = [
        &b"("[..],
        &text("storage"),
        b"ctorch\nFloatStorage\n",
        &text("0"),
        &text("cpu"),
        b"J",
        &elements.to_le_bytes(),
        b"tQ",
    ]
    .concat();
    let parts: [&[u8]; 8] = [
        &text(name),
        b"ctorch._utils\n_rebuild_tensor_v2\n(",
        &storage,
        offset,
        shape,
        stride,
        b"\x89}",
        b"tR",
    ];
    parts.concat()
}

/// All weights of the tiny model, one after the other.
fn numbers() -> Vec<u8> {
    tiny::checkpoint().into_values().flat_map(|(_, bytes)| bytes).collect()
}

/// The pickle that goes with [`numbers`].
fn state_dict() -> Vec<u8> {
    let total = numbers().len() as u32 / 4;
    let integer = |number: usize| [b"J", &(number as u32).to_le_bytes()[..]].concat();
    let mut offset = 0;
    let mut tensors = Vec::new();
    for (name, (shape, bytes)) in tiny::checkpoint() {
        let sizes: Vec<u8> = shape.iter().flat_map(|size| integer(*size)).collect();
        let strides: Vec<u8> =
            (0..shape.len()).flat_map(|axis| integer(shape[axis + 1..].iter().product())).collect();
        let tuple = |inner: &[u8]| [b"(", inner, b"t"].concat();
        tensors.push(one_tensor(&name, total, &integer(offset), &tuple(&sizes), &tuple(&strides)));
        offset += bytes.len() / 4;
    }
    [b"\x80\x02", &dictionary(&tensors)[..], b"."].concat()
}

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
    odd(all);
    let mut cut = archive(&state_dict(), &numbers());
    cut.truncate(cut.len() - 100);
    all.bad("torch", "directory-cut-short", "damaged or cut short", cut);
    all.bad("torch", "zip-bomb", "more than 16777216 bytes", bomb());
}

/// Instructions, functions and archives beyond those of state dicts.
fn odd(all: &mut List) {
    let pickle = |body: &[u8]| archive(&[b"\x80\x04", body, b"."].concat(), &[]);
    let global = |module: &str, name: &str| [text(module), text(name), b"\x93".to_vec()].concat();
    for (name, words, body) in [
        ("instance-by-name", "posix.system", b"(X\x02\0\0\0idiposix\nsystem\n".to_vec()),
        ("object-by-class", "posix.system", b"(cposix\nsystem\no".to_vec()),
        ("object-by-new", "posix.system", [&global("posix", "system")[..], b")\x81"].concat()),
        ("extension", "instruction 0x82", b"\x82\x01".to_vec()),
        ("buffer-out-of-band", "instruction 0x97", b"\x97".to_vec()),
        ("persistent-id-in-text", "instruction 0x50", b"Pid\n".to_vec()),
        ("protocol-255", "protocol 255", b"\x80\xff".to_vec()),
        ("frame-longer-than-all", "no dictionary", b"\x95\xff\xff\xff\xff\xff\xff\xff\xffN".to_vec()),
        ("bytes-length-huge", "pickle is refused", b"\x8e\xff\xff\xff\xff\xff\xff\xff\xff".to_vec()),
        ("number-length-huge", "pickle is refused", b"\x8b\xff\xff\xff\xff".to_vec()),
        ("name-for-the-terminal", r"a\n\u{1b}[2J", global("a\n\u{1b}[2J", "b")),
        ("name-long", "...", global(&"a".repeat(5_000), "b")),
        ("global-by-numbers", "something that is no name", b"K\x01K\x02\x93".to_vec()),
        ("function-of-torch", "torch.load", global("torch", "load")),
        ("function-of-torch-inside", "_rebuild_qtensor", global("torch._utils", "_rebuild_qtensor")),
        ("type-called", "calls a type", [&global("torch", "FloatStorage")[..], b")R"].concat()),
        ("list-of-itself", "no dictionary", b"]\x94h\0a".to_vec()),
        ("dictionary-of-itself", "no dictionary", [&b"}\x94"[..], &text("state_dict"), b"h\0s"].concat()),
        // Each is a pair of the one before, twice: 2^60 values for whoever walks through them.
        ("pairs-of-pairs", "no dictionary", [&b"N"[..], &b"2\x86".repeat(60)].concat()),
        ("pairs-of-pairs-as-key", "no dictionary", [&b"}N"[..], &b"2\x86".repeat(60), b"Ns"].concat()),
        ("odd-number-of-entries", "pickle is refused", b"}(NNNu".to_vec()),
        ("entries-of-a-list", "sets entries", b"]NNs".to_vec()),
        ("state-of-a-number", "inner state", b"K\x01}b".to_vec()),
        ("persistent-id-of-nothing", "stands for no storage", b"NQ".to_vec()),
        ("persistent-id-of-three", "stands for no storage", b"NNN\x87Q".to_vec()),
        ("ordered-dictionary-of-text", "made of a text", {
            [&global("collections", "OrderedDict")[..], &text("ab"), b"\x85R"].concat()
        }),
        ("memo-twice", "two objects", b"Nq\0Nq\0".to_vec()),
    ] {
        all.bad("torch", name, words, pickle(&body));
    }
    let tensor =
        |shape: &[u8], stride: &[u8]| pickle(&dictionary(&[one_tensor("a", 6, b"K\0", shape, stride)]));
    let huge = b"\x8a\x08\0\0\0\0\0\0\0\x40".repeat(2);
    let zero = [&b"(K\0"[..], &huge, b"t"].concat();
    all.bad("torch", "shape-of-none-times-huge", "has 0 bytes", tensor(&zero, &zero));
    all.bad(
        "torch",
        "shape-of-many-axes",
        "axes",
        tensor(&[&b"("[..], &b"K\x01".repeat(100), b"t"].concat(), b")"),
    );
    let names = [&b"}("[..], &[text("a"), b"N".to_vec()].concat().repeat(3), b"u"].concat();
    all.bad("torch", "no-tensors", "no dictionary", pickle(&names));
    let one = || one_tensor("a", 6, b"K\0", b"(K\x06t", b"(K\x01t");
    all.bad("torch", "name-twice", "there twice", pickle(&dictionary(&[one(), one()])));
    let nameless = [&b"}(K\x01"[..], &one()[text("a").len()..], b"u"].concat();
    all.bad("torch", "name-of-a-number", "is no text", pickle(&nameless));

    // The archive around the pickle.
    let good = archive(&state_dict(), &numbers());
    let place = |bytes: &[u8], from: usize| {
        from + good[from..].windows(bytes.len()).position(|found| found == bytes).expect("it is there")
    };
    let list = place(b"PK\x01\x02", 0);
    let with = |at: usize, bytes: &[u8]| {
        let mut changed = good.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        changed
    };
    all.bad("torch", "member-encrypted", "Password required", with(list + 8, &[1, 0]));
    all.bad("torch", "member-method-unknown", "not supported", with(list + 10, &[99, 0]));
    all.bad("torch", "member-sizes-huge", "Invalid checksum", with(list + 20, &[0xff; 8]));
    all.bad("torch", "member-far-away", "invalid Zip", with(list + 42, &[0xf0, 0xff, 0xff, 0x7f]));
    let storage = place(b"PK\x01\x02", place(b"byteorder", list));
    all.bad(
        "torch",
        "storage-size-huge",
        "beyond the end",
        with(storage + 20, &[0xfe, 0xff, 0xff, 0xff, 0xfe, 0xff, 0xff, 0xff]),
    );
    let end = place(b"PK\x05\x06", list);
    all.bad("torch", "members-claimed-65535", "invalid Zip", with(end + 8, &[0xff; 4]));
    all.bad("torch", "list-of-members-far-away", "invalid Zip", with(end + 16, &[0xff, 0xff, 0xff, 0x7f]));
    for (name, words, members) in [
        ("pickle-twice", "or with several", &["a/data.pkl", "b/data.pkl"][..]),
        ("pickle-outside", "no dictionary", &["../../data.pkl"]),
        ("no-pickle", "without a data.pkl", &["archive/version"]),
        ("pickle-in-a-name", "without a data.pkl", &["archive/notdata.pkl"]),
    ] {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        for member in members {
            zip.start_file(
                *member,
                SimpleFileOptions::default().compression_method(CompressionMethod::Stored),
            )
            .expect("a member");
            zip.write_all(b"\x80\x02N.").expect("memory");
        }
        all.bad("torch", name, words, zip.finish().expect("memory").into_inner());
    }
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

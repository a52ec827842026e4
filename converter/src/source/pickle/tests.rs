use lxmert::Limits;

use super::*;

fn refusal(bytes: &[u8]) -> String {
    load(bytes, &Limits::DEFAULT).err().expect("a refusal").to_string()
}

/// A pickle of protocol 2.
fn pickle(body: &[u8]) -> Vec<u8> {
    [b"\x80\x02", body, b"."].concat()
}

fn number(object: &Object<'_>) -> Option<i64> {
    match object {
        Object::Int(number) => Some(*number),
        _ => None,
    }
}

/// What Python's `pickle.dumps({"a": 1, "b": (True, None, 2.5), "c": [-2, 70000]}, protocol)` gives.
#[test]
fn reads_what_python_writes() {
    let protocol_2: &[u8] = b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01K\x01X\x01\x00\x00\x00bq\x02\x88NG@\x04\x00\x00\x00\x00\x00\x00\x87q\x03X\x01\x00\x00\x00cq\x04]q\x05(J\xfe\xff\xff\xffJp\x11\x01\x00eu.";
    let protocol_4: &[u8] = b"\x80\x04\x95*\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x01a\x94K\x01\x8c\x01b\x94\x88NG@\x04\x00\x00\x00\x00\x00\x00\x87\x94\x8c\x01c\x94]\x94(J\xfe\xff\xff\xffJp\x11\x01\x00eu.";
    for bytes in [protocol_2, protocol_4] {
        let pickle = load(bytes, &Limits::DEFAULT).unwrap_or_else(|refusal| panic!("{refusal}"));
        assert_eq!(pickle.len, bytes.len());
        let Object::Dict(root) = pickle.root() else { panic!("no dictionary") };
        assert_eq!(number(pickle.entry(root, "a").unwrap()), Some(1));
        let Some(Object::Tuple(b)) = pickle.entry(root, "b") else { panic!("no tuple") };
        let b: Vec<_> = b.iter().map(|id| pickle.get(*id)).collect();
        assert!(matches!(b[..], [Object::Bool(true), Object::None, Object::Float]));
        let Some(Object::List(c)) = pickle.entry(root, "c") else { panic!("no list") };
        let c: Vec<_> = c.iter().map(|id| number(pickle.get(*id))).collect();
        assert_eq!(c, [Some(-2), Some(70000)]);
    }
}

#[test]
fn names_what_a_pickle_asks_for() {
    for body in [
        &b"cos\nsystem\n(X\x07\x00\x00\x00touch XtR"[..],
        b"cposix\nsystem\n(X\x07\x00\x00\x00touch XtR",
        b"\x8c\x02os\x8c\x06system\x93\x8c\x07touch X\x85R",
        b"(X\x07\x00\x00\x00touch Xios\nsystem\n",
        b"c__builtin__\neval\n.",
        b"cbuiltins\ngetattr\n.",
        b"ctorch._utils\n_rebuild_sparse_tensor\n.",
        b"ctorch\nload\n.",
    ] {
        let text = refusal(&pickle(body));
        let named = ["os.system", "posix.system", "eval", "getattr", "_rebuild_sparse_tensor", "torch.load"];
        assert!(named.iter().any(|name| text.contains(name)), "{text}");
        assert_eq!(text.lines().count(), 1);
    }
}

#[test]
fn refuses_instructions_beyond_a_state_dict() {
    // OBJ, NEWOBJ, NEWOBJ_EX, EXT1, EXT2, EXT4, PERSID, EMPTY_SET, STRING, INT, and one that does not exist.
    for code in [b'o', 0x81, 0x92, 0x82, 0x83, 0x84, b'P', 0x8F, b'S', b'I', 0xFF] {
        assert!(refusal(&pickle(&[b'(', b')', code])).contains("instruction"), "{code:#x}");
    }
    assert!(refusal(&pickle(b"]}b")).contains("inner state of a list"));
    assert!(refusal(&pickle(b"ccollections\nOrderedDict\n}b")).contains("inner state of a function"));
    assert!(refusal(b"\x80\x01N.").contains("protocol 1"));
}

#[test]
fn keeps_to_stack_and_memo() {
    for (body, reason) in [
        (&b"0"[..], "no"),
        (b"N(0", "no"),
        (b"t", "did not open"),
        (b"q\x00", "no"),
        (b"h\x07", "recalls 7"),
        (b"Nq\x01Nq\x01", "two objects under 1"),
        (b"(NuN", "no"),
        (b"}(Nu", "no value"),
        (b"K\x01K\x02a", "appends to an integer"),
        (b"NK\x01K\x02s", "entries of None"),
        (b"K\x01)R", "calls an integer"),
        (b"ctorch\nFloatStorage\n)R", "calls a type"),
        (b"ccollections\nOrderedDict\nNR", "impossible arguments"),
        (b"NQ", "no storage"),
        (b"X\xff\xff\xff\xffa", "cut short"),
        (b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffa", "cut short"),
    ] {
        let text = refusal(&pickle(body));
        assert!(text.contains(reason), "{text}");
    }
    assert!(refusal(b"").contains("cut short"));
}

#[test]
fn has_limits() {
    assert!(refusal(&pickle(&[b'('; 2000])).contains("nested"));
    assert!(refusal(&pickle(&vec![b'N'; Limits::DEFAULT.pickle_objects + 1])).contains("objects"));
    let duplicates = [&b"N"[..], &vec![b'2'; Limits::DEFAULT.pickle_objects + 1], b"."].concat();
    assert!(refusal(&duplicates).contains("at hand"));
    // A long list whose copies would be many times the pickle's size.
    let mut body = b"](".to_vec();
    body.extend(b"NN\x86".repeat(1000));
    body.extend(b"eq\x00");
    body.extend(b"ccollections\nOrderedDict\nh\x00\x85R0".repeat(1000));
    assert!(refusal(&pickle(&body)).contains("objects"));
}

#[test]
fn may_contain_itself() {
    let bytes = pickle(b"]q\x00h\x00a");
    let pickle = load(&bytes, &Limits::DEFAULT).unwrap_or_else(|refusal| panic!("{refusal}"));
    assert!(matches!(pickle.root(), Object::List(items) if matches!(pickle.get(items[0]), Object::List(_))));
}

/// A tensor of a storage of 6 floats.
fn tensor(offset: u8, shape: [u8; 2], strides: [u8; 2]) -> Vec<u8> {
    let mut body =
        b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n".to_vec();
    body.extend(b"X\x01\x00\x00\x000X\x06\x00\x00\x00cuda:3K\x06tQK");
    body.push(offset);
    for pair in [shape, strides] {
        body.extend([b'K', pair[0], b'K', pair[1], 0x86]);
    }
    body.extend(b"\x89ccollections\nOrderedDict\n)RtR");
    pickle(&body)
}

#[test]
fn keeps_tensors_within_their_storage() {
    for (offset, shape, strides) in
        [(0, [2, 3], [3, 1]), (0, [3, 2], [1, 3]), (5, [1, 1], [9, 9]), (9, [0, 3], [3, 1])]
    {
        let bytes = tensor(offset, shape, strides);
        let pickle = load(&bytes, &Limits::DEFAULT).unwrap_or_else(|refusal| panic!("{refusal}"));
        let Object::Tensor(found) = pickle.root() else { panic!("no tensor") };
        assert_eq!((found.dtype, found.storage.key, found.storage.len), (Dtype::F32, "0", 6));
        assert_eq!((found.offset, &found.shape[..]), (offset.into(), &shape.map(u64::from)[..]));
    }
    for (offset, shape, strides) in
        [(1, [2, 3], [3, 1]), (0, [2, 3], [4, 1]), (6, [1, 1], [1, 1]), (0, [255, 255], [255, 255])]
    {
        assert!(refusal(&tensor(offset, shape, strides)).contains("beyond its storage"));
    }
}

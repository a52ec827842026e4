use std::fs;
use std::io;
use std::path::Path;

use proptest::prelude::*;

use super::sample;
use crate::gguf::writer::DataStream;
use crate::gguf::{Array, Header, Metadata, Rule, TensorSpec, TensorType, Value, WriteError, Writer};

fn spec(name: &str, tensor_type: TensorType, dims: &[u64]) -> TensorSpec {
    TensorSpec { name: name.to_string(), tensor_type, dims: dims.to_vec() }
}

fn sample_metadata() -> Metadata {
    let mut metadata = Metadata::new();
    metadata.insert("general.name", "model").unwrap();
    metadata.insert("flag", true).unwrap();
    metadata.insert("sizes", vec![1u32, 2]).unwrap();
    metadata
}

fn sample_tensors() -> [TensorSpec; 2] {
    [spec("a.weight", TensorType::F32, &[4, 3]), spec("b.weight", TensorType::Q8_0, &[32, 2])]
}

fn sample_data() -> Vec<u8> {
    [vec![7; 48], vec![9; 68]].concat()
}

fn create(path: &Path) -> Writer {
    Writer::create(path, &sample_metadata(), &sample_tensors()).unwrap()
}

fn names_in(directory: &Path) -> Vec<String> {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn writes_the_bytes_that_the_format_prescribes() {
    let data = sample_data();
    let (a, b) = data.split_at(48);
    let written = Writer::to_vec(&sample_metadata(), &sample_tensors(), &[a, b]).unwrap();
    assert_eq!(written, sample());
}

#[test]
fn pieces_of_any_size_give_the_same_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.gguf");
    for piece_len in [1, 7, 48, 50, 116] {
        let mut writer = create(&path);
        for piece in sample_data().chunks(piece_len) {
            writer.write(piece).unwrap();
        }
        writer.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), sample(), "pieces of {piece_len}");
    }
    assert_eq!(names_in(directory.path()), ["model.gguf"]);
}

#[test]
fn a_file_without_tensors_ends_aligned() {
    let written = Writer::to_vec(&sample_metadata(), &[], &[]).unwrap();
    assert_eq!(written.len(), 128);
    assert!(Header::parse(&written).unwrap().tensors().is_empty());
}

#[test]
fn the_alignment_key_moves_the_data() {
    let mut metadata = sample_metadata();
    metadata.insert("general.alignment", 256u32).unwrap();
    let data = sample_data();
    let (a, b) = data.split_at(48);
    let written = Writer::to_vec(&metadata, &sample_tensors(), &[a, b]).unwrap();
    let header = Header::parse(&written).unwrap();
    assert_eq!(header.alignment(), 256);
    assert_eq!(header.tensors()[1].offset() % 256, 0);
    assert_eq!(&written[header.tensors()[1].range()], b);
}

#[test]
fn refuses_what_the_reader_would_refuse() {
    let rule = |metadata: &Metadata, tensors: &[TensorSpec]| match Writer::to_vec(metadata, tensors, &[])
        .unwrap_err()
    {
        WriteError::Invalid(error) => (error.rule, error.name, error.offset),
        other => panic!("{other}"),
    };
    let of_tensor = |tensor: TensorSpec| rule(&Metadata::new(), &[tensor]);
    let named = |rule, name: &str| (rule, Some(name.to_string()), None);
    let row = of_tensor(spec("a", TensorType::Q8_0, &[33]));
    assert_eq!(row, named(Rule::RowLength, "a"));
    let dims = of_tensor(spec("a", TensorType::F32, &[1; 5]));
    assert_eq!(dims, named(Rule::DimensionCount, "a"));
    let zero = of_tensor(spec("a", TensorType::F32, &[1, 0]));
    assert_eq!(zero, named(Rule::DimensionZero, "a"));
    let large = of_tensor(spec("a", TensorType::F32, &[1 << 32, 1 << 32]));
    assert_eq!(large, named(Rule::TensorTooLarge, "a"));
    let name = of_tensor(spec(&"n".repeat(64), TensorType::F32, &[1]));
    assert_eq!(name, (Rule::TensorNameTooLong, None, None));
    let twice = [(); 2].map(|()| spec("a", TensorType::F32, &[1]));
    let twice = rule(&Metadata::new(), &twice);
    assert_eq!(twice, named(Rule::TensorNameDuplicate, "a"));
    let half = spec("a", TensorType::F32, &[(1 << 61) - 8]);
    let names = ["a", "b", "c"].map(str::to_string);
    let three = names.map(|name| TensorSpec { name, ..half.clone() });
    let sum = rule(&Metadata::new(), &three);
    assert_eq!(sum, named(Rule::TensorTooLarge, "c"));

    let mut nul = Metadata::new();
    nul.insert("text", "a\0b").unwrap();
    assert_eq!(rule(&nul, &[]), named(Rule::StringNul, "text"));
    let mut alignment = Metadata::new();
    alignment.insert("general.alignment", 24u32).unwrap();
    let key = "general.alignment";
    assert_eq!(rule(&alignment, &[]), named(Rule::Alignment, key));
}

#[test]
fn a_wrong_amount_of_data_in_memory_is_an_error() {
    let data = sample_data();
    let (a, b) = data.split_at(48);
    let error =
        |data: &[&[u8]]| Writer::to_vec(&sample_metadata(), &sample_tensors(), data).unwrap_err().to_string();
    let lacks = "tensor \"a.weight\" lacks 1 bytes of data";
    assert_eq!(error(&[&a[1..], b]), lacks);
    let lacks = "tensor \"b.weight\" lacks 68 bytes of data";
    assert_eq!(error(&[a]), lacks);
    let excess = "20 bytes of data too many for tensor \"a.weight\"";
    assert_eq!(error(&[b, a]), excess);
    let excess = "48 bytes of data too many for tensor \"b.weight\"";
    assert_eq!(error(&[a, b, a]), excess);
}

#[test]
fn too_much_data_is_refused_and_can_be_followed_by_the_right_amount() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.gguf");
    let mut writer = create(&path);
    let error = writer.write(&[0; 117]).unwrap_err();
    assert!(matches!(error, WriteError::TooMuchData { excess: 1, .. }));
    writer.write(&sample_data()).unwrap();
    let error = writer.write(&[0]).unwrap_err();
    assert!(matches!(error, WriteError::TooMuchData { excess: 1, .. }));
    writer.finish().unwrap();
    assert_eq!(fs::read(&path).unwrap(), sample());
}

#[test]
fn an_unfinished_file_never_appears() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.gguf");
    let mut writer = create(&path);
    writer.write(&sample_data()[..50]).unwrap();
    assert!(!path.exists());
    drop(writer);
    assert!(names_in(directory.path()).is_empty());

    let mut writer = create(&path);
    writer.write(&sample_data()[..50]).unwrap();
    let error = writer.finish().unwrap_err();
    let lacks = "tensor \"b.weight\" lacks 66 bytes of data";
    assert_eq!(error.to_string(), lacks);
    assert!(names_in(directory.path()).is_empty());
}

#[test]
fn an_older_file_stays_whole_until_the_new_one_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.gguf");
    fs::write(&path, "old").unwrap();
    let mut writer = create(&path);
    writer.write(&sample_data()).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"old");
    writer.finish().unwrap();
    assert_eq!(fs::read(&path).unwrap(), sample());

    drop(create(&path));
    assert_eq!(fs::read(&path).unwrap(), sample());
    assert_eq!(names_in(directory.path()), ["model.gguf"]);
}

/// A disk with room for so many bytes.
struct Disk(usize);

impl io::Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = bytes.len().min(self.0);
        self.0 -= len;
        match len {
            0 if !bytes.is_empty() => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(len),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn after_a_failed_write_nothing_more_is_accepted() {
    // Data and padding of the sample are 160 bytes, and end in 28 bytes of padding.
    for room in [0, 47, 48, 63, 100, 131, 132, 159] {
        let header = Header::parse(&sample()).unwrap();
        let mut stream = DataStream::new(Disk(room), header, Path::new("x.gguf"));
        let error = stream.write(&sample_data()).unwrap_err();
        assert!(error.to_string().starts_with("cannot write \"x.gguf\": "));
        let again = stream.write(&[]).unwrap_err();
        assert!(matches!(again, WriteError::Broken));
        assert!(matches!(stream.finish(), Err(WriteError::Broken)));
    }
    let header = Header::parse(&sample()).unwrap();
    let mut stream = DataStream::new(Disk(160), header, Path::new("x.gguf"));
    stream.write(&sample_data()).unwrap();
    assert!(stream.finish().is_ok());
}

#[test]
fn targets_that_cannot_be_written_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "old").unwrap();
    for path in [
        directory.path().to_path_buf(),
        directory.path().join(".."),
        directory.path().join("missing").join("model.gguf"),
        file.join("model.gguf"),
        Path::new("").to_path_buf(),
    ] {
        let error = Writer::create(&path, &sample_metadata(), &sample_tensors()).unwrap_err();
        let start = format!("cannot write {path:?}: ");
        assert!(error.to_string().starts_with(&start), "{error}");
    }
    assert_eq!(names_in(directory.path()), ["file"]);
}

#[cfg(unix)]
#[test]
fn links_and_devices_are_not_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let (file, link) = (directory.path().join("file"), directory.path().join("link"));
    fs::write(&file, "old").unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let refused =
        |path: &Path| Writer::create(path, &sample_metadata(), &sample_tensors()).unwrap_err().to_string();
    assert!(refused(&link).ends_with("it is a symbolic link"));
    assert!(refused(Path::new("/dev/null")).ends_with("it is no ordinary file"));
    assert_eq!(fs::read(&link).unwrap(), b"old");

    // A link that comes into being while the data is written.
    let late = directory.path().join("late");
    let mut writer = create(&late);
    writer.write(&sample_data()).unwrap();
    std::os::unix::fs::symlink(&file, &late).unwrap();
    let error = writer.finish().unwrap_err().to_string();
    assert!(error.ends_with("it is a symbolic link"), "{error}");
    assert_eq!(fs::read(&file).unwrap(), b"old");
}

#[cfg(unix)]
#[test]
fn a_file_has_the_permissions_of_any_new_file() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let (ordinary, path) = (directory.path().join("x"), directory.path().join("y"));
    fs::write(&ordinary, "").unwrap();
    let mut writer = create(&path);
    writer.write(&sample_data()).unwrap();
    writer.finish().unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&path), mode(&ordinary));
}

#[test]
fn floats_keep_their_bits() {
    let signalling_nan = f32::from_bits(0x7fa0_0001);
    let mut metadata = Metadata::new();
    metadata.insert("nan", signalling_nan).unwrap();
    metadata.insert("zero", vec![-0.0f64]).unwrap();
    let written = Writer::to_vec(&metadata, &[], &[]).unwrap();
    let header = Header::parse(&written).unwrap();
    let nan = header.metadata().f32("nan").unwrap();
    assert_eq!(nan.to_bits(), 0x7fa0_0001);
    match header.metadata().get("zero") {
        Some(Value::Array(Array::F64(zero))) => assert!(zero[0].is_sign_negative()),
        other => panic!("{other:?}"),
    }
}

fn text() -> impl Strategy<Value = String> {
    "[^\u{0}]{0,20}"
}

fn number() -> impl Strategy<Value = f64> {
    prop_oneof![any::<i32>().prop_map(f64::from), Just(f64::INFINITY), Just(1e-12)]
}

fn value() -> impl Strategy<Value = Value> {
    fn some<T: Clone + std::fmt::Debug>(
        item: impl Strategy<Value = T> + Clone + 'static,
    ) -> impl Strategy<Value = Value>
    where
        Value: From<T> + From<Vec<T>>,
    {
        let items = prop::collection::vec(item.clone(), 0..5);
        prop_oneof![item.prop_map(Value::from), items.prop_map(Value::from)]
    }
    let unsigned = prop_oneof![some(any::<u8>()), some(any::<u16>()), some(any::<u32>()), some(any::<u64>())];
    let signed = prop_oneof![some(any::<i8>()), some(any::<i16>()), some(any::<i32>()), some(any::<i64>())];
    let strings = prop::collection::vec(text(), 0..5);
    prop_oneof![
        unsigned,
        signed,
        some(any::<bool>()),
        number().prop_map(Value::from),
        number().prop_map(|number| Value::from(number as f32)),
        prop::collection::vec(number(), 0..5).prop_map(Value::from),
        text().prop_map(Value::from),
        strings.prop_map(Value::from),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        entries in prop::collection::btree_map("[a-zä.]{1,12}", value(), 0..8),
        tensors in prop::collection::btree_map(
            "[a-zä.]{1,20}",
            (prop::sample::select(&TensorType::ALL), 1u64..4, prop::collection::vec(1u64..4, 0..4)),
            0..6,
        ),
        fill in any::<u8>(),
    ) {
        let mut metadata = Metadata::new();
        for (key, value) in entries {
            metadata.insert(key, value).unwrap();
        }
        let specs = tensors
            .into_iter()
            .map(|(name, (tensor_type, blocks, mut dims))| {
                dims.insert(0, blocks * tensor_type.block_len() as u64);
                spec(&name, tensor_type, &dims)
            })
            .collect::<Vec<_>>();
        let data = specs
            .iter()
            .zip(0u8..)
            .map(|(spec, position)| {
                let rows = spec.dims[1..].iter().product::<u64>();
                let bytes = spec.tensor_type.row_bytes(spec.dims[0]).unwrap() * rows;
                vec![fill.wrapping_add(position); bytes as usize]
            })
            .collect::<Vec<_>>();
        let pieces = data.iter().map(Vec::as_slice).collect::<Vec<_>>();

        let written = Writer::to_vec(&metadata, &specs, &pieces).unwrap();
        prop_assert_eq!(&written, &Writer::to_vec(&metadata, &specs, &pieces).unwrap());
        let header = Header::parse(&written).unwrap();
        prop_assert_eq!(header.metadata(), &metadata);
        prop_assert_eq!(header.tensors().len(), specs.len());
        for ((tensor, spec), piece) in header.tensors().iter().zip(&specs).zip(pieces) {
            prop_assert_eq!(tensor.name(), &spec.name);
            prop_assert_eq!(tensor.tensor_type(), spec.tensor_type);
            prop_assert_eq!(tensor.dims(), &spec.dims);
            prop_assert_eq!(&written[tensor.range()], piece);
        }
    }
}

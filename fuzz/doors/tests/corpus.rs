//! The committed corpus, let in through every door: typed errors where they are due, and nothing worse anywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::c_char;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Once};

use ggml_sys_bindings::ggml_set_abort_callback;
use lxmert::gguf::TensorType;
use lxmert::model::Config;
use lxmert_doors::specimens::{self, Specimen};
use lxmert_doors::{C_FUNCTIONS, DOORS, corpus, door, mutate, raw, root, tiny};

static ABORTS: AtomicUsize = AtomicUsize::new(0);

unsafe extern "C" fn on_abort(_: *const c_char) {
    ABORTS.fetch_add(1, Ordering::SeqCst);
}

/// Looks on from here when ggml aborts. The process ends then all the same, unless the call was guarded; the count is for those. Comes
/// before the first guarded call, which passes on to the callback that it finds.
fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the function takes any text, from any thread.
        unsafe { ggml_set_abort_callback(Some(on_abort)) };
    });
}

fn all() -> &'static [Specimen] {
    static ALL: LazyLock<Vec<Specimen>> = LazyLock::new(specimens::all);
    &ALL
}

fn committed(name: &str) -> BTreeMap<String, PathBuf> {
    let entries = std::fs::read_dir(corpus().join(name)).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), path)).collect()
}

#[test]
fn the_corpus_is_what_the_specimens_make() {
    for door in DOORS {
        let made: BTreeMap<&str, &[u8]> = all()
            .iter()
            .filter(|specimen| specimen.door == door.name)
            .map(|specimen| (&specimen.name[..], &specimen.bytes[..]))
            .collect();
        let mut found = committed(door.name);
        found.retain(|_, path| !specimens::is_found(path));
        let remedy = "`cargo run --release -p lxmert-doors corpus` writes it again";
        assert!(
            made.keys().eq(found.keys()),
            "{}: {:?} {:?}: {remedy}",
            door.name,
            made.keys(),
            found.keys()
        );
        for (name, bytes) in &made {
            assert!(std::fs::read(&found[*name]).unwrap() == *bytes, "{}/{name}: {remedy}", door.name);
        }
    }
}

#[test]
fn names_are_different_and_every_door_has_good_and_bad_files() {
    let all = all();
    let names: BTreeSet<_> = all.iter().map(|specimen| (specimen.door, &specimen.name)).collect();
    assert_eq!(names.len(), all.len());
    for door in DOORS {
        let of_door = || all.iter().filter(|specimen| specimen.door == door.name);
        assert!(of_door().any(|specimen| specimen.refusal.is_none()), "{}", door.name);
        assert!(of_door().any(|specimen| specimen.refusal.is_some()), "{}", door.name);
    }
    assert!(all.iter().all(|specimen| door(specimen.door).is_some() && !specimen.name.starts_with("found-")));
    assert!(all.iter().map(|specimen| specimen.bytes.len()).sum::<usize>() < 6 << 20);
}

#[test]
fn every_specimen_is_accepted_or_refused_for_its_own_reason() {
    watch();
    let mut wrong = Vec::new();
    for specimen in all() {
        let place = format!("{}/{}", specimen.door, specimen.name);
        let verdict = (door(specimen.door).unwrap().open)(&specimen.bytes);
        match (specimen.refusal, verdict) {
            (None, Ok(())) => {}
            (Some(words), Err(text)) if !words.is_empty() && text.contains(words) => {}
            (words, verdict) => wrong.push(format!("{place}: {verdict:?}, expected {words:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(ABORTS.load(Ordering::SeqCst), 0);
}

/// What was found by fuzzing among them, of which it matters only that they come back.
#[test]
fn every_committed_file_comes_back() {
    watch();
    let mut files = 0;
    for door in DOORS {
        for path in committed(door.name).values().filter(|path| specimens::is_found(path)) {
            let _ = (door.open)(&std::fs::read(path).unwrap());
            files += 1;
        }
        // And what no file is good for: at each door, the good files of all others.
        for specimen in all().iter().filter(|specimen| specimen.name.starts_with("valid")) {
            if specimen.bytes.len() < 5000 {
                let _ = (door.open)(&specimen.bytes);
                files += 1;
            }
        }
    }
    assert!(files > 100);
    assert_eq!(ABORTS.load(Ordering::SeqCst), 0);
}

/// Every valid file, cut short at many places and with bits turned over.
#[test]
fn damage_comes_back() {
    watch();
    for specimen in all().iter().filter(|specimen| specimen.name.starts_with("valid")) {
        let door = door(specimen.door).unwrap();
        let len = specimen.bytes.len();
        for step in 0..32 {
            let place = step * len / 32;
            let _ = (door.open)(&specimen.bytes[..place]);
            let mut damaged = specimen.bytes.clone();
            damaged[place] ^= 1 << (step % 8);
            let _ = (door.open)(&damaged);
        }
    }
    assert_eq!(ABORTS.load(Ordering::SeqCst), 0);
}

/// The tiny model with one to three fields changed, as the fuzzing targets change it.
#[test]
fn changed_models_come_back() {
    watch();
    let whole = tiny::model().encode();
    let mut accepted = 0;
    for seed in 0..1000 {
        let changed = mutate::mutate(&whole, 1 << 20, seed);
        for name in ["gguf", "session", "requantize"] {
            accepted += usize::from((door(name).unwrap().open)(&changed).is_ok());
        }
    }
    assert!(accepted > 100, "{accepted}");
    assert_eq!(ABORTS.load(Ordering::SeqCst), 0);
}

/// Values of every type of the format, and lists of them: the least, the most and numbers that are none.
fn values() -> Vec<(u32, Vec<u8>)> {
    let widths = [(0, 1), (1, 1), (2, 2), (3, 2), (4, 4), (5, 4), (6, 4), (7, 1), (10, 8), (11, 8), (12, 8)];
    let mut all = Vec::new();
    for (kind, width) in widths {
        let numbers =
            [vec![0; width], vec![1; width], vec![0xff; width], [vec![0; width - 1], vec![0x80]].concat()];
        for number in numbers {
            all.push((raw::kind::ARRAY, raw::array(kind, 2, &number.repeat(2))));
            all.push((kind, number));
        }
        all.push((raw::kind::ARRAY, raw::array(kind, 0, &[])));
    }
    for text in ["", "lxmert", "\u{1b}[2J\r\n", &"\u{7}".repeat(2000)] {
        let text = raw::string(text.as_bytes());
        all.push((raw::kind::ARRAY, raw::array(raw::kind::STRING, 3, &text.repeat(3))));
        all.push((raw::kind::STRING, text));
    }
    all
}

/// Every key of a model with every type of value, one at a time, and without it.
#[test]
fn every_key_of_every_type_comes_back() {
    watch();
    let session = door("session").unwrap().open;
    for whole in [tiny::model(), tiny::packed()] {
        let (mut accepted, mut refused) = (0, 0);
        for place in 0..whole.keys.len() {
            for (kind, value) in values() {
                let mut raw = whole.clone();
                (raw.keys[place].kind, raw.keys[place].value) = (kind, value);
                match session(&raw.encode()) {
                    Ok(()) => accepted += 1,
                    Err(_) => refused += 1,
                }
            }
            let mut raw = whole.clone();
            raw.keys.remove(place);
            let _ = session(&raw.encode());
        }
        // Names and types of what is stored beside the model may be any, and little else.
        assert!(accepted > 0 && refused > 10 * accepted, "{accepted} {refused}");
    }
    assert_eq!(ABORTS.load(Ordering::SeqCst), 0);
}

/// Every tensor of a model in every type, of other shapes and with numbers that are none, one at a time.
#[test]
fn every_tensor_of_every_type_and_shape_comes_back() {
    watch();
    let session = door("session").unwrap().open;
    let wide = Config { hidden_size: 32, intermediate_size: 32, ..tiny::config() };
    for whole in [tiny::of(&wide, TensorType::F32), tiny::of(&wide, TensorType::Q4_0), tiny::packed()] {
        let (mut accepted, mut refused) = (0, 0);
        let mut enter = |raw: &raw::Raw| match session(&raw.encode()) {
            Ok(()) => accepted += 1,
            Err(_) => refused += 1,
        };
        for place in 0..whole.tensors.len() {
            for kind in 0..48 {
                let mut raw = whole.clone();
                raw.tensors[place].kind = kind;
                raw.tensors[place].fit();
                enter(&raw);
            }
            let changes: [fn(&mut Vec<u64>); 6] = [
                |dims| dims.reverse(),
                |dims| dims[0] += 32,
                |dims| dims.push(1),
                |dims| dims.insert(0, 32),
                |dims| *dims = vec![dims.iter().product()],
                |dims| dims.iter_mut().for_each(|dim| *dim = 1),
            ];
            for change in changes {
                let mut raw = whole.clone();
                change(&mut raw.tensors[place].dims);
                raw.tensors[place].fit();
                enter(&raw);
            }
            for byte in [0x7f, 0xff] {
                let mut raw = whole.clone();
                raw.tensors[place].data.fill(byte);
                enter(&raw);
            }
        }
        assert!(accepted > 0 && refused > accepted, "{accepted} {refused}");
    }
    assert_eq!(ABORTS.load(Ordering::SeqCst), 0);
}

/// The specimens of that door call each of them with every choice of arguments.
#[test]
fn the_c_door_leads_to_every_public_function() {
    let symbols = std::fs::read_to_string(root().join("include/lxmert.symbols")).unwrap();
    assert!(symbols.lines().eq(C_FUNCTIONS));
}

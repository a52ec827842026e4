//! The committed corpus, let in through every door: typed errors where they are due, and nothing worse anywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::c_char;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Once};

use ggml_sys_bindings::ggml_set_abort_callback;
use lxmert_doors::specimens::{self, Specimen};
use lxmert_doors::{C_FUNCTIONS, DOORS, corpus, door, mutate, root, tiny};

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
    assert!(all.iter().map(|specimen| specimen.bytes.len()).sum::<usize>() < 3 << 20);
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

/// The specimens of that door call each of them with every choice of arguments.
#[test]
fn the_c_door_leads_to_every_public_function() {
    let symbols = std::fs::read_to_string(root().join("include/lxmert.symbols")).unwrap();
    assert!(symbols.lines().eq(C_FUNCTIONS));
}

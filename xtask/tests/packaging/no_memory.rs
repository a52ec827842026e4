//! The library as it is installed, with the allocator of its own that keeps its user's program alive where memory runs out.

use super::faults::shim;
use super::{build_c, has, model, picture, succeed, with_installation};

#[test]
fn the_library_without_memory_says_so() {
    let Some(shim) = shim() else { return };
    if !has("pkg-config") {
        return;
    }
    for is_static in [false, true] {
        let program = build_c("no_memory", is_static);
        let text = succeed(with_installation(&program).arg(model()).arg(picture()).env("LD_PRELOAD", shim));
        println!("{text}");
        let count = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().parse::<usize>().unwrap()
        };
        assert!(count("requests") > 1000 && count("errors") > 150, "{text}");
    }
}

//! Every input of the corpora, in each target, once: what was found stays found.

use std::path::Path;

use fuzz::TARGETS;

#[test]
fn no_input_of_the_corpora_breaks_a_promise() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (name, target) in TARGETS {
        let inputs = std::fs::read_dir(corpora.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut inputs: Vec<_> = inputs.map(|input| input.unwrap().path()).collect();
        inputs.sort();
        assert!(!inputs.is_empty(), "{name} has nothing to begin with");
        for input in inputs {
            let data = std::fs::read(&input).unwrap();
            let held = std::panic::catch_unwind(|| target(&data));
            assert!(held.is_ok(), "{} breaks a promise, as said above", input.display());
        }
        target(&[]);
    }
}

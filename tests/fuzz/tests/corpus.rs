//! What was found once stays found, and a few thousand inputs per target in every `cargo test`.

use fuzz::run::{Limit, read_one, run};
use fuzz::{corpus, targets};

#[test]
fn every_committed_input_is_read_without_a_finding() {
    for target in targets::ALL {
        let inputs = corpus::of(target.name).unwrap();
        assert!(!inputs.is_empty(), "{} has no corpus", target.name);
        for (name, input) in inputs {
            let read = read_one(target, &input);
            assert!(read.is_ok(), "corpus/{}/{name}: {read:?}", target.name);
        }
    }
}

#[test]
fn some_thousand_inputs_per_target_are_read_without_a_finding() {
    for target in targets::ALL {
        let seeds: Vec<Vec<u8>> = corpus::of(target.name)
            .unwrap()
            .into_iter()
            .map(|(_, input)| input)
            .collect();
        let ran = run(target, &seeds, 7, Limit::Inputs(3000), |_| {});
        assert!(ran.is_ok(), "{}: {}", target.name, ran.unwrap_err());
    }
}

#[test]
fn every_directory_of_the_corpus_has_its_target() {
    for entry in std::fs::read_dir(corpus::directory()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(targets::ALL.iter().any(|target| target.name == name), "{name}");
    }
}

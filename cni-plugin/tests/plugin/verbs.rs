//! Verbs that need no daemon.

use crate::call::{Call, root};

#[test]
fn version_answers_without_input() {
    let done = Call::new("VERSION", "", root().path()).stdin("").run().succeeded();
    let expected =
        r#"{"cniVersion":"1.1.0","supportedVersions":["0.1.0","0.2.0","0.3.0","0.3.1","0.4.0","1.0.0","1.1.0"]}"#;
    assert_eq!(done.stdout.trim_end(), expected);
}

#[test]
fn a_person_gets_a_text_on_stderr_and_success() {
    let root = root();
    let done = Call::new("ADD", "c1", root.path())
        .without("CNI_COMMAND")
        .run()
        .succeeded();
    assert_eq!(done.stdout, "");
    assert!(
        done.stderr.contains("aws-cni") && done.stderr.contains("1.1.0"),
        "{}",
        done.stderr
    );
}

#[test]
fn verbs_need_the_version_that_brought_them() {
    let root = root();
    for (verb, version) in [("CHECK", "0.3.1"), ("STATUS", "1.0.0"), ("GC", "0.4.0")] {
        let call = Call::new(verb, "c1", root.path()).var("CNI_NETNS", "/n");
        let (code, msg) = call.conf("cniVersion", version).run().failed();
        assert!(
            code == 1 && msg.contains(&format!("config version does not allow {verb}")),
            "{code} {msg}"
        );
    }
}

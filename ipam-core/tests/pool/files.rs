use ipam_core::{Core, Event, StoredFiles};
use proptest::prelude::*;

use crate::node::{Node, config, eni, times, warm};

fn files() -> (Node, StoredFiles) {
    let mut node = Node::started(config(warm(3)), vec![eni(0, &[10, 11, 12]), eni(1, &[20, 21])]);
    ["a", "b", "c"].iter().for_each(|container| {
        node.add(container);
    });
    node.del("b");
    node.pass(10.0);
    let files = node.files.clone();
    (node, files)
}

fn damage(bytes: &mut Vec<u8>, at: usize, with: u8, keep: usize) {
    let at = at % bytes.len();
    bytes[at] = with;
    bytes.truncate(keep % (bytes.len() * 4) + 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_damage_to_the_files_makes_a_start_panic(
        ipam in any::<(usize, u8, usize)>(), side in any::<(usize, u8, usize)>(), which in 0..3,
    ) {
        let (node, mut files) = files();
        if which != 0 {
            damage(files.ipam_json.as_mut().unwrap(), ipam.0, ipam.1, ipam.2);
        }
        if which != 1 {
            damage(files.side_file.as_mut().unwrap(), side.0, side.1, side.2);
        }
        if let Ok((core, _)) = Core::restore(config(warm(3)), &files, times(node.now)) {
            let mut again = Node::with(core, node.enis, node.now);
            again.tell(Event::Tick);
            again.pass(200.0);
        }
    }
}

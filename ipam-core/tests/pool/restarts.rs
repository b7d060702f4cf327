use std::time::Duration;

use ipam_core::{Applied, Core, LeaseState, Restored, StoredFiles, Work};

use crate::node::{Node, config, eni, ip, key, times, warm};

const PAUSE: Duration = Duration::from_secs(2);

/// A node with one lease on 10 and one free address 11.
fn running() -> Node {
    let mut node = Node::started(config(warm(0)), vec![eni(0, &[10, 11])]);
    node.add("a");
    node.wire("a", ip(10));
    node
}

#[test]
fn from_both_files_the_lease_is_kept_and_free_addresses_are_granted_at_once() {
    let node = running();
    let files = node.files.clone();
    let mut node = node.restarted(config(warm(0)), &files, PAUSE);
    assert_eq!(node.core.pool().lease(&key("a")).unwrap().address, ip(10));
    let (again, new) = (node.add("a"), node.add("b"));
    assert_eq!((node.granted(again), node.granted(new)), (Some(ip(10)), Some(ip(11))));
}

#[test]
fn from_ipam_json_alone_other_addresses_rest_once() {
    let node = running();
    let files = StoredFiles {
        side_file: None,
        ..node.files.clone()
    };
    let mut node = node.restarted(config(warm(0)), &files, PAUSE);
    assert_eq!(node.core.pool().lease(&key("a")).unwrap().address, ip(10));
    let new = node.add("b");
    assert_eq!(node.granted(new), None);
    node.pass(31.0);
    assert_eq!(node.granted(new), Some(ip(11)));
}

#[test]
fn files_that_do_not_belong_together_count_as_ipam_json_alone() {
    let mut node = running();
    let old = node.files.clone();
    node.del("a");
    let files = StoredFiles {
        side_file: old.side_file,
        ipam_json: node.files.ipam_json.clone(),
    };
    let (_, restored) = Core::restore(config(warm(0)), &files, times(node.now)).unwrap();
    assert_eq!(restored, Restored::Leases);
    let mut node = node.restarted(config(warm(0)), &files, PAUSE);
    assert!(node.core.pool().lease(&key("a")).is_none());
    let new = node.add("b");
    assert_eq!(node.granted(new), None, "an address of unknown past rests");
}

#[test]
fn equal_leases_at_two_moments_do_not_vouch_for_an_old_side_file() {
    let mut node = Node::started(config(warm(0)), vec![eni(0, &[10])]);
    node.pass(1.0);
    let before = node.files.clone();
    node.add("a");
    node.del("a");
    let files = StoredFiles {
        side_file: before.side_file,
        ipam_json: node.files.ipam_json.clone(),
    };
    let (_, restored) = Core::restore(config(warm(0)), &files, times(node.now)).unwrap();
    assert_eq!(restored, Restored::Leases);
}

#[test]
fn a_draining_lease_goes_on_draining() {
    let mut node = running();
    node.kernel.signs.clear();
    node.del("a");
    let files = node.files.clone();
    let node = node.restarted(config(warm(0)), &files, PAUSE);
    assert!(
        node.core
            .pool()
            .lease(&key("a"))
            .is_none_or(|lease| lease.state == LeaseState::Draining)
    );
}

#[test]
fn a_rest_goes_on_over_a_restart() {
    let mut node = running();
    node.del("a");
    node.pass(20.0);
    let files = node.files.clone();
    let mut node = node.restarted(config(warm(0)), &files, PAUSE);
    node.add("b");
    let early = node.add("c");
    assert_eq!(node.granted(early), None);
    node.pass(9.0);
    assert_eq!(node.granted(early), Some(ip(10)));
}

#[test]
fn another_boot_id_means_that_times_in_the_side_file_say_nothing() {
    let node = running();
    let mut config = config(warm(0));
    config.boot_id = "another".to_owned();
    let (_, restored) = Core::restore(config, &node.files, times(node.now)).unwrap();
    assert_eq!(restored, Restored::Leases);
}

#[test]
fn without_files_a_node_starts_afresh_and_live_pods_keep_their_addresses() {
    let node = running();
    let mut node = node.restarted(config(warm(0)), &StoredFiles::default(), PAUSE);
    node.pass(40.0);
    let (first, second) = (node.add("b"), node.add("c"));
    node.pass(1.0);
    let granted = [node.granted(first), node.granted(second)];
    assert!(
        granted.contains(&Some(ip(11))) && !granted.contains(&Some(ip(10))),
        "{granted:?}"
    );
}

#[test]
fn a_damaged_ipam_json_is_refused_and_the_side_file_alone_will_do() {
    let node = running();
    let damaged = StoredFiles {
        ipam_json: Some(b"{".to_vec()),
        ..node.files.clone()
    };
    assert!(Core::restore(config(warm(0)), &damaged, times(node.now)).is_err());
    let alone = StoredFiles {
        ipam_json: None,
        ..node.files.clone()
    };
    let (core, restored) = Core::restore(config(warm(0)), &alone, times(node.now)).unwrap();
    assert_eq!((restored, core.pool().enis().count()), (Restored::Leases, 1));
}

#[test]
fn a_finished_look_for_half_made_enis_is_on_file() {
    let start = Duration::from_secs(1_000);
    let (core, restored) = Core::restore(config(warm(0)), &StoredFiles::default(), times(start)).unwrap();
    assert_eq!(restored, Restored::Nothing);
    let mut node = Node::with(core, vec![eni(0, &[10, 11])], start);
    node.tell(ipam_core::Event::Tick);
    let to_come = |node: &Node| {
        let side = String::from_utf8(node.files.side_file.clone().unwrap()).unwrap();
        side.contains(r#""look_for_half_made":true"#)
    };
    assert!(to_come(&node));
    node.pass(61.0);
    assert!(!to_come(&node), "a restart would look again");
}

#[test]
fn safe_mode_leaves_the_look_for_half_made_enis_to_the_next_run() {
    let start = Duration::from_secs(1_000);
    let mut safe = config(warm(0));
    safe.start = ipam_core::StartMode::Safe;
    let (core, _) = Core::restore(safe, &StoredFiles::default(), times(start)).unwrap();
    let mut node = Node::with(core, vec![eni(0, &[10, 11])], start);
    let looked = |node: &Node| {
        node.looks
            .iter()
            .any(|(_, scope)| *scope == ipam_core::Scope::OwnAvailable)
    };
    node.tell(ipam_core::Event::Tick);
    node.pass(3_600.0);
    assert!(!looked(&node));
    let files = node.files.clone();
    let mut node = node.restarted(config(warm(0)), &files, PAUSE);
    node.pass(100.0);
    assert!(looked(&node));
}

#[test]
fn an_address_whose_lease_ended_between_the_files_rests_when_ec2_gives_it_again() {
    let mut node = Node::started(config(warm(0)), vec![eni(0, &[10])]);
    node.add("a");
    node.wire("a", ip(10));
    node.enis[0] = eni(0, &[]);
    node.look();
    node.pass(60.0);
    assert_eq!(node.lease("a"), Some((LeaseState::Orphan, ip(10))));
    let before = node.files.clone();
    node.del("a");
    assert_eq!(node.lease("a"), None);
    // The crash came after ipam.json and before the side file.
    let files = StoredFiles {
        side_file: before.side_file,
        ipam_json: node.files.ipam_json.clone(),
    };
    let mut node = node.restarted(config(warm(0)), &files, PAUSE);
    let early = node.add("b");
    // What the former run had asked for may still take effect.
    node.pass(16.0);
    let (op, _) = node.only_run();
    node.allocate(op, &[10]);
    let late = node.add("c");
    node.pass(13.0);
    assert_eq!((node.granted(early), node.granted(late)), (None, None), "it rests");
    node.pass(10.0);
    assert_eq!(node.granted(early).or_else(|| node.granted(late)), Some(ip(10)));
}

#[test]
fn an_eni_too_many_that_a_former_runs_call_made_goes_instead_of_being_attached() {
    let mut tight = config(warm(1));
    (tight.node.max_enis, tight.node.slots_per_eni) = (2, 1);
    let mut node = Node::started(tight.clone(), vec![eni(0, &[10])]);
    node.add("a");
    node.pass(10.0);
    assert!(matches!(node.only_run().1, Work::CreateEni { .. }));
    let files = node.files.clone();
    // The last slot is taken before the daemon is back.
    node.enis.push(eni(1, &[20]));
    node.kernel.macs.insert(eni(1, &[]).mac);
    let mut node = node.restarted(tight, &files, PAUSE);
    node.pass(10.0);
    let (op, repeated) = node.only_run();
    assert!(matches!(repeated, Work::CreateEni { .. }));
    let mut surplus = eni(2, &[30]);
    surplus.attachment = None;
    let id = surplus.id.clone();
    node.finish(op, Applied::Created(surplus));
    node.pass(60.0);
    assert_eq!(node.only_run().1, Work::DeleteEni { eni: id });
}

#[test]
fn an_address_that_a_short_view_hid_rests_like_all_of_a_former_run() {
    let mut config = config(warm(0));
    config.timers.cooldown = Duration::from_secs(60);
    let hold = config.timers.hold();
    let all = vec![eni(0, &[]), eni(1, &[20])];
    let mut node = Node::started(config.clone(), all.clone());
    node.pass(30.0);
    let files = StoredFiles {
        side_file: None,
        ..node.files.clone()
    };
    node.enis.truncate(1);
    let mut node = node.restarted(config, &files, Duration::from_secs(3));
    let started = node.now;
    node.pass(25.0);
    node.enis = all;
    node.look();
    let req = node.add("a");
    node.pass(1.0);
    assert!(node.now - started < hold, "the test is quick enough");
    assert_eq!(
        node.granted(req),
        None,
        "its last pod may have ended with the former run"
    );
    node.pass(hold.as_secs_f64());
    let req = node.add("b");
    node.pass(1.0);
    assert!(node.granted(req).is_some() || node.lease("a").is_some());
}

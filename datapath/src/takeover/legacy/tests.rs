//! A small table built by hand: two base chains, one chain of somebody else, one of the reference.

use super::table::REPLACE_ENTRIES_AT;
use super::*;

const ACCEPT: i32 = -2;
const RETURN: i32 = -5;

/// One entry before offsets are known.
#[derive(Clone, Copy)]
enum Piece {
    /// A verdict.
    Verdict(i32),
    /// With this comment, a jump to the chain of this name.
    Jump(&'static str, &'static str),
    /// With this comment, a call of this target.
    Call(&'static str, &'static str),
    /// The beginning of a chain, or the table's end.
    Header(&'static str),
}

use Piece::{Call, Header, Jump, Verdict};

const NODE: [Piece; 12] = [
    Jump("kubernetes service portals", "KUBE"),
    Call("AWS, CONNMARK", "CONNMARK"),
    Verdict(ACCEPT),
    Jump("AWS SNAT CHAIN", "AWS-SNAT-CHAIN-0"),
    Jump("kubernetes postrouting rules", "KUBE"),
    Verdict(ACCEPT),
    Header("AWS-SNAT-CHAIN-0"),
    Call("AWS, SNAT", "SNAT"),
    Verdict(RETURN),
    Header("KUBE"),
    Verdict(RETURN),
    Header("ERROR"),
];
/// Positions of first entry and policy of prerouting and postrouting.
const HOOK_ENTRIES: [(usize, usize, usize); 2] = [(0, 0, 2), (4, 3, 5)];

fn extension(name: &str, data: &[u8]) -> Vec<u8> {
    let size = u16::try_from((32 + data.len()).next_multiple_of(8)).unwrap();
    let mut bytes = size.to_ne_bytes().to_vec();
    bytes.extend(name.as_bytes());
    bytes.resize(32, 0);
    bytes.extend(data);
    bytes.resize(size.into(), 0);
    bytes
}

fn padded(text: &str, len: usize) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.resize(len, 0);
    bytes
}

fn entry(comment: Option<&str>, target: &[u8]) -> Vec<u8> {
    let matches = comment.map(|text| extension("comment", &padded(text, 256)));
    let matches = matches.unwrap_or_default();
    let target_at = 112 + matches.len();
    let mut bytes = vec![0; 88];
    for length in [target_at, target_at + target.len()] {
        bytes.extend(u16::try_from(length).unwrap().to_ne_bytes());
    }
    // A note of the kernel's, and counters.
    bytes.extend([7; 20]);
    bytes.extend(matches);
    bytes.extend(target);
    bytes
}

fn bytes_of(piece: Piece, offset_of: impl Fn(&str) -> usize) -> Vec<u8> {
    let jump = |to: usize| extension("", &i32::try_from(to).unwrap().to_ne_bytes());
    match piece {
        Verdict(verdict) => entry(None, &extension("", &verdict.to_ne_bytes())),
        Jump(comment, chain) => entry(Some(comment), &jump(offset_of(chain))),
        Call(comment, target) => entry(Some(comment), &extension(target, &[0; 16])),
        Header(name) => entry(None, &extension("ERROR", &padded(name, 30))),
    }
}

fn build(pieces: &[Piece], hooks: [(usize, usize, usize); 2]) -> (TableInfo, Vec<u8>) {
    let mut offsets = vec![0];
    for piece in pieces {
        offsets.push(offsets.last().unwrap() + bytes_of(*piece, |_| 0).len());
    }
    // A jump leads behind a chain's header.
    let offset_of = |chain: &str| {
        let is_it = |piece: &Piece| matches!(piece, Header(name) if *name == chain);
        offsets[pieces.iter().position(is_it).unwrap() + 1]
    };
    let blob: Vec<u8> = pieces.iter().flat_map(|piece| bytes_of(*piece, offset_of)).collect();
    let mut info = TableInfo {
        valid_hooks: 0,
        hook_entry: [0; 5],
        underflow: [0; 5],
        entries: u32::try_from(pieces.len()).unwrap(),
        size: u32::try_from(blob.len()).unwrap(),
    };
    for (hook, first, policy) in hooks {
        info.valid_hooks |= 1 << hook;
        info.hook_entry[hook] = u32::try_from(offsets[first]).unwrap();
        info.underflow[hook] = u32::try_from(offsets[policy]).unwrap();
    }
    (info, blob)
}

/// As the kernel has them after a replacement: without notes, and counting from 0.
fn fresh(pieces: &[Piece], hooks: [(usize, usize, usize); 2]) -> (TableInfo, Vec<u8>) {
    let (info, mut blob) = build(pieces, hooks);
    let mut offset = 0;
    for piece in pieces {
        blob[offset + 92..offset + 112].fill(0);
        offset += bytes_of(*piece, |_| 0).len();
    }
    (info, blob)
}

#[test]
fn what_is_left_is_the_table_that_was_never_touched_by_the_reference() {
    let (info, blob) = build(&NODE, HOOK_ENTRIES);
    let without = without_leftovers("nat", &info, &blob).unwrap().unwrap();
    assert_eq!(without.removed, Leftovers { rules: 3, chains: 1 });
    let keep = [0, 2, 4, 5, 9, 10, 11].map(|position: usize| NODE[position]);
    let (expected, entries) = fresh(&keep, [(0, 0, 1), (4, 2, 3)]);
    let message = without.message(&info);
    assert_eq!(&message[REPLACE_ENTRIES_AT..], entries);
    let mut head = b"nat".to_vec();
    head.resize(32, 0);
    let words = [info.valid_hooks, expected.entries, expected.size];
    for word in words.iter().chain(&expected.hook_entry).chain(&expected.underflow) {
        head.extend(word.to_ne_bytes());
    }
    head.extend(info.entries.to_ne_bytes());
    head.extend([0; 8]);
    assert_eq!(&message[..REPLACE_ENTRIES_AT], head);
    assert_eq!(without_leftovers("nat", &expected, &entries), Ok(None));
}

#[test]
fn a_chain_that_somebody_else_jumps_to_keeps_its_beginning_and_end() {
    let mut pieces = NODE;
    pieces[4] = Jump("mine", "AWS-SNAT-CHAIN-0");
    let (info, blob) = build(&pieces, HOOK_ENTRIES);
    let without = without_leftovers("nat", &info, &blob).unwrap().unwrap();
    assert_eq!(without.removed, Leftovers { rules: 3, chains: 0 });
    let keep = [0, 2, 4, 5, 6, 8, 9, 10, 11].map(|position: usize| pieces[position]);
    let (_, entries) = fresh(&keep, [(0, 0, 1), (4, 2, 3)]);
    assert_eq!(&without.message(&info)[REPLACE_ENTRIES_AT..], entries);
}

#[test]
fn in_another_table_the_same_comments_mean_nothing() {
    let pieces = [Call("AWS, CONNMARK", "CONNMARK"), Verdict(ACCEPT), Header("ERROR")];
    let (info, blob) = build(&pieces, [(0, 0, 1), (4, 1, 1)]);
    assert_eq!(without_leftovers("mangle", &info, &blob), Ok(None));
    assert!(without_leftovers("nat", &info, &blob).unwrap().is_some());
}

#[test]
fn no_damaged_table_makes_it_panic() {
    let (info, blob) = build(&NODE, HOOK_ENTRIES);
    for len in (0..blob.len()).step_by(3) {
        let mut short = info;
        short.size = u32::try_from(len).unwrap();
        assert!(without_leftovers("nat", &short, &blob[..len]).is_err());
    }
    for position in 0..blob.len() {
        for value in [0, 1, 0x7f, 0xff] {
            let mut damaged = blob.clone();
            damaged[position] = value;
            if let Ok(Some(without)) = without_leftovers("nat", &info, &damaged) {
                assert!(without.message(&info).len() <= blob.len() + REPLACE_ENTRIES_AT);
            }
        }
    }
    for hook in 0..5 {
        let mut odd = info;
        (odd.valid_hooks, odd.hook_entry[hook]) = (u32::MAX, u32::MAX);
        assert!(without_leftovers("nat", &odd, &blob).is_err());
    }
    for len in 0..84 {
        assert!(TableInfo::parse(&[0; 84][..len]).is_err());
    }
}

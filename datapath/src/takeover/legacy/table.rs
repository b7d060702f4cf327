//! The blob of an `iptables-legacy` table as entries. Pure, and safe with any bytes.
//!
//! A table is a run of entries (`struct ipt_entry`, matches, a target), all numbers in the machine's byte order. The base
//! chains come first, each ending with its policy; then user chains, each beginning with an `ERROR` target that carries its
//! name and ending with a return; one more `ERROR` ends the table. Jumps are byte offsets.

/// Length of `struct ipt_getinfo`.
pub(super) const INFO_LEN: usize = 84;
/// Length of a table's name in all structures.
pub(super) const NAME_LEN: usize = 32;
/// Where entries begin in `struct ipt_get_entries`.
pub(super) const ENTRIES_AT: usize = 40;
/// Where counters begin in `struct xt_counters_info`.
pub(super) const COUNTERS_AT: usize = 40;
/// Where the pointer to counters is in `struct ipt_replace`; their number precedes it.
pub(super) const REPLACE_COUNTERS_AT: usize = 88;
/// Where entries begin in `struct ipt_replace`.
pub(super) const REPLACE_ENTRIES_AT: usize = 96;

/// `struct ipt_entry` without what follows it.
const ENTRY_LEN: usize = 112;
pub(super) const COMEFROM_AT: usize = 92;
pub(super) const ENTRY_COUNTERS_AT: usize = 96;
/// `struct xt_entry_match` or `xt_entry_target` without data: size, name, revision.
const EXTENSION_LEN: usize = 32;
const EXTENSION_NAME: std::ops::Range<usize> = 2..31;
/// Netfilter's hooks of IPv4.
pub(super) const HOOKS: usize = 5;

/// Bytes that are no table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{reason} at byte {offset}")]
pub struct Malformed {
    /// What is wrong.
    pub reason: &'static str,
    /// Where.
    pub offset: usize,
}

pub(super) fn malformed(reason: &'static str, offset: usize) -> Malformed {
    Malformed { reason, offset }
}

/// What the kernel says about a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableInfo {
    /// Bit per hook.
    pub valid_hooks: u32,
    /// Offset of each hook's first entry.
    pub hook_entry: [u32; HOOKS],
    /// Offset of each hook's policy.
    pub underflow: [u32; HOOKS],
    /// Number of entries.
    pub entries: u32,
    /// Their length in bytes.
    pub size: u32,
}

impl TableInfo {
    /// Reads `struct ipt_getinfo`.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let word = |at| read_u32(bytes, at).ok_or_else(|| malformed("the description ends", at));
        let words = |at: usize| -> Result<[u32; HOOKS], Malformed> {
            let mut all = [0; HOOKS];
            for (index, one) in all.iter_mut().enumerate() {
                *one = word(at + 4 * index)?;
            }
            Ok(all)
        };
        Ok(Self {
            valid_hooks: word(32)?,
            hook_entry: words(36)?,
            underflow: words(56)?,
            entries: word(76)?,
            size: word(80)?,
        })
    }

    /// Hooks that the table has: number, first entry, policy.
    pub(super) fn hooks(&self) -> impl Iterator<Item = (usize, usize, usize)> {
        let wide = |offset: u32| usize::try_from(offset).unwrap_or(usize::MAX);
        (0..HOOKS)
            .filter(|hook| self.valid_hooks & (1 << hook) != 0)
            .map(move |hook| (hook, wide(self.hook_entry[hook]), wide(self.underflow[hook])))
    }
}

/// What an entry does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Does<'a> {
    /// Goes on at another entry; the next one too, in a rule without target.
    Jump(usize),
    /// Accepts, drops or returns.
    Verdict,
    /// Begins a user chain of this name, or ends the table.
    ChainHeader(&'a str),
    /// Calls this target.
    Extension(&'a str),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    pub(super) offset: usize,
    pub(super) bytes: &'a [u8],
    /// Where the target begins, within `bytes`.
    pub(super) target_at: usize,
    pub(super) comment: Option<&'a str>,
    pub(super) does: Does<'a>,
}

impl Entry<'_> {
    pub(super) fn end(&self) -> usize {
        self.offset + self.bytes.len()
    }

    /// Where the verdict of a jump is, within `bytes`.
    pub(super) fn verdict_at(&self) -> usize {
        self.target_at + EXTENSION_LEN
    }
}

/// All entries of a table, which must fill it.
pub(super) fn entries<'a>(info: &TableInfo, blob: &'a [u8]) -> Result<Vec<Entry<'a>>, Malformed> {
    let mut all = Vec::new();
    let mut offset = 0;
    while offset < blob.len() {
        let entry = entry(blob, offset)?;
        offset = entry.end();
        all.push(entry);
    }
    if u32::try_from(all.len()).ok() != Some(info.entries) || u32::try_from(blob.len()).ok() != Some(info.size) {
        return Err(malformed("the table is not as long as it says", blob.len()));
    }
    Ok(all)
}

fn entry(blob: &[u8], offset: usize) -> Result<Entry<'_>, Malformed> {
    let rest = blob.get(offset..).unwrap_or_default();
    let length = |at| {
        read_u16(rest, at)
            .map(usize::from)
            .ok_or_else(|| malformed("an entry ends", offset))
    };
    let (target_at, next) = (length(88)?, length(90)?);
    let bytes = rest
        .get(..next)
        .ok_or_else(|| malformed("an entry exceeds the table", offset))?;
    if target_at < ENTRY_LEN || next % 8 != 0 {
        return Err(malformed("an entry overlaps itself", offset));
    }
    let target = extension(bytes, target_at).ok_or_else(|| malformed("a target exceeds its entry", offset))?;
    Ok(Entry {
        offset,
        bytes,
        target_at,
        comment: comment(bytes, target_at).map_err(|reason| malformed(reason, offset))?,
        does: does(&target).ok_or_else(|| malformed("a target makes no sense", offset))?,
    })
}

struct Extension<'a> {
    size: usize,
    name: &'a str,
    data: &'a [u8],
}

fn extension(entry: &[u8], at: usize) -> Option<Extension<'_>> {
    let rest = entry.get(at..)?;
    let size = usize::from(read_u16(rest, 0)?);
    let bytes = rest.get(..size)?;
    Some(Extension {
        size,
        name: text(bytes.get(EXTENSION_NAME)?)?,
        data: bytes.get(EXTENSION_LEN..)?,
    })
}

fn does<'a>(target: &Extension<'a>) -> Option<Does<'a>> {
    Some(match target.name {
        "" => {
            let verdict = read_u32(target.data, 0)?.cast_signed();
            usize::try_from(verdict).map_or(Does::Verdict, Does::Jump)
        }
        "ERROR" => Does::ChainHeader(text(target.data)?),
        name => Does::Extension(name),
    })
}

fn comment(entry: &[u8], target_at: usize) -> Result<Option<&str>, &'static str> {
    let matches = entry.get(..target_at).ok_or("matches exceed their entry")?;
    let mut at = ENTRY_LEN;
    while at < target_at {
        let one = extension(matches, at).ok_or("a match exceeds its entry")?;
        if one.name == "comment" {
            // Others may write what is no text into theirs.
            return Ok(text(one.data));
        }
        at += one.size;
    }
    Ok(None)
}

/// Up to the first NUL.
fn text(bytes: &[u8]) -> Option<&str> {
    bytes
        .split(|byte| *byte == 0)
        .next()
        .and_then(|text| std::str::from_utf8(text).ok())
}

pub(super) fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    let field = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_ne_bytes(*field))
}

pub(super) fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*field))
}

/// A table's name as all structures have it.
pub(super) fn name_field(table: &str) -> [u8; NAME_LEN] {
    let mut field = [0; NAME_LEN];
    // The last byte stays NUL.
    for (to, from) in field[..NAME_LEN - 1].iter_mut().zip(table.bytes()) {
        *to = from;
    }
    field
}

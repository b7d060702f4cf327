//! The nf_tables socket: commits transactions, reads rulesets.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use netlink::{Attributes, Errno, Protocol, Received, Socket, SocketError, parse_str};

use crate::Expr;
use crate::canonical::{CanonicalTable, Comparison, names};
use crate::numbers::{SUBSYSTEM, attr, flag, msg};
use crate::read::{self, CounterValue, FoundElement, be_u32};
use crate::table::{Chain, Rule, Table, TableId};
use crate::transaction::Transaction;
use crate::write::{Writer, Written};

/// Dumps arrive in datagrams of at most this size.
const RECEIVE_BUFFER: usize = 64 * 1024;
/// Tries before a dump that is always interrupted is given up.
const DUMP_TRIES: usize = 8;
/// How long a dump may take. 10,000 foreign rules take 53 ms.
const DUMP_TIMEOUT: Duration = Duration::from_secs(5);

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const HEADER_LEN: usize = 16;
const ATTRIBUTE_HEADER: usize = 4;
const EXTACK_TEXT: u16 = 1;
const EXTACK_OFFSET: u16 = 2;

/// A message that the kernel refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What the message was to do.
    pub operation: String,
    /// The expression or element that the kernel points at.
    pub place: Option<String>,
    /// The kernel's error.
    pub errno: Errno,
    /// The kernel's own words, where it had any.
    pub reason: Option<String>,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.operation)?;
        if let Some(place) = &self.place {
            write!(f, ", {place}")?;
        }
        write!(f, ": {}", self.errno)?;
        self.reason.as_ref().map_or(Ok(()), |reason| write!(f, " ({reason})"))
    }
}

/// A transaction that was not applied, or of which that is not known.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// It could not be sent: nothing was done.
    #[error("send nf_tables transaction of {bytes} bytes")]
    Send {
        /// Size.
        bytes: usize,
        /// What the kernel said; EMSGSIZE when the send buffer is too small.
        #[source]
        source: io::Error,
    },
    /// The answer could not be read: read the ruleset to know.
    #[error("read answer to nf_tables transaction")]
    Receive(#[source] io::Error),
    /// No answer, or answers were lost: read the ruleset to know.
    #[error("nf_tables transaction was not acknowledged")]
    Unanswered,
    /// The ruleset's generation had moved: nothing was done.
    #[error("nf_tables ruleset was changed by others meanwhile")]
    Changed,
    /// Refused: nothing was done. Never empty.
    #[error("nf_tables transaction refused: {}", list(.0))]
    Refused(Vec<Refusal>),
}

fn list(refusals: &[Refusal]) -> String {
    refusals.iter().map(Refusal::to_string).collect::<Vec<_>>().join("; ")
}

/// A ruleset that could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The socket failed.
    #[error("read nf_tables {what}")]
    Io {
        /// What was asked for.
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The kernel refused.
    #[error("read nf_tables {what}: {errno}")]
    Refused {
        /// What was asked for.
        what: &'static str,
        /// The kernel's error.
        errno: Errno,
    },
    /// No complete answer in time.
    #[error("no complete answer: nf_tables {what}")]
    Unanswered {
        /// What was asked for.
        what: &'static str,
    },
    /// The ruleset changed during every try.
    #[error("nf_tables {what} changed during each of {DUMP_TRIES} dumps")]
    Interrupted {
        /// What was asked for.
        what: &'static str,
    },
}

/// An nf_tables socket of one namespace.
#[derive(Debug)]
pub struct NftSocket {
    socket: Socket,
    buffer: Vec<u8>,
    sequence: u32,
}

impl NftSocket {
    /// Opens a socket in the current namespace. Using it needs `CAP_NET_ADMIN`.
    pub fn open() -> Result<Self, SocketError> {
        Ok(Self {
            socket: Socket::open(Protocol::Netfilter)?,
            buffer: vec![0; RECEIVE_BUFFER],
            sequence: 0,
        })
    }

    /// The port id that others see as the writer's in our changes' events.
    pub fn port(&self) -> u32 {
        self.socket.port()
    }

    /// Applies all changes, or none.
    pub fn commit(&mut self, transaction: &Transaction) -> Result<(), CommitError> {
        if transaction.is_empty() {
            return Ok(());
        }
        let mut writer = transaction.finish();
        let base = self.claim_sequences(writer.messages.len());
        renumber(&mut writer, base);
        let bytes = writer.buffer.len();
        let failed = |source| CommitError::Send { bytes, source };
        self.socket.reserve_send_buffer(bytes).map_err(failed)?;
        self.socket.send(&writer.buffer).map_err(failed)?;
        self.collect_answers(&writer.messages, base)
    }

    /// The kernel handles a batch within the send, so all answers are queued when it returns. Success is the acknowledgement
    /// of the last change and nothing else: acknowledgements of good messages come even when the whole batch was dropped.
    fn collect_answers(&mut self, sent: &[Written], base: u32) -> Result<(), CommitError> {
        let last_change = sent.len() - 2;
        let (mut refusals, mut acknowledged, mut overrun) = (Vec::new(), false, false);
        loop {
            let len = match self
                .socket
                .receive_queued(&mut self.buffer)
                .map_err(CommitError::Receive)?
            {
                Received::Bytes(len) => len,
                Received::Nothing => break,
                Received::Overrun => {
                    overrun = true;
                    continue;
                }
            };
            for frame in frames(&self.buffer[..len]).filter(|frame| frame.kind == NLMSG_ERROR) {
                let index = usize::try_from(frame.sequence.wrapping_sub(base)).unwrap_or(usize::MAX);
                match error_code(frame.payload) {
                    0 => acknowledged |= index == last_change,
                    libc_errno::ERESTART => return Err(CommitError::Changed),
                    code => refusals.push(refusal(sent.get(index), Errno::from_raw(code), &frame)),
                }
            }
        }
        match (refusals.is_empty(), acknowledged && !overrun) {
            (true, true) => Ok(()),
            (true, false) => Err(CommitError::Unanswered),
            (false, _) => Err(CommitError::Refused(refusals)),
        }
    }

    /// The ruleset's generation: equal values mean that nothing in the namespace changed in between.
    pub fn generation(&mut self) -> Result<u32, ReadError> {
        const WHAT: &str = "generation";
        let mut found = None;
        self.ask(
            WHAT,
            (msg::GETGEN, 0),
            0,
            |_| {},
            |frame| {
                found = read::attributes(frame.payload)
                    .find_value(attr::GEN_ID)
                    .and_then(be_u32);
            },
        )?;
        found.ok_or(ReadError::Unanswered { what: WHAT })
    }

    /// Compares a table with what the kernel holds under its name. Counts, and the elements of dynamic sets, do not matter.
    pub fn compare(&mut self, table: &Table) -> Result<Comparison, ReadError> {
        let found = self.read_table(&table.id)?;
        Ok(canonical(table).compare(&found))
    }

    /// Whether some rule of the kernel's table has these instructions in one piece.
    pub fn holds(&mut self, table: &TableId, instructions: Vec<Expr>) -> Result<bool, ReadError> {
        let chain = Chain {
            name: String::new(),
            base: None,
            rules: vec![Rule::new([instructions])],
        };
        let pattern = Table {
            id: table.clone(),
            chains: vec![chain],
            ..Table::empty(table.family, "")
        };
        Ok(self.read_table(table)?.has_rule_with(&canonical(&pattern)))
    }

    fn read_table(&mut self, id: &TableId) -> Result<CanonicalTable, ReadError> {
        let mut found = CanonicalTable::default();
        let name = &id.name;
        for (what, kind, table_attribute) in [
            ("chains", msg::GETCHAIN, attr::CHAIN_TABLE),
            ("sets", msg::GETSET, attr::SET_TABLE),
            ("counters", msg::GETOBJ, attr::OBJ_TABLE),
            ("rules", msg::GETRULE, attr::RULE_TABLE),
        ] {
            // The kernel does not filter chains by table.
            for (kind, payload) in self.dump(what, kind, id, |w| w.text(table_attribute, name))? {
                if names(&payload, table_attribute, name) {
                    found.note_table();
                    absorb(&mut found, kind, &payload);
                }
            }
        }
        for set in found.set_names() {
            for (kind, payload) in self.dump_elements(id, &set)? {
                absorb(&mut found, kind, &payload);
            }
        }
        Ok(found)
    }

    /// The elements of a set or map, with their counters.
    pub fn elements(&mut self, table: &TableId, set: &str) -> Result<Vec<FoundElement>, ReadError> {
        let messages = self.dump_elements(table, set)?;
        Ok(messages
            .iter()
            .flat_map(|(_, payload)| read::elements(payload))
            .collect())
    }

    fn dump_elements(&mut self, table: &TableId, set: &str) -> Result<Vec<(u16, Vec<u8>)>, ReadError> {
        self.dump("set elements", msg::GETSETELEM, table, |w| {
            w.text(attr::ELEMS_TABLE, &table.name);
            w.text(attr::ELEMS_SET, set);
        })
    }

    /// The named counters of a table.
    pub fn counters(&mut self, table: &TableId) -> Result<BTreeMap<String, CounterValue>, ReadError> {
        let messages = self.dump("counters", msg::GETOBJ, table, |w| w.text(attr::OBJ_TABLE, &table.name))?;
        let ours = messages
            .iter()
            .filter(|(_, payload)| names(payload, attr::OBJ_TABLE, &table.name));
        Ok(ours
            .filter_map(|(_, payload)| {
                let data = read::attributes(payload).find_value(attr::OBJ_DATA)?;
                Some((read::text(payload, attr::OBJ_NAME)?.to_owned(), read::counter(data)?))
            })
            .collect())
    }

    /// For each rule of a chain, in order, its first counter.
    pub fn rule_counters(&mut self, table: &TableId, chain: &str) -> Result<Vec<Option<CounterValue>>, ReadError> {
        let messages = self.dump("rules", msg::GETRULE, table, |w| {
            w.text(attr::RULE_TABLE, &table.name);
            w.text(attr::RULE_CHAIN, chain);
        })?;
        let counter_of = |payload: &[u8]| {
            let list = read::attributes(payload).find_value(attr::RULE_EXPRESSIONS)?;
            read::expressions(list)
                .find(|(name, _)| *name == "counter")
                .and_then(|(_, data)| read::counter(data))
        };
        Ok(messages.iter().map(|(_, payload)| counter_of(payload)).collect())
    }

    /// Repeats a dump until nobody changed the ruleset meanwhile. What does not exist is an empty dump.
    pub(crate) fn dump(
        &mut self,
        what: &'static str,
        kind: u16,
        table: &TableId,
        body: impl Fn(&mut Writer),
    ) -> Result<Vec<(u16, Vec<u8>)>, ReadError> {
        for _ in 0..DUMP_TRIES {
            let (mut found, mut interrupted) = (Vec::new(), false);
            let answer = self.ask(what, (kind, flag::DUMP), table.family.number(), &body, |frame| {
                interrupted |= frame.flags & flag::INTERRUPTED != 0;
                if frame.kind != NLMSG_DONE {
                    found.push((frame.kind, frame.payload.to_vec()));
                }
            });
            match answer {
                Ok(()) if interrupted => {}
                Ok(()) => return Ok(found),
                Err(ReadError::Refused {
                    errno: Errno::ENOENT, ..
                }) => return Ok(Vec::new()),
                Err(error) => return Err(error),
            }
        }
        Err(ReadError::Interrupted { what })
    }

    fn ask(
        &mut self,
        what: &'static str,
        (kind, flags): (u16, u16),
        family: u8,
        body: impl Fn(&mut Writer),
        mut each: impl FnMut(&Frame<'_>),
    ) -> Result<(), ReadError> {
        let mut writer = Writer::default();
        writer.message(what, (kind, flags), family, body);
        let sequence = self.claim_sequences(1);
        renumber(&mut writer, sequence);
        let failed = |source| ReadError::Io { what, source };
        self.socket.send(&writer.buffer).map_err(failed)?;
        let deadline = Instant::now() + DUMP_TIMEOUT;
        loop {
            let Received::Bytes(len) = self.socket.receive(&mut self.buffer).map_err(failed)? else {
                return Err(ReadError::Unanswered { what });
            };
            for frame in frames(&self.buffer[..len]).filter(|frame| frame.sequence == sequence) {
                if frame.kind == NLMSG_ERROR {
                    return Err(ReadError::Refused {
                        what,
                        errno: Errno::from_raw(error_code(frame.payload)),
                    });
                }
                // The end of a dump too: it may be what says that the dump was interrupted.
                each(&frame);
                if frame.kind == NLMSG_DONE {
                    return match error_code(frame.payload) {
                        0 => Ok(()),
                        code => Err(ReadError::Refused {
                            what,
                            errno: Errno::from_raw(code),
                        }),
                    };
                }
                if flags & flag::DUMP == 0 {
                    return Ok(());
                }
            }
            if Instant::now() > deadline {
                return Err(ReadError::Unanswered { what });
            }
        }
    }

    /// Sequence numbers are never used twice, so late answers to something else are recognised.
    fn claim_sequences(&mut self, count: usize) -> u32 {
        let base = self.sequence.wrapping_add(1);
        self.sequence = self.sequence.wrapping_add(u32::try_from(count).unwrap_or(u32::MAX));
        base
    }
}

/// What the kernel would show of a table.
fn canonical(table: &Table) -> CanonicalTable {
    let mut wanted = CanonicalTable::default();
    wanted.note_table();
    let mut transaction = Transaction::new();
    transaction.add_table(table);
    for frame in frames(&transaction.writer.buffer) {
        absorb(&mut wanted, frame.kind, frame.payload);
    }
    wanted
}

/// Adds one message of a table, wanted or found, to its canonical form.
pub(crate) fn absorb(table: &mut CanonicalTable, kind: u16, payload: &[u8]) {
    match kind ^ SUBSYSTEM {
        msg::NEWCHAIN => table.add_chain(payload),
        msg::NEWRULE => table.add_rule(payload),
        msg::NEWSET => table.add_set(payload),
        msg::NEWSETELEM => table.add_elements(payload),
        msg::NEWOBJ => table.add_counter(payload),
        _ => {}
    }
}

fn renumber(writer: &mut Writer, base: u32) {
    for (message, sequence) in writer.messages.iter().zip(base..) {
        writer.buffer[message.start + 8..message.start + 12].copy_from_slice(&sequence.to_ne_bytes());
    }
}

pub(crate) fn refusal(message: Option<&Written>, errno: Errno, frame: &Frame<'_>) -> Refusal {
    let extack = extack(frame);
    let offset = extack.clone().find_value(EXTACK_OFFSET).and_then(netlink::parse_u32);
    let mark = message.zip(offset).and_then(|(message, offset)| {
        let offset = usize::try_from(offset).ok()?;
        message
            .marks
            .iter()
            .rev()
            .find(|mark| mark.offset <= offset)
            .map(|mark| (mark, offset - mark.offset))
    });
    // The name is the first attribute in an expression's element.
    let is_unknown = errno == Errno::ENOENT && mark.is_some_and(|(_, within)| within == ATTRIBUTE_HEADER);
    let text = extack.find_value(EXTACK_TEXT).and_then(parse_str);
    Refusal {
        operation: message.map_or_else(|| "the transaction".to_owned(), |message| message.label.clone()),
        place: mark.map(|(mark, _)| mark.place.clone()),
        errno,
        reason: text
            .or_else(|| is_unknown.then_some("the kernel lacks this expression"))
            .map(str::to_owned),
    }
}

fn extack<'a>(frame: &Frame<'a>) -> Attributes<'a> {
    if frame.flags & flag::ACK_TLVS == 0 {
        return Attributes::new(&[]);
    }
    let echoed = frame
        .payload
        .get(4..8)
        .and_then(netlink::parse_u32)
        .and_then(|len| usize::try_from(len).ok());
    let echoed = if frame.flags & flag::CAPPED == 0 {
        echoed.unwrap_or(HEADER_LEN)
    } else {
        HEADER_LEN
    };
    Attributes::after_header(frame.payload, 4 + echoed.next_multiple_of(4))
}

/// The positive error number of an error or end frame; a frame without one is a protocol error.
fn error_code(payload: &[u8]) -> i32 {
    payload
        .first_chunk::<4>()
        .map_or(libc_errno::EPROTO, |bytes| i32::from_ne_bytes(*bytes).saturating_neg())
}

mod libc_errno {
    /// Not among the error numbers of user space; nf_tables returns it for a moved generation.
    pub(super) const ERESTART: i32 = 85;
    pub(super) const EPROTO: i32 = 71;
}

pub(crate) struct Frame<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    pub(crate) payload: &'a [u8],
}

pub(crate) fn frames(mut bytes: &[u8]) -> impl Iterator<Item = Frame<'_>> {
    std::iter::from_fn(move || {
        let header = bytes.first_chunk::<HEADER_LEN>()?;
        let len = usize::try_from(u32::from_ne_bytes([header[0], header[1], header[2], header[3]])).ok()?;
        let payload = bytes.get(HEADER_LEN..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(Frame {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            flags: u16::from_ne_bytes([header[6], header[7]]),
            sequence: u32::from_ne_bytes([header[8], header[9], header[10], header[11]]),
            payload,
        })
    })
}

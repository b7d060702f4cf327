//! A list of changes that the kernel applies as a whole or not at all.

use crate::encode::{self, Change};
use crate::numbers::{BATCH_BEGIN, BATCH_END, BATCH_GENERATION, BATCH_SUBSYSTEM, flag};
use crate::table::{Chain, Element, Rule, Set, Table, TableId};
use crate::write::Writer;

/// Changes in order.
#[derive(Debug, Clone)]
pub struct Transaction {
    pub(crate) writer: Writer,
    sets: u32,
}

impl Default for Transaction {
    fn default() -> Self {
        Self::new()
    }
}

impl Transaction {
    /// Applies whatever the state of the ruleset.
    pub fn new() -> Self {
        Self::begin(None)
    }

    /// Applies only while the ruleset's generation is still `generation`; see `CommitError::Changed`.
    pub fn at_generation(generation: u32) -> Self {
        Self::begin(Some(generation))
    }

    fn begin(generation: Option<u32>) -> Self {
        let mut writer = Writer::default();
        writer.raw_message("begin", (BATCH_BEGIN, 0), (0, BATCH_SUBSYSTEM), |w| {
            if let Some(generation) = generation {
                w.u32(BATCH_GENERATION, generation);
            }
        });
        Self { writer, sets: 0 }
    }

    /// Nothing to do.
    pub fn is_empty(&self) -> bool {
        self.writer.messages.len() <= 1
    }

    /// Makes the table be exactly this, whatever was there. Packets never see it half done, counters start again.
    pub fn replace_table(&mut self, table: &Table) -> &mut Self {
        self.delete_table(&table.id).add_table(table)
    }

    /// Deletes the table with all contents; done if there is none.
    pub fn delete_table(&mut self, id: &TableId) -> &mut Self {
        // The first message makes the second one safe where the table is absent.
        encode::table(&mut self.writer, id);
        encode::delete_table(&mut self.writer, id);
        self
    }

    /// Adds a table with its contents. Over an existing one this *appends* rules: use `replace_table` then.
    pub fn add_table(&mut self, table: &Table) -> &mut Self {
        encode::table(&mut self.writer, &table.id);
        for counter in &table.counters {
            self.add_counter(&table.id, counter);
        }
        for chain in &table.chains {
            encode::chain(&mut self.writer, &table.id, chain);
        }
        for set in &table.sets {
            self.add_set(&table.id, set);
        }
        for chain in &table.chains {
            self.add_rules(&table.id, &chain.name, &chain.rules);
        }
        self
    }

    /// Adds a chain with its rules. Sets and chains that they name must exist or be added before.
    pub fn add_chain(&mut self, table: &TableId, chain: &Chain) -> &mut Self {
        encode::chain(&mut self.writer, table, chain);
        self.add_rules(table, &chain.name, &chain.rules)
    }

    /// Appends rules to a chain.
    pub fn add_rules(&mut self, table: &TableId, chain: &str, rules: &[Rule]) -> &mut Self {
        for (index, rule) in rules.iter().enumerate() {
            encode::rule(&mut self.writer, table, chain, index + 1, rule);
        }
        self
    }

    /// Deletes one rule; see [`FoundRule`](crate::FoundRule).
    pub fn delete_rule(&mut self, table: &TableId, chain: &str, handle: u64) -> &mut Self {
        encode::delete_rule(&mut self.writer, table, chain, handle);
        self
    }

    /// Deletes all rules of a chain.
    pub fn flush_chain(&mut self, table: &TableId, chain: &str) -> &mut Self {
        encode::flush_chain(&mut self.writer, table, chain);
        self
    }

    /// Deletes a chain and its rules; EBUSY while something jumps to it.
    pub fn delete_chain(&mut self, table: &TableId, chain: &str) -> &mut Self {
        encode::delete_chain(&mut self.writer, table, chain);
        self
    }

    /// Adds a set or map with its elements.
    pub fn add_set(&mut self, table: &TableId, set: &Set) -> &mut Self {
        self.sets += 1;
        encode::set(&mut self.writer, table, set, self.sets);
        self.add_elements(table, &set.name, &set.elements)
    }

    /// Deletes a set; EBUSY while a rule names it.
    pub fn delete_set(&mut self, table: &TableId, set: &str) -> &mut Self {
        encode::delete_set(&mut self.writer, table, set);
        self
    }

    /// Adds elements; those that are there already stay. A map refuses another value for a key that it has (EEXIST).
    pub fn add_elements(&mut self, table: &TableId, set: &str, elements: &[Element]) -> &mut Self {
        encode::elements(&mut self.writer, Change::Add, table, set, elements);
        self
    }

    /// Deletes elements by their keys; ENOENT if one is not there.
    pub fn delete_elements(&mut self, table: &TableId, set: &str, elements: &[Element]) -> &mut Self {
        encode::elements(&mut self.writer, Change::Delete, table, set, elements);
        self
    }

    /// Deletes all elements.
    pub fn flush_set(&mut self, table: &TableId, set: &str) -> &mut Self {
        encode::flush_set(&mut self.writer, table, set);
        self
    }

    /// Adds a named counter at zero; one that exists keeps its count.
    pub fn add_counter(&mut self, table: &TableId, counter: &str) -> &mut Self {
        encode::counter(&mut self.writer, table, counter);
        self
    }

    /// Deletes a named counter; EBUSY while something refers to it.
    pub fn delete_counter(&mut self, table: &TableId, counter: &str) -> &mut Self {
        encode::delete_counter(&mut self.writer, table, counter);
        self
    }

    /// The bytes to send. Only the last change asks for an acknowledgement: thousands of them would overrun the socket, and
    /// older kernels do not acknowledge the end of a batch.
    pub(crate) fn finish(&self) -> Writer {
        let mut writer = self.writer.clone();
        if let Some(last) = writer.messages.last() {
            let position = last.start + 6;
            let flags = u16::from_ne_bytes([writer.buffer[position], writer.buffer[position + 1]]) | flag::ACK;
            writer.buffer[position..position + 2].copy_from_slice(&flags.to_ne_bytes());
        }
        writer.raw_message("end", (BATCH_END, 0), (0, BATCH_SUBSYSTEM), |_| {});
        writer
    }
}

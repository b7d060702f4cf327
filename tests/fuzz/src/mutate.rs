//! Changes bytes a little, the same way for the same seed.

use fastrand::Rng;

/// No input is longer. The kernel sends datagrams of up to 32 KiB; runtimes send configurations of up to some hundred.
pub const LONGEST: usize = 64 * 1024;
/// Changes per input: mostly one or two.
const MOST_CHANGES: u32 = 6;
/// Values at which lengths and numbers break.
const EDGES: [u64; 14] = [
    0,
    1,
    2,
    3,
    4,
    15,
    16,
    0x7f,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    u64::MAX,
];

/// Makes inputs out of others.
#[derive(Debug)]
pub struct Mutator {
    rng: Rng,
    dictionary: Vec<Vec<u8>>,
}

impl Mutator {
    /// With words that mean something to the reader.
    pub fn new(seed: u64, dictionary: &[&[u8]]) -> Self {
        Self {
            rng: Rng::with_seed(seed),
            dictionary: dictionary.iter().map(|word| word.to_vec()).collect(),
        }
    }

    /// A new input out of a pool that is not empty.
    pub fn next_input(&mut self, pool: &[Vec<u8>]) -> Vec<u8> {
        let mut input = pool[self.rng.usize(..pool.len())].clone();
        let changes = 1 + self.rng.u32(..MOST_CHANGES) * self.rng.u32(..2);
        for _ in 0..changes {
            self.change(&mut input, pool);
        }
        input.truncate(LONGEST);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>, pool: &[Vec<u8>]) {
        match self.rng.u8(..12) {
            0 => self.flip_a_bit(input),
            1 => self.set_a_byte(input),
            2 => self.remove(input),
            3 => self.repeat(input),
            4 => self.insert_noise(input),
            5 | 6 => self.write_a_number(input),
            7 => self.splice(input, pool),
            8 => input.truncate(self.position(input)),
            9 | 10 => self.write_a_word(input),
            _ => self.change_a_digit(input),
        }
    }

    /// Anywhere, the end included.
    fn position(&mut self, input: &[u8]) -> usize {
        self.rng.usize(..=input.len())
    }

    /// A part, mostly a short one.
    fn part(&mut self, input: &[u8]) -> std::ops::Range<usize> {
        let start = self.position(input);
        let left = input.len() - start;
        let most = if self.rng.u8(..4) == 0 { left } else { left.min(16) };
        start..start + self.rng.usize(..=most)
    }

    fn flip_a_bit(&mut self, input: &mut [u8]) {
        if !input.is_empty() {
            let position = self.rng.usize(..input.len());
            input[position] ^= 1 << self.rng.u8(..8);
        }
    }

    fn set_a_byte(&mut self, input: &mut [u8]) {
        if !input.is_empty() {
            let position = self.rng.usize(..input.len());
            input[position] = self.rng.u8(..);
        }
    }

    fn remove(&mut self, input: &mut Vec<u8>) {
        let part = self.part(input);
        input.drain(part);
    }

    /// Often enough to nest deeply, sometimes.
    fn repeat(&mut self, input: &mut Vec<u8>) {
        let part = self.part(input);
        let end = part.end;
        let times = if self.rng.u8(..16) == 0 { 200 } else { 1 };
        let copy = input[part].repeat(times);
        input.splice(end..end, copy);
        input.truncate(LONGEST);
    }

    fn insert_noise(&mut self, input: &mut Vec<u8>) {
        let position = self.position(input);
        let count = self.rng.usize(1..=8);
        let noise: Vec<u8> = (0..count).map(|_| self.rng.u8(..)).collect();
        input.splice(position..position, noise);
    }

    /// An edge, or something near a length in the input, in 1, 2, 4 or 8 bytes of either order.
    fn write_a_number(&mut self, input: &mut [u8]) {
        let number = match self.rng.u8(..3) {
            0 => input.len() as u64,
            _ => EDGES[self.rng.usize(..EDGES.len())],
        };
        let number = number.wrapping_add(self.rng.u64(..3)).wrapping_sub(1);
        let width = 1 << self.rng.u32(..4);
        // Fields of messages are aligned.
        let mut position = self.position(input);
        if self.rng.bool() {
            position &= !3;
        }
        let bytes = if self.rng.bool() {
            number.to_le_bytes()[..width].to_vec()
        } else {
            number.to_be_bytes()[8 - width..].to_vec()
        };
        if let Some(place) = input.get_mut(position..position + width) {
            place.copy_from_slice(&bytes);
        }
    }

    fn splice(&mut self, input: &mut Vec<u8>, pool: &[Vec<u8>]) {
        let other = &pool[self.rng.usize(..pool.len())];
        let from = self.part(other);
        let to = self.part(input);
        let piece = other[from].to_vec();
        input.splice(to, piece);
    }

    fn write_a_word(&mut self, input: &mut Vec<u8>) {
        if self.dictionary.is_empty() {
            return self.insert_noise(input);
        }
        let word = self.dictionary[self.rng.usize(..self.dictionary.len())].clone();
        let position = self.position(input);
        let end = if self.rng.bool() {
            position
        } else {
            (position + word.len()).min(input.len())
        };
        input.splice(position..end, word);
    }

    fn change_a_digit(&mut self, input: &mut [u8]) {
        let digits: Vec<usize> = (0..input.len()).filter(|at| input[*at].is_ascii_digit()).collect();
        if !digits.is_empty() {
            let position = digits[self.rng.usize(..digits.len())];
            input[position] = b'0' + self.rng.u8(..10);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_inputs_and_another_one_others() {
        let pool = vec![b"{\"name\":\"aws-cni\"}".to_vec(), vec![0; 64]];
        let inputs = |seed| -> Vec<Vec<u8>> {
            let mut mutator = Mutator::new(seed, &[b"null"]);
            (0..200).map(|_| mutator.next_input(&pool)).collect()
        };
        assert_eq!(inputs(1), inputs(1));
        assert_ne!(inputs(1), inputs(2));
    }

    #[test]
    fn inputs_stay_short_and_empty_ones_can_be_changed() {
        let mut mutator = Mutator::new(3, &[]);
        let pool = vec![Vec::new(), vec![7; LONGEST]];
        assert!((0..2000).all(|_| mutator.next_input(&pool).len() <= LONGEST));
    }
}

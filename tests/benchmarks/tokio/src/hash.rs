//! The hash function that libstdc++'s std::hash uses for strings (MurmurHash64A with a fixed seed), so that a map of ours and
//! one of Rust's spend the same time on it. Rust's own, SipHash, would take longer.

use std::hash::{BuildHasherDefault, Hasher};

#[derive(Default)]
pub struct Murmur(u64);

pub type BuildMurmur = BuildHasherDefault<Murmur>;

const SEED: u64 = 0xc70f6907;
const MUL: u64 = 0xc6a4a7935bd1e995;

fn mix(value: u64) -> u64 {
    value ^ (value >> 47)
}

fn murmur(bytes: &[u8]) -> u64 {
    let mut hash = SEED ^ (bytes.len() as u64).wrapping_mul(MUL);
    let mut words = bytes.chunks_exact(8);
    for word in &mut words {
        let data = mix(u64::from_le_bytes(word.try_into().unwrap()).wrapping_mul(MUL)).wrapping_mul(MUL);
        hash = (hash ^ data).wrapping_mul(MUL);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        let data = rest.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte));
        hash = (hash ^ data).wrapping_mul(MUL);
    }
    mix(mix(hash).wrapping_mul(MUL))
}

impl Hasher for Murmur {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = murmur(bytes);
    }

    // The end mark that Rust adds to a string.
    fn write_u8(&mut self, _: u8) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

//! As measurements/measure.hpp.

use std::time::Instant;
use tokio::runtime::{Builder, Runtime};

pub struct Measurement {
    pub name: &'static str,
    pub run: fn(usize) -> f64,
    pub usual_size: usize,
}

/// Times the same loop several times and takes the median, after one that is not counted.
pub struct Slices {
    operations: f64,
    count: usize,
    started: usize,
    times: Vec<f64>,
    start: Instant,
}

impl Slices {
    pub fn new(operations: usize, count: usize) -> Self {
        Slices { operations: operations as f64, count: count + 1, started: 0, times: Vec::new(), start: Instant::now() }
    }

    pub fn next(&mut self) -> bool {
        let passed = self.start.elapsed();
        if self.started > 1 {
            self.times.push(passed.as_nanos() as f64 / self.operations);
        }
        self.started += 1;
        self.start = Instant::now();
        self.started - 1 < self.count
    }

    pub fn result(&self) -> f64 {
        let mut sorted = self.times.clone();
        sorted.sort_by(|a, b| a.partial_cmp(b).unwrap());
        sorted[sorted.len() / 2]
    }
}

/// A loop on the thread that runs it.
pub fn one_thread() -> Runtime {
    Builder::new_current_thread().build().unwrap()
}

pub fn two_threads() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).build().unwrap()
}

/// A linear congruential generator, the one of std::minstd_rand: none is among tokio's dependencies.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0 * 48271 % 2147483647;
        self.0
    }
}

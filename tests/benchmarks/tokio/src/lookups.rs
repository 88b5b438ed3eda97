//! Looking up what is there: a map behind a lock of tokio's, and its once-cell.

use crate::hash::BuildMurmur;
use crate::measure::{one_thread, Random, Slices};
use std::collections::hash_map::RandomState;
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::hint::black_box;
use std::sync::{Arc, Barrier};
use tokio::sync::{OnceCell, RwLock};

type Models<H = BuildMurmur> = RwLock<HashMap<String, Arc<u64>, H>>;

fn keys(count: usize) -> Vec<String> {
    (0..count).map(|i| format!("model-{:011}", i)).collect()
}

fn order(keys: &[String]) -> Vec<&str> {
    let mut random = Random::new(1);
    (0..100_000).map(|_| keys[random.next() as usize % keys.len()].as_str()).collect()
}

fn fill<H: BuildHasher + Default>(keys: &[String]) -> Models<H> {
    RwLock::new(keys.iter().enumerate().map(|(i, key)| (key.clone(), Arc::new(i as u64))).collect())
}

async fn look_up<H: BuildHasher>(models: &Models<H>, key: &str) -> Option<Arc<u64>> {
    models.read().await.get(key).cloned()
}

fn try_look_up<H: BuildHasher>(models: &Models<H>, key: &str) -> Option<Arc<u64>> {
    models.try_read().ok()?.get(key).cloned()
}

fn get_with<H: BuildHasher + Default>(entries: usize) -> f64 {
    let keys = keys(entries);
    let order = order(&keys);
    let models: Models<H> = fill(&keys);
    one_thread().block_on(async {
        let mut watch = Slices::new(order.len(), 9);
        while watch.next() {
            for key in &order {
                black_box(look_up(&models, key).await);
            }
        }
        watch.result()
    })
}

fn try_get_with<H: BuildHasher + Default>(entries: usize) -> f64 {
    let keys = keys(entries);
    let order = order(&keys);
    let models: Models<H> = fill(&keys);
    let mut watch = Slices::new(order.len(), 9);
    while watch.next() {
        for key in &order {
            black_box(try_look_up(&models, key));
        }
    }
    watch.result()
}

pub fn get(entries: usize) -> f64 {
    get_with::<BuildMurmur>(entries)
}

pub fn try_get(entries: usize) -> f64 {
    try_get_with::<BuildMurmur>(entries)
}

/// With the hash function that a map of Rust's has unless told otherwise.
pub fn get_default_hash(entries: usize) -> f64 {
    get_with::<RandomState>(entries)
}

pub fn try_get_default_hash(entries: usize) -> f64 {
    try_get_with::<RandomState>(entries)
}

pub fn get_on_two_threads(entries: usize) -> f64 {
    let keys = keys(entries);
    let order = order(&keys);
    let models: Models = fill(&keys);
    let together = Barrier::new(2);
    let one = || {
        one_thread().block_on(async {
            let mut watch = Slices::new(order.len(), 9);
            loop {
                together.wait();
                if !watch.next() {
                    break;
                }
                for key in &order {
                    black_box(look_up(&models, key).await);
                }
            }
            watch.result()
        })
    };
    std::thread::scope(|threads| {
        let other = threads.spawn(one);
        let own = one();
        (own + other.join().unwrap()) / 2.0
    })
}

pub fn cell_ready(times: usize) -> f64 {
    let cell = OnceCell::new();
    one_thread().block_on(cell.get_or_init(|| async { 17_u64 }));
    let mut watch = Slices::new(times, 9);
    while watch.next() {
        for _ in 0..times {
            black_box(black_box(&cell).get().unwrap());
        }
    }
    watch.result()
}

//! What makes tasks wait for one another: locks, threads for blocking work, channels.

use crate::measure::{one_thread, two_threads, Random, Slices};
use std::hint::black_box;
use std::sync::Arc;
use tokio::runtime::Builder;
use tokio::sync::{mpsc, RwLock};
use tokio::task::{spawn_blocking, yield_now, JoinHandle};

const TASKS: usize = 8;

async fn join<T>(tasks: Vec<JoinHandle<T>>) {
    for task in tasks {
        task.await.unwrap();
    }
}

pub fn read_mostly(times: usize) -> f64 {
    let runtime = two_threads();
    let mut watch = Slices::new(TASKS * times, 9);
    while watch.next() {
        let guarded = Arc::new(RwLock::new(0_u64));
        let start = |seed: usize| {
            let guarded = guarded.clone();
            runtime.spawn(async move {
                let mut random = Random::new(seed as u64 + 1);
                let mut sum = 0;
                for _ in 0..times {
                    if random.next() % 10 == 0 {
                        *guarded.write().await += 1;
                    } else {
                        sum += *guarded.read().await;
                    }
                }
                black_box(sum);
            })
        };
        let tasks = (0..TASKS).map(start).collect();
        runtime.block_on(join(tasks));
    }
    watch.result()
}

/// Writers only.
pub fn contended(times: usize) -> f64 {
    let runtime = two_threads();
    let mut watch = Slices::new(TASKS * times, 5);
    while watch.next() {
        let guarded = Arc::new(RwLock::new(0_u64));
        let start = |_| {
            let guarded = guarded.clone();
            runtime.spawn(async move {
                for _ in 0..times {
                    *guarded.write().await += 1;
                }
            })
        };
        let tasks = (0..TASKS).map(start).collect();
        runtime.block_on(join(tasks));
    }
    watch.result()
}

pub fn hand_off(waiters: usize) -> f64 {
    let times = std::cmp::max(2, 20_000 / waiters);
    let runtime = one_thread();
    let mut watch = Slices::new(times * waiters, 5);
    while watch.next() {
        let lock = Arc::new(RwLock::new(()));
        let start = |_| {
            let lock = lock.clone();
            runtime.spawn(async move {
                for _ in 0..times {
                    let _guard = lock.write().await;
                    yield_now().await;
                }
            })
        };
        let tasks = (0..waiters).map(start).collect();
        runtime.block_on(join(tasks));
    }
    watch.result()
}

pub fn pool_in_flight(callers: usize) -> f64 {
    let times = 10_000 / callers;
    let runtime = one_thread();
    let mut watch = Slices::new(times * callers, 9);
    while watch.next() {
        let start = |_| {
            runtime.spawn(async move {
                let mut value = 0;
                for _ in 0..times {
                    value = spawn_blocking(move || value + 1).await.unwrap();
                }
                black_box(value);
            })
        };
        let tasks = (0..callers).map(start).collect();
        runtime.block_on(join(tasks));
    }
    watch.result()
}

pub fn pool_one(times: usize) -> f64 {
    one_thread().block_on(async {
        let mut watch = Slices::new(times, 9);
        let mut value = 0;
        while watch.next() {
            for _ in 0..times {
                value = spawn_blocking(move || value + 1).await.unwrap();
            }
        }
        black_box(value);
        watch.result()
    })
}

async fn consume(chunks: usize) {
    let (sender, mut receiver) = mpsc::channel(64);
    let engine = spawn_blocking(move || {
        for i in 0..chunks {
            if sender.blocking_send(i as u64).is_err() {
                break;
            }
        }
    });
    let mut sum = 0;
    while let Some(next) = receiver.recv().await {
        sum += next;
    }
    black_box(sum);
    engine.await.unwrap();
}

pub fn stream_chunk(chunks: usize) -> f64 {
    one_thread().block_on(async {
        let mut watch = Slices::new(chunks, 9);
        while watch.next() {
            consume(chunks).await;
        }
        watch.result()
    })
}

/// Many streams that are open at once, 16 chunks each, from one engine's thread.
pub fn streams(count: usize) -> f64 {
    const CHUNKS: usize = 16;
    let rounds = std::cmp::max(1, 2_000 / count);
    let runtime = Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
    let mut watch = Slices::new(rounds * count * CHUNKS, 5);
    while watch.next() {
        for _ in 0..rounds {
            let tasks = (0..count).map(|_| runtime.spawn(consume(CHUNKS))).collect();
            runtime.block_on(join(tasks));
        }
    }
    watch.result()
}

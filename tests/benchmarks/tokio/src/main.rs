//! The measurements' peers on tokio: roster-peers <name> [size]. Prints nanoseconds per operation, as ours do.

mod hash;
mod lookups;
mod measure;
mod queues;

use measure::Measurement;

const ALL: &[Measurement] = &[
    Measurement { name: "get", run: lookups::get, usual_size: 64 },
    Measurement { name: "try_get", run: lookups::try_get, usual_size: 64 },
    Measurement { name: "get_default_hash", run: lookups::get_default_hash, usual_size: 64 },
    Measurement { name: "try_get_default_hash", run: lookups::try_get_default_hash, usual_size: 64 },
    Measurement { name: "get_on_two_threads", run: lookups::get_on_two_threads, usual_size: 64 },
    Measurement { name: "read_mostly", run: queues::read_mostly, usual_size: 40_000 },
    Measurement { name: "contended", run: queues::contended, usual_size: 10_000 },
    Measurement { name: "hand_off", run: queues::hand_off, usual_size: 8 },
    Measurement { name: "cell_ready", run: lookups::cell_ready, usual_size: 2_000_000 },
    Measurement { name: "pool_in_flight", run: queues::pool_in_flight, usual_size: 64 },
    Measurement { name: "pool_one", run: queues::pool_one, usual_size: 500 },
    Measurement { name: "stream_chunk", run: queues::stream_chunk, usual_size: 50_000 },
    Measurement { name: "streams", run: queues::streams, usual_size: 1 },
];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.len() < 2 {
        for each in ALL {
            println!("{}", each.name);
        }
        return;
    }
    match ALL.iter().find(|each| each.name == arguments[1]) {
        Some(each) => {
            let size = arguments.get(2).map_or(each.usual_size, |text| text.parse().unwrap());
            println!("{:.3}", (each.run)(size));
        }
        None => {
            eprintln!("no such measurement: {}", arguments[1]);
            std::process::exit(2);
        }
    }
}

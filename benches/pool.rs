//! What a run of the thread pool costs, in microseconds: `cargo bench --bench pool [-- THREADS]`.

use std::time::{Duration, Instant};

use rocmforge::backend::cpu::pool::Pool;

/// Median and 99th percentile of `rounds` calls of `measure`, in microseconds.
fn quantiles(rounds: usize, mut measure: impl FnMut() -> Duration) -> (f64, f64) {
    let mut times: Vec<Duration> = (0..rounds).map(|_| measure()).collect();
    times.sort();
    let at = |q: f64| times[((times.len() - 1) as f64 * q) as usize].as_secs_f64() * 1e6;
    (at(0.5), at(0.99))
}

fn timed(f: impl FnOnce()) -> Duration {
    let started = Instant::now();
    f();
    started.elapsed()
}

fn busy(duration: Duration) {
    let started = Instant::now();
    while started.elapsed() < duration {
        std::hint::spin_loop();
    }
}

fn main() {
    let threads = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(2);
    let pool = Pool::new(threads).expect("threads");
    let report = |what: &str, (median, p99): (f64, f64)| println!("{what:<44} {median:8.2} µs   p99 {p99:8.2} µs");
    println!("{threads} threads");
    for n in [threads, 4 * threads, 64] {
        report(&format!("{n} empty tasks, workers spinning"), quantiles(20_000, || timed(|| pool.run(n, &|_| {}))));
    }
    let parked = quantiles(500, || {
        std::thread::sleep(Duration::from_millis(1));
        timed(|| pool.run(threads, &|_| {}))
    });
    report("empty tasks, workers parked", parked);
    let piece = Duration::from_micros(10);
    let work = |n: usize| timed(|| pool.run(n, &|_| busy(piece)));
    report(&format!("{} tasks of 10 µs, workers spinning", 4 * threads), quantiles(5_000, || work(4 * threads)));
    let parked = quantiles(500, || {
        std::thread::sleep(Duration::from_millis(1));
        work(4 * threads)
    });
    report(&format!("{} tasks of 10 µs, workers parked", 4 * threads), parked);
}

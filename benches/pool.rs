//! What a run of the thread pool costs, and what a busy neighbour costs a model:
//! `cargo bench --bench pool [-- THREADS] [MODEL...]`.
//!
//! For each MODEL, decode with one thread and with two, alone and while another thread, which the system treats as any other,
//! keeps one processor busy. The four cases take turns. A step that waits for a thread without a processor shows in the
//! longest steps: the system lets a thread wait for a few milliseconds.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rocmforge::backend::cpu::pool::Pool;
use rocmforge::engine::{Engine, EngineOptions, ModelOptions};
use rocmforge::placement::GpuChoice;
use rocmforge::session::{Session, SessionOptions};

/// Turns of each case, and steps of a turn.
const TURNS: usize = 5;
const STEPS: usize = 128;

/// The quantile `q` of sorted times, in microseconds.
fn quantile(times: &[Duration], q: f64) -> f64 {
    times[((times.len() - 1) as f64 * q) as usize].as_secs_f64() * 1e6
}

/// Median and 99th percentile of `rounds` calls of `measure`, in microseconds.
fn quantiles(rounds: usize, mut measure: impl FnMut() -> Duration) -> (f64, f64) {
    let mut times: Vec<Duration> = (0..rounds).map(|_| measure()).collect();
    times.sort();
    (quantile(&times, 0.5), quantile(&times, 0.99))
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
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let threads = words.iter().find_map(|word| word.parse().ok()).unwrap_or(2);
    runs(threads);
    words.iter().filter(|word| word.parse::<usize>().is_err()).for_each(|path| decode(Path::new(path)));
}

/// What runs of a pool cost.
fn runs(threads: usize) {
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

/// Steps of one token with one and two threads, alone and beside a busy neighbour.
fn decode(path: &Path) {
    let session = |threads| {
        let options = EngineOptions { threads, gpus: Some(GpuChoice::None), ..Default::default() };
        let engine = Arc::new(Engine::new(options).expect("an engine"));
        let model = engine.load(path, ModelOptions::default()).unwrap_or_else(|e| panic!("{e}"));
        Session::new(model, SessionOptions { context: STEPS, ..Default::default() }).expect("a session")
    };
    let mut sessions = [session(1), session(2)];
    // Steps of one and of two threads, alone and with a neighbour.
    let mut times: [[Vec<Duration>; 2]; 2] = Default::default();
    for _ in 0..TURNS {
        for (with_neighbour, times) in times.iter_mut().enumerate() {
            let _neighbour = (with_neighbour == 1).then(Neighbour::new);
            for (session, times) in sessions.iter_mut().zip(times) {
                session.rewind(0).expect("a session");
                let step = |token| timed(|| session.decode(&[token]).expect("a step"));
                times.extend((1..=STEPS as u32).map(step));
            }
        }
    }
    println!("{}, steps of one token", path.display());
    let mut best = f64::NAN;
    for (what, times) in ["alone", "with a busy neighbour"].into_iter().zip(&mut times) {
        for (threads, times) in (1..).zip(times) {
            times.sort();
            let [median, p99, longest] = [0.5, 0.99, 1.0].map(|q| quantile(times, q));
            let mean = times.iter().sum::<Duration>().as_secs_f64() / times.len() as f64;
            if best.is_nan() {
                best = mean;
            }
            println!(
                "    {threads} threads, {what:<22} {:7.1} tokens/s, {:.2} times one thread alone; median {median:7.0} µs, p99 {p99:7.0}, \
                 longest {longest:7.0}",
                1.0 / mean,
                best / mean
            );
        }
    }
}

/// A thread that keeps the last processor busy until it is dropped.
struct Neighbour {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Neighbour {
    fn new() -> Neighbour {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = stop.clone();
        let thread = std::thread::spawn(move || {
            stay_on_the_last_processor();
            while !seen.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        });
        // It has run for a while when the first step begins, as neighbours have.
        std::thread::sleep(Duration::from_millis(20));
        Neighbour { stop, thread: Some(thread) }
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("a neighbour");
        }
    }
}

/// Where the system refuses, the neighbour moves about.
fn stay_on_the_last_processor() {
    #[cfg(target_os = "linux")]
    // SAFETY: the set is as large as stated, and all zeros is the empty set.
    unsafe {
        let mut one: libc::cpu_set_t = std::mem::zeroed();
        let last = std::thread::available_parallelism().map_or(1, |n| n.get()) - 1;
        libc::CPU_SET(last, &mut one);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &one);
    }
}

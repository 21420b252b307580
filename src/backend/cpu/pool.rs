//! The thread pool: a few threads of our own, never a global pool in a host's process.
//!
//! A decode step makes some two hundred runs of 20 to 100 µs each, so what counts is the cost of
//! starting and ending one. Tasks are claimed one at a time from a single atomic word; the caller
//! takes part, and at the end waits only for tasks that somebody has claimed: a worker that the
//! operating system has not scheduled yet is never waited for. Idle workers spin for a moment, since
//! the next run of a step is microseconds away, and then park.
//!
//! A worker that loses its core in the middle of a task makes the caller wait for as long as the system lets others run, a few
//! milliseconds, which is more than a step may take. Where another process wants the core, that happens in every one of
//! the system's slices, and two threads would be slower than one. So a worker that was waited for while it had no core
//! rests for a while, the longer the more often that happens, and its work is done by those who have one. (That it was another
//! process and not the host of a virtual machine, which takes cores from the caller just as well, the system's count of
//! preemptions says.)

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// How long a worker looks for the next run before it parks.
const WORKER_SPIN: Duration = Duration::from_micros(80);
/// How long the caller spins for the last tasks in progress before it sleeps. Longer than a wake-up
/// takes, so that it sleeps only when a worker has lost its core in the middle of a task.
const CALLER_SPIN: Duration = Duration::from_micros(200);
/// How long a run waits for that of another thread: longer than runs take, shorter than a thread without a core waits.
const TURN_WAIT: Duration = Duration::from_millis(2);
/// A worker that had no core for this long while it was waited for rests. Longer than what interrupts and the system's own
/// threads take, shorter than a slice of the system's (3 ms).
const LOST: Duration = Duration::from_millis(1);
/// How long it rests the first time, and at most: against that a wait of a slice is little, and a neighbour that has
/// gone is noticed within a second.
const REST: Duration = Duration::from_millis(16);
const LONGEST_REST: Duration = Duration::from_millis(1024);
/// A worker that is waited for again this soon after a rest has the same neighbour still, and rests twice as long.
const SAME_NEIGHBOUR: Duration = Duration::from_millis(50);
/// Rows of one task.
const ROW_TILE: usize = 8;
/// Turns of a spin loop between two looks at the clock.
const TURNS_PER_CLOCK: u32 = 32;

/// A fixed set of threads that run the pieces of one verb at a time.
///
/// May be shared between threads; see [`Pool::run`] for what concurrent runs do. Dropping it joins
/// its threads.
pub struct Pool {
    source: Source,
}

/// A host's own parallel-for: `run(n, task)` calls `task(i)` once for each `i` below `n`, on any threads, and returns when
/// all calls have returned.
pub type ParallelFor = Box<dyn Fn(usize, &(dyn Fn(usize) + Sync)) + Send + Sync>;

/// Who runs the tasks.
enum Source {
    /// Only the calling thread.
    Caller,
    /// The host's threads, as many as it says.
    Host(usize, ParallelFor),
    /// The calling thread and our own.
    Workers(Workers),
}

impl Pool {
    /// A pool of `threads` in all, the calling thread included (0 counts as 1).
    ///
    /// # Errors
    /// [`Error::Io`] if the operating system refuses a thread; those already started are joined.
    pub fn new(threads: usize) -> Result<Pool> {
        Pool::start(threads, false)
    }

    /// As [`Pool::new`]; with `pinned` each of our threads stays on one of the processors that the process may use, the
    /// first being left to the calling thread, which is not ours to pin. Where the system refuses, nothing is pinned.
    pub fn start(threads: usize, pinned: bool) -> Result<Pool> {
        let source = if threads <= 1 { Source::Caller } else { Source::Workers(Workers::start(threads - 1, pinned)?) };
        Ok(Pool { source })
    }

    /// A pool without threads of its own, whose tasks `run` distributes over about `threads` threads.
    pub fn of_host(threads: usize, run: ParallelFor) -> Pool {
        Pool { source: Source::Host(threads.max(1), run) }
    }

    /// Threads, the caller's included.
    pub fn threads(&self) -> usize {
        match &self.source {
            Source::Caller => 1,
            Source::Host(threads, _) => *threads,
            Source::Workers(workers) => workers.handles.len() + 1,
        }
    }

    /// Runs `task(i)` once for every `i` in `0..n`, on all threads; returns when all are done.
    ///
    /// The order is not defined. While the pool is busy with a run of another thread, the calling thread waits for its
    /// turn, so that several sessions do not put more threads to work than there are; but not for long, since that thread
    /// may have lost its core: then, as in a run that is nested in another, it runs all its tasks itself.
    ///
    /// # Panics
    /// With the first panic of a task, after every task in progress has ended. The pool stays usable.
    pub fn run(&self, n: usize, task: &(dyn Fn(usize) + Sync)) {
        match &self.source {
            Source::Workers(workers) if n > 1 && n <= u32::MAX as usize => workers.run(n as u32, task),
            Source::Host(_, run) if n > 1 && n <= u32::MAX as usize && !INSIDE.get() => {
                run_on_host(run, n as u32, task)
            }
            _ => (0..n).for_each(task),
        }
    }

    /// [`Pool::run`] of tasks that may fail: after an error those not begun yet are left out.
    ///
    /// # Errors
    /// One of the tasks'.
    pub fn try_run(&self, n: usize, task: &(dyn Fn(usize) -> Result<()> + Sync)) -> Result<()> {
        let failed = parking_lot::Mutex::new(None);
        self.run(n, &|i| {
            if failed.lock().is_some() {
                return;
            }
            if let Err(error) = task(i) {
                *failed.lock() = Some(error);
            }
        });
        failed.into_inner().map_or(Ok(()), Err)
    }

    /// Runs `task(part, piece)` once for each piece of each part, as [`Pool::run`] does. A thread begins with the same part
    /// in each run, in which it finds in its own caches what it left there in the run before, and helps others when no
    /// piece of it is left.
    pub fn run_near(&self, parts: usize, pieces: usize, task: &(dyn Fn(usize, usize) + Sync)) {
        match &self.source {
            Source::Workers(workers) if parts <= self.threads() && parts * pieces > 1 => {
                workers.run_near(parts, pieces, task);
            }
            Source::Host(threads, _) if parts * pieces > 1 => {
                let taken: Vec<_> = (0..parts).map(|_| Line(AtomicUsize::new(0))).collect();
                self.run((*threads).min(parts * pieces), &|i| take_all(&taken, i, pieces, task));
            }
            _ => (0..parts).for_each(|part| (0..pieces).for_each(|piece| task(part, piece))),
        }
    }

    /// [`Pool::run_near`] of `n` pieces that follow each other: parts are [`Pool::part_of`] of them.
    pub fn run_in_order(&self, n: usize, task: &(dyn Fn(usize) + Sync)) {
        let part = self.part_of(n);
        self.run_near(n.div_ceil(part), part, &|p, piece| {
            if p * part + piece < n {
                task(p * part + piece);
            }
        });
    }

    /// [`Pool::run_in_order`] of `n` rows, some of them at a time; a single one on the calling thread.
    pub fn each_row(&self, n: usize, task: &(dyn Fn(usize) + Sync)) {
        if n < 2 {
            return (0..n).for_each(task);
        }
        let tile = n.div_ceil(self.threads()).min(ROW_TILE);
        self.run_in_order(n.div_ceil(tile), &|i| (i * tile..n.min((i + 1) * tile)).for_each(task));
    }

    /// Pieces of a part, so that there is one for each thread.
    fn part_of(&self, n: usize) -> usize {
        n.div_ceil(self.threads()).max(1)
    }
}

thread_local! {
    /// This thread is inside a task: what it runs on a pool is nested.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
    /// Which thread of its pool this is: 0 for a caller.
    static NUMBER: Cell<usize> = const { Cell::new(0) };
}

/// One that no other task has. No more tasks run at a time than there are threads, so there is one.
pub(super) fn free<T>(scratches: &[parking_lot::Mutex<T>]) -> parking_lot::MutexGuard<'_, T> {
    scratches.iter().find_map(parking_lot::Mutex::try_lock).unwrap_or_else(|| scratches[0].lock())
}

/// Runs pieces until none is left, of which `taken` says how many have been taken of each part, from part `own` on.
fn take_all(taken: &[Line<AtomicUsize>], own: usize, pieces: usize, task: &(dyn Fn(usize, usize) + Sync)) {
    for part in (0..taken.len()).map(|p| (own + p) % taken.len()) {
        let take = || Some(taken[part].0.fetch_add(1, Ordering::Relaxed)).filter(|&piece| piece < pieces);
        while let Some(piece) = take() {
            task(part, piece);
        }
    }
}

/// Lets the host distribute the tasks. None of them unwinds into the host.
fn run_on_host(run: &ParallelFor, n: u32, task: &(dyn Fn(usize) + Sync)) {
    let job = Job { task, n, panicked: AtomicBool::new(false), panic: Mutex::new(None) };
    let done = AtomicUsize::new(0);
    run(n as usize, &|i| {
        if i < n as usize {
            job.run(i as u32);
            done.fetch_add(1, Ordering::Release);
        }
    });
    job.rethrow();
    let done = done.load(Ordering::Acquire);
    assert!(done == n as usize, "the host's parallel-for ran {done} of {n} tasks");
}

/// Our own threads and what they share with the caller.
struct Workers {
    shared: Arc<Shared>,
    handles: Vec<JoinHandle<()>>,
}

/// What the caller and the workers share. Each group has its own cache lines: the workers spin on
/// the first while the caller spins on the second.
struct Shared {
    board: Line<Board>,
    done: Line<Done>,
    /// What is known of each worker.
    states: Vec<Line<WorkerState>>,
    /// Pieces that have been taken of each part, in a run of parts.
    taken: Vec<Line<AtomicUsize>>,
    /// Held during a run.
    turn: parking_lot::Mutex<()>,
}

/// Keeps neighbours off its cache line (two lines: processors prefetch in pairs).
#[repr(align(128))]
struct Line<T>(T);

/// Where work is announced.
struct Board {
    /// `run number << 32 | tasks not claimed yet`. A claim takes one off by compare-and-swap: since
    /// the number takes part, a worker that fell asleep over an old run can claim nothing of it.
    claims: AtomicU64,
    /// The job of that run. Dereferenced only between a successful claim and the report in
    /// [`Done::pending`], a time during which the caller cannot leave [`Workers::run`].
    job: AtomicPtr<Job<'static>>,
    stopping: AtomicBool,
    /// Workers parked (or about to).
    parked: AtomicUsize,
    gate: Mutex<()>,
    work: Condvar,
    /// Where workers rest; only the end of the pool cuts it short.
    rest: Condvar,
}

/// What is known of a worker.
#[derive(Default)]
struct WorkerState {
    /// It takes part in a run.
    at_work: AtomicBool,
    /// It is to rest before it takes part in another.
    to_rest: AtomicBool,
}

/// Where the end of work is reported.
struct Done {
    /// Tasks of this run that are not reported as done.
    pending: AtomicUsize,
    /// The caller sleeps (or is about to).
    caller_sleeps: AtomicBool,
    gate: Mutex<()>,
    all: Condvar,
}

/// One run, on its caller's stack.
struct Job<'a> {
    task: &'a (dyn Fn(usize) + Sync),
    n: u32,
    /// After a panic the remaining tasks are claimed and skipped.
    panicked: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

/// The pool's locks guard no data, so a poisoned one is as good as any.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Spins until `ready` or until `limit` has passed; whether it was ready.
fn spin(limit: Duration, ready: impl Fn() -> bool) -> bool {
    let mut deadline = None;
    loop {
        for _ in 0..TURNS_PER_CLOCK {
            if ready() {
                return true;
            }
            std::hint::spin_loop();
        }
        let now = Instant::now();
        if now >= *deadline.get_or_insert(now + limit) {
            return false;
        }
    }
}

impl Workers {
    fn start(count: usize, pinned: bool) -> Result<Workers> {
        let shared = Arc::new(Shared {
            board: Line(Board {
                claims: AtomicU64::new(0),
                job: AtomicPtr::new(std::ptr::null_mut()),
                stopping: AtomicBool::new(false),
                parked: AtomicUsize::new(0),
                gate: Mutex::new(()),
                work: Condvar::new(),
                rest: Condvar::new(),
            }),
            done: Line(Done {
                pending: AtomicUsize::new(0),
                caller_sleeps: AtomicBool::new(false),
                gate: Mutex::new(()),
                all: Condvar::new(),
            }),
            states: (0..count).map(|_| Line(WorkerState::default())).collect(),
            taken: (0..=count).map(|_| Line(AtomicUsize::new(0))).collect(),
            turn: parking_lot::Mutex::new(()),
        });
        let mut workers = Workers { shared, handles: Vec::with_capacity(count) };
        // A new thread inherits the mask of its creator: the host's handlers find no moment to run on it.
        let _blocked = signals::Blocked::new();
        for i in 1..=count {
            let shared = Arc::clone(&workers.shared);
            let name = format!("rocmforge-{i}");
            let handle = thread::Builder::new()
                .name(name.clone())
                .spawn(move || {
                    if pinned {
                        affinity::pin(i);
                    }
                    NUMBER.set(i);
                    shared.work(&shared.states[i - 1].0);
                })
                .map_err(|source| Error::io(format!("cannot start the thread {name} of {count}"), source))?;
            workers.handles.push(handle);
        }
        Ok(workers)
    }

    fn run(&self, n: u32, task: &(dyn Fn(usize) + Sync)) {
        let Some(_turn) = self.turn() else {
            return (0..n as usize).for_each(task);
        };
        self.run_in_turn(n, task);
    }

    fn run_near(&self, parts: usize, pieces: usize, task: &(dyn Fn(usize, usize) + Sync)) {
        let Some(_turn) = self.turn() else {
            return (0..parts).for_each(|part| (0..pieces).for_each(|piece| task(part, piece)));
        };
        let taken = &self.shared.taken[..parts];
        taken.iter().for_each(|taken| taken.0.store(0, Ordering::Relaxed));
        // One run for each thread, which takes as many pieces as there are for it.
        let n = self.shared.taken.len().min(parts * pieces);
        self.run_in_turn(n as u32, &|_| take_all(taken, NUMBER.get(), pieces, task));
    }

    /// Waits for the turn to run something; `None`: it takes too long.
    fn turn(&self) -> Option<parking_lot::MutexGuard<'_, ()>> {
        let turn = &self.shared.turn;
        if INSIDE.get() { turn.try_lock() } else { turn.try_lock_for(TURN_WAIT) }
    }

    fn run_in_turn(&self, n: u32, task: &(dyn Fn(usize) + Sync)) {
        let shared = &*self.shared;
        let job = Job { task, n, panicked: AtomicBool::new(false), panic: Mutex::new(None) };
        shared.announce(&job);
        shared.take_part();
        shared.wait_for_all(&self.handles);
        job.rethrow();
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        let board = &self.shared.board.0;
        board.stopping.store(true, Ordering::SeqCst);
        drop(lock(&board.gate)); // whoever saw `stopping` unset under the gate is waiting by now
        board.work.notify_all();
        board.rest.notify_all();
        for handle in self.handles.drain(..) {
            // A worker cannot panic (tasks are caught); there is nobody to tell if it did.
            let _ = handle.join();
        }
    }
}

impl Shared {
    /// Publishes `job` and wakes as many parked workers as it has use for.
    fn announce(&self, job: &Job<'_>) {
        let board = &self.board.0;
        self.done.0.pending.store(job.n as usize, Ordering::Relaxed);
        board.job.store(std::ptr::from_ref(job).cast_mut().cast(), Ordering::Relaxed);
        let number = (board.claims.load(Ordering::Relaxed) >> 32) as u32;
        let claims = u64::from(number.wrapping_add(1)) << 32 | u64::from(job.n);
        // Sequentially consistent, as is the worker's count in `parked`: either we see that it parks, or
        // its last look sees the work.
        board.claims.store(claims, Ordering::SeqCst);
        let parked = board.parked.load(Ordering::SeqCst);
        if parked > 0 {
            drop(lock(&board.gate));
            for _ in 0..parked.min(job.n as usize - 1) {
                board.work.notify_one();
            }
        }
    }

    /// Claims and runs tasks until none is left to claim, then reports them.
    fn take_part(&self) {
        let board = &self.board.0;
        let mut finished = 0;
        let mut claims = board.claims.load(Ordering::Acquire);
        while claims as u32 != 0 {
            // Read before the claim: if the claim succeeds, its run had not ended, so this is its job.
            let job = board.job.load(Ordering::Relaxed);
            match board.claims.compare_exchange_weak(claims, claims - 1, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    // SAFETY: we hold a claim that is not reported, so the caller is still inside
                    // `Workers::run`, on whose stack the job lives. `Job` is Sync in all that is used.
                    let job = unsafe { &*job };
                    job.run(job.n - claims as u32);
                    finished += 1;
                    claims = board.claims.load(Ordering::Acquire);
                }
                Err(current) => claims = current,
            }
        }
        if finished > 0 {
            self.report(finished);
        }
    }

    /// Counts `finished` tasks as done; the last report wakes a sleeping caller.
    fn report(&self, finished: usize) {
        let done = &self.done.0;
        if done.pending.fetch_sub(finished, Ordering::SeqCst) == finished && done.caller_sleeps.load(Ordering::SeqCst) {
            drop(lock(&done.gate));
            done.all.notify_all();
        }
    }

    /// Waits for the tasks that others have claimed.
    fn wait_for_all(&self, handles: &[JoinHandle<()>]) {
        let done = &self.done.0;
        if spin(CALLER_SPIN, || done.pending.load(Ordering::Acquire) == 0) {
            return;
        }
        let began = Instant::now();
        let waited_for: Vec<_> = (self.states.iter().zip(handles))
            .filter(|(state, _)| state.0.at_work.load(Ordering::Relaxed))
            .filter_map(|(state, handle)| Some((state, handle, cpu_time::of(handle)?)))
            .collect();
        let mut gate = lock(&done.gate);
        done.caller_sleeps.store(true, Ordering::SeqCst);
        while done.pending.load(Ordering::SeqCst) != 0 {
            gate = done.all.wait(gate).unwrap_or_else(PoisonError::into_inner);
        }
        done.caller_sleeps.store(false, Ordering::Relaxed);
        drop(gate);
        let waited = began.elapsed();
        for (state, handle, before) in waited_for {
            // Who computed all the time had a long task, not a busy core.
            let computed = cpu_time::of(handle).and_then(|now| now.checked_sub(before));
            if computed.is_some_and(|computed| waited.saturating_sub(computed) > LOST) {
                state.0.to_rest.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Keeps a worker out of runs for a while.
    fn rest(&self, duration: Duration) {
        let board = &self.board.0;
        let end = Instant::now() + duration;
        let mut gate = lock(&board.gate);
        while !board.stopping.load(Ordering::SeqCst) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            gate = board.rest.wait_timeout(gate, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// A worker's life.
    fn work(&self, state: &WorkerState) {
        let mut rest = REST;
        let mut rested = None;
        let mut preemptions = preempted::Count::new();
        let board = &self.board.0;
        let called = || board.claims.load(Ordering::SeqCst) as u32 != 0 || board.stopping.load(Ordering::SeqCst);
        loop {
            if !spin(WORKER_SPIN, called) {
                let mut gate = lock(&board.gate);
                board.parked.fetch_add(1, Ordering::SeqCst);
                while !called() {
                    gate = board.work.wait(gate).unwrap_or_else(PoisonError::into_inner);
                }
                board.parked.fetch_sub(1, Ordering::Relaxed);
            }
            if board.stopping.load(Ordering::Relaxed) {
                return;
            }
            if state.to_rest.swap(false, Ordering::Relaxed) && preemptions.grew() {
                let again = rested.is_some_and(|end: Instant| end.elapsed() < SAME_NEIGHBOUR);
                rest = if again { LONGEST_REST.min(2 * rest) } else { REST };
                self.rest(rest);
                rested = Some(Instant::now());
                continue;
            }
            state.at_work.store(true, Ordering::Relaxed);
            self.take_part();
            state.at_work.store(false, Ordering::Relaxed);
        }
    }
}

impl Job<'_> {
    /// Runs one task; a panic is kept for the caller.
    fn run(&self, i: u32) {
        if self.panicked.load(Ordering::Relaxed) {
            return;
        }
        let outer = INSIDE.replace(true);
        let result = catch_unwind(AssertUnwindSafe(|| (self.task)(i as usize)));
        INSIDE.set(outer);
        if let Err(payload) = result {
            self.panicked.store(true, Ordering::Relaxed);
            lock(&self.panic).get_or_insert(payload);
        }
    }

    /// Goes on with the first panic of a task, if there was one.
    fn rethrow(self) {
        if let Some(payload) = self.panic.into_inner().unwrap_or_else(PoisonError::into_inner) {
            resume_unwind(payload);
        }
    }
}

#[cfg(target_os = "linux")]
mod cpu_time {
    //! How long a thread has computed.

    use std::os::unix::thread::JoinHandleExt;
    use std::thread::JoinHandle;
    use std::time::Duration;

    /// The time that a thread of ours has had a core; `None` where the system does not tell.
    pub fn of(handle: &JoinHandle<()>) -> Option<Duration> {
        let mut clock = 0;
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: a thread that is not joined, which its handle shows, and two places to write to.
        let told = unsafe {
            libc::pthread_getcpuclockid(handle.as_pthread_t(), &mut clock) == 0
                && libc::clock_gettime(clock, &mut time) == 0
        };
        told.then(|| Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
    }
}

#[cfg(not(target_os = "linux"))]
mod cpu_time {
    //! Elsewhere nobody tells.

    pub fn of(_: &std::thread::JoinHandle<()>) -> Option<std::time::Duration> {
        None
    }
}

#[cfg(target_os = "linux")]
mod preempted {
    //! How often the system has taken the core from a thread.

    /// The count when it was last asked for.
    pub struct Count(libc::c_long);

    impl Count {
        /// That of the calling thread, now.
        pub fn new() -> Count {
            Count(now())
        }

        /// Whether it has grown since it was last asked for, on the same thread.
        pub fn grew(&mut self) -> bool {
            let before = std::mem::replace(&mut self.0, now());
            self.0 != before
        }
    }

    fn now() -> libc::c_long {
        let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: a place to write to, which holds a valid value (zeros) before.
        unsafe {
            libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr());
            usage.assume_init().ru_nivcsw
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod preempted {
    //! Elsewhere no thread is told to rest.

    pub struct Count;

    impl Count {
        pub fn new() -> Count {
            Count
        }

        pub fn grew(&mut self) -> bool {
            false
        }
    }
}

#[cfg(target_os = "linux")]
mod affinity {
    //! Which processors a thread runs on.

    use std::mem::MaybeUninit;

    /// Keeps this thread on the processor number `i` of those that it may use now, counted around.
    pub fn pin(i: usize) {
        let size = size_of::<libc::cpu_set_t>();
        let mut allowed = MaybeUninit::zeroed();
        // SAFETY: the sets are as large as stated, all zeros is the empty set, and processors below CPU_SETSIZE are asked
        // for. A refusal changes nothing.
        unsafe {
            if libc::sched_getaffinity(0, size, allowed.as_mut_ptr()) != 0 {
                return;
            }
            let allowed: libc::cpu_set_t = allowed.assume_init();
            let usable: Vec<usize> =
                (0..libc::CPU_SETSIZE as usize).filter(|&cpu| libc::CPU_ISSET(cpu, &allowed)).collect();
            if let Some(&cpu) = usable.get(i % usable.len().max(1)) {
                let mut one: libc::cpu_set_t = std::mem::zeroed();
                libc::CPU_SET(cpu, &mut one);
                libc::sched_setaffinity(0, size, &one);
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod affinity {
    //! Elsewhere threads go where the system puts them.

    pub fn pin(_: usize) {}
}

#[cfg(unix)]
mod signals {
    //! The signal mask of the threads that we start.

    use std::mem::MaybeUninit;

    /// Raised by a fault of the thread itself. Blocked, they would end the process without the host's
    /// crash reporter having a say.
    const FAULTS: [libc::c_int; 7] =
        [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGABRT, libc::SIGSYS];

    /// While it lives, every signal but the faults is blocked on this thread (and on those it starts, for good).
    pub struct Blocked {
        before: Option<libc::sigset_t>,
    }

    impl Blocked {
        pub fn new() -> Blocked {
            let mut all = MaybeUninit::uninit();
            let mut before = MaybeUninit::uninit();
            // SAFETY: `sigfillset` initialises `all`, the others take valid pointers; `before` is read
            // only if the call that writes it reports success.
            unsafe {
                libc::sigfillset(all.as_mut_ptr());
                for fault in FAULTS {
                    libc::sigdelset(all.as_mut_ptr(), fault);
                }
                let status = libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
                Blocked { before: (status == 0).then(|| before.assume_init()) }
            }
        }
    }

    impl Drop for Blocked {
        fn drop(&mut self) {
            if let Some(before) = &self.before {
                // SAFETY: `before` is the mask that this thread had; a null third argument is allowed.
                unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before, std::ptr::null_mut()) };
            }
        }
    }
}

#[cfg(not(unix))]
mod signals {
    //! Without signals there is nothing to block.

    pub struct Blocked;

    impl Blocked {
        pub fn new() -> Blocked {
            Blocked
        }
    }
}

#[cfg(test)]
mod tests;

use super::*;
use std::sync::Barrier;
use std::sync::atomic::AtomicU32;

/// Runs `f` on each of the pool's threads once: a task ends only when all threads have one.
fn on_every_thread(pool: &Pool, f: impl Fn(usize) + Sync) {
    let all_here = Barrier::new(pool.threads());
    pool.run(pool.threads(), &|i| {
        all_here.wait();
        f(i);
    });
}

/// Waits until every worker has parked.
fn wait_until_parked(pool: &Pool) {
    let Source::Workers(workers) = &pool.source else { return };
    let started = Instant::now();
    while workers.shared.board.0.parked.load(Ordering::SeqCst) < workers.handles.len() {
        assert!(started.elapsed() < Duration::from_secs(20), "an idle worker does not park");
        thread::sleep(Duration::from_micros(200));
    }
}

#[test]
fn every_index_runs_once() {
    for threads in [0, 1, 2, 3, 7] {
        let pool = Pool::new(threads).unwrap();
        assert_eq!(pool.threads(), threads.max(1));
        for n in [0, 1, 2, 3, 8, 61, 1000] {
            let seen: Vec<AtomicU32> = (0..n).map(|_| AtomicU32::new(0)).collect();
            pool.run(n, &|i| {
                seen[i].fetch_add(1, Ordering::Relaxed);
            });
            assert!(seen.iter().all(|count| count.load(Ordering::Relaxed) == 1), "{threads} threads, {n} tasks");
        }
    }
}

#[test]
fn every_piece_of_every_part_runs_once() {
    let host = |n: usize, task: &(dyn Fn(usize) + Sync)| (0..n).rev().for_each(task);
    for pool in [Pool::new(1).unwrap(), Pool::new(2).unwrap(), Pool::new(5).unwrap(), Pool::of_host(3, Box::new(host))]
    {
        for (parts, pieces) in [(0, 3), (1, 1), (1, 9), (2, 1), (2, 30), (5, 7), (9, 2)] {
            let seen: Vec<AtomicU32> = (0..parts * pieces).map(|_| AtomicU32::new(0)).collect();
            pool.run_near(parts, pieces, &|part, piece| {
                seen[part * pieces + piece].fetch_add(1, Ordering::Relaxed);
            });
            assert!(seen.iter().all(|count| count.load(Ordering::Relaxed) == 1), "{parts} parts of {pieces} pieces");
        }
        for n in [0, 1, 2, 3, 11, 100] {
            let seen: Vec<AtomicU32> = (0..n).map(|_| AtomicU32::new(0)).collect();
            pool.run_in_order(n, &|i| {
                seen[i].fetch_add(1, Ordering::Relaxed);
            });
            assert!(seen.iter().all(|count| count.load(Ordering::Relaxed) == 1), "{n} pieces");
        }
    }
}

#[test]
fn a_thread_begins_with_the_same_part() {
    let pool = Pool::new(3).unwrap();
    for _ in 0..100 {
        let all_here = Barrier::new(3);
        pool.run_near(3, 1, &|part, _| {
            // No thread takes a second part before each has its own.
            all_here.wait();
            assert_eq!(part, NUMBER.get());
        });
    }
}

#[test]
fn what_tasks_write_is_visible_to_the_caller() {
    let pool = Pool::new(3).unwrap();
    let sums: Vec<AtomicU64> = (0..16).map(|_| AtomicU64::new(0)).collect();
    for round in 1..=5000u64 {
        pool.run(sums.len(), &|i| sums[i].store(round * (i as u64 + 1), Ordering::Relaxed));
        let total: u64 = sums.iter().map(|s| s.load(Ordering::Relaxed)).sum();
        assert_eq!(total, round * 136);
    }
}

#[test]
fn workers_take_part_park_and_wake() {
    let pool = Pool::new(4).unwrap();
    for _ in 0..5 {
        wait_until_parked(&pool);
        let names = Mutex::new(Vec::new());
        on_every_thread(&pool, |_| names.lock().unwrap().push(thread::current().name().unwrap_or("").to_owned()));
        let mut names = names.into_inner().unwrap();
        names.retain(|name| name.starts_with("rocmforge-"));
        names.sort();
        assert_eq!(names, ["rocmforge-1", "rocmforge-2", "rocmforge-3"]);
    }
}

/// Whether the worker of a pool of two stays away for `time`.
#[cfg(target_os = "linux")]
fn worker_rests(pool: &Pool, time: Duration) -> bool {
    let here = thread::current().id();
    let began = Instant::now();
    while began.elapsed() < time {
        let others = AtomicUsize::new(0);
        pool.run(8, &|_| {
            others.fetch_add(usize::from(thread::current().id() != here), Ordering::Relaxed);
        });
        // Once this thread itself lost its core, nobody knows what time it is.
        if began.elapsed() < time && others.into_inner() > 0 {
            return false;
        }
    }
    true
}

#[test]
#[cfg(target_os = "linux")]
fn a_worker_whose_core_another_thread_has_rests_and_comes_back() {
    let pool = Pool::new(2).unwrap();
    let here = thread::current().id();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            affinity::pin(1);
            while !over.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        });
        on_every_thread(&pool, |_| {
            if thread::current().id() != here {
                affinity::pin(1);
                let began = Instant::now();
                while began.elapsed() < Duration::from_millis(80) {
                    std::hint::spin_loop();
                }
            }
        });
        let rests = worker_rests(&pool, REST / 2);
        over.store(true, Ordering::Relaxed);
        assert!(rests, "the worker did not rest");
    });
    // Ends only when the worker takes part again.
    on_every_thread(&pool, |_| {});
}

#[test]
fn a_busy_pool_leaves_the_run_to_its_caller() {
    let pool = Pool::new(3).unwrap();
    let count = AtomicUsize::new(0);
    on_every_thread(&pool, |_| {
        let here = thread::current().id();
        pool.run(10, &|_| {
            assert_eq!(thread::current().id(), here);
            count.fetch_add(1, Ordering::Relaxed);
        });
    });
    assert_eq!(count.into_inner(), 30);
}

#[test]
fn many_callers_share_one_pool() {
    let pool = Pool::new(3).unwrap();
    let count = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for n in 0..500 {
                    pool.run(n % 17, &|_| {
                        count.fetch_add(1, Ordering::Relaxed);
                    });
                }
            });
        }
    });
    let expected: usize = (0..500).map(|n| n % 17).sum();
    assert_eq!(count.into_inner(), 4 * expected);
}

#[test]
fn a_run_waits_its_turn_but_not_for_ever() {
    let pool = Pool::new(2).unwrap();
    let last = AtomicU64::new(0);
    // A run of another thread that ends soon is waited for.
    let started = Barrier::new(2);
    thread::scope(|scope| {
        scope.spawn(|| {
            pool.run(2, &|i| {
                if i == 0 {
                    started.wait();
                    thread::sleep(Duration::from_micros(200));
                    last.store(1, Ordering::SeqCst);
                }
            });
        });
        started.wait();
        pool.run(2, &|_| {
            last.fetch_max(2, Ordering::SeqCst);
        });
    });
    assert_eq!(last.into_inner(), 2);
    // A run that does not end is not waited for.
    let (entered, leave) = (Barrier::new(2), Barrier::new(2));
    thread::scope(|scope| {
        scope.spawn(|| {
            pool.run(2, &|i| {
                if i == 0 {
                    entered.wait();
                    leave.wait();
                }
            });
        });
        entered.wait();
        let here = thread::current().id();
        pool.run(3, &|_| assert_eq!(thread::current().id(), here));
        leave.wait();
    });
}

#[test]
fn a_hosts_threads_run_the_tasks() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let run: ParallelFor = Box::new(move |n, task| {
        counted.fetch_add(1, Ordering::Relaxed);
        thread::scope(|scope| (0..n).for_each(|i| drop(scope.spawn(move || task(i)))));
    });
    let pool = Pool::of_host(3, run);
    assert_eq!(pool.threads(), 3);
    let seen: Vec<AtomicU32> = (0..20).map(|_| AtomicU32::new(0)).collect();
    pool.run(seen.len(), &|i| {
        // Nested: not the host's.
        pool.run(2, &|_| {
            seen[i].fetch_add(1, Ordering::Relaxed);
        });
    });
    assert!(seen.iter().all(|count| count.load(Ordering::Relaxed) == 2));
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    let caught = catch_unwind(AssertUnwindSafe(|| pool.run(4, &|_| panic_quietly("a task"))));
    assert_eq!(caught.unwrap_err().downcast_ref::<&str>(), Some(&"a task"));
}

#[test]
fn a_host_that_leaves_tasks_out_is_found_out() {
    let pool = Pool::of_host(2, Box::new(|n, task| (1..n).for_each(task)));
    let outer = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let caught = catch_unwind(AssertUnwindSafe(|| pool.run(4, &|_| {})));
    std::panic::set_hook(outer);
    assert!(caught.unwrap_err().downcast_ref::<String>().is_some_and(|text| text.contains("3 of 4")));
}

#[cfg(target_os = "linux")]
#[test]
fn pinned_threads_stay_on_one_processor() {
    let pool = Pool::start(3, true).unwrap();
    let here = thread::current().id();
    on_every_thread(&pool, |_| {
        let mut set = std::mem::MaybeUninit::<libc::cpu_set_t>::zeroed();
        // SAFETY: a set of the stated size, all zeros being the empty one.
        let count = unsafe {
            libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), set.as_mut_ptr());
            libc::CPU_COUNT(&set.assume_init())
        };
        assert!(count == 1 || thread::current().id() == here);
    });
}

/// A payload that no panic hook has seen: the tests stay quiet.
fn panic_quietly(payload: &'static str) -> ! {
    resume_unwind(Box::new(payload))
}

#[test]
fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
    let pool = Pool::new(3).unwrap();
    for round in 0..20 {
        let payload = catch_unwind(AssertUnwindSafe(|| {
            on_every_thread(&pool, |i| {
                if i == round % 3 {
                    panic_quietly("task failed");
                }
            })
        }))
        .unwrap_err();
        assert_eq!(payload.downcast_ref(), Some(&"task failed"));
        let count = AtomicUsize::new(0);
        pool.run(100, &|_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(count.into_inner(), 100);
    }
}

#[test]
fn nothing_starts_after_a_panic() {
    let pool = Pool::new(2).unwrap();
    let after = AtomicUsize::new(0);
    let all_here = Barrier::new(2);
    let result = catch_unwind(AssertUnwindSafe(|| {
        pool.run(1000, &|i| {
            if i < 2 {
                all_here.wait(); // both threads are in the run,
                panic_quietly("both"); // and both fail
            }
            after.fetch_add(1, Ordering::Relaxed);
        })
    }));
    assert!(result.is_err());
    // The thread that panics first has set the flag before it goes on, the other was past its look by then.
    assert_eq!(after.into_inner(), 0);
}

#[test]
fn drop_joins_spinning_and_parked_workers() {
    for parked in [false, true] {
        let pool = Pool::new(4).unwrap();
        pool.run(8, &|_| {});
        if parked {
            wait_until_parked(&pool);
        }
        let Source::Workers(workers) = &pool.source else { unreachable!() };
        let shared = Arc::downgrade(&workers.shared);
        drop(pool);
        assert!(shared.upgrade().is_none(), "a worker outlives the pool");
    }
}

#[cfg(unix)]
#[test]
fn workers_block_signals_but_not_faults_and_the_caller_keeps_its_mask() {
    use std::mem::MaybeUninit;
    let blocked = |signal: libc::c_int| {
        let mut mask = MaybeUninit::uninit();
        // SAFETY: a null set only queries; `mask` is initialised by the call.
        unsafe {
            libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), mask.as_mut_ptr());
            libc::sigismember(mask.as_ptr(), signal) == 1
        }
    };
    let caller = thread::current().id();
    let before = blocked(libc::SIGUSR1);
    let pool = Pool::new(3).unwrap();
    assert_eq!(blocked(libc::SIGUSR1), before);
    on_every_thread(&pool, |_| {
        if thread::current().id() != caller {
            assert!(blocked(libc::SIGUSR1) && blocked(libc::SIGTERM) && blocked(libc::SIGCHLD));
            assert!(!blocked(libc::SIGSEGV) && !blocked(libc::SIGBUS));
        }
    });
}

#[test]
fn a_task_that_fails_ends_its_run() {
    for threads in [1, 3] {
        let (pool, ran) = (Pool::new(threads).expect("a pool"), AtomicUsize::new(0));
        let task = |i: usize| {
            ran.fetch_add(1, Ordering::Relaxed);
            if i == 2 { Err(Error::argument("the third")) } else { Ok(()) }
        };
        let error = pool.try_run(1000, &task).expect_err("a task failed");
        assert!(error.to_string().contains("the third"));
        if threads == 1 {
            assert_eq!(ran.load(Ordering::Relaxed), 3, "those after it are left out");
        }
        assert!(pool.try_run(2, &task).is_ok(), "the pool goes on");
    }
}

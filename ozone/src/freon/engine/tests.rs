//! The engine with loads that do nothing.

use std::collections::BTreeSet;

use super::*;

fn plan(number: u64, threads: usize, clients: usize) -> Plan {
    Plan {
        number,
        threads,
        clients,
        duration: None,
        warm_up: Duration::ZERO,
        fail_at_end: false,
        seed: 1,
        title: None,
    }
}

fn broken(number: u64) -> Trouble {
    Trouble::system(format!("step {number}"), std::io::Error::from_raw_os_error(libc::EDQUOT))
}

#[test]
fn every_number_is_done_once_and_by_its_client() {
    for (number, threads, clients) in [(1, 1, 1), (1000, 7, 3), (2, 8, 8), (100, 4, 4)] {
        let done = Arc::new(Mutex::new(Vec::new()));
        let seen = done.clone();
        let work = move |worker: &mut Worker, n: u64| {
            worker.timed(
                "step",
                |()| 3,
                || {
                    lock(&seen).push(n);
                    Ok(())
                },
            )
        };
        let summary = run(plan(number, threads, clients), &Stop::new(), Arc::new(work)).unwrap();
        assert_eq!((summary.succeeded, summary.failed, summary.stuck), (number, 0, 0));
        assert!(!summary.interrupted);
        let done: Vec<_> = lock(&done).clone();
        assert_eq!(done.len() as u64, number);
        let numbers: BTreeSet<_> = done.iter().copied().collect();
        assert_eq!(numbers, (0..number).collect());
        let row = &summary.record.0["step"];
        assert_eq!((row.latency.len(), row.bytes), (number, 3 * number));
    }
}

#[test]
fn a_thread_takes_its_clients_numbers_only() {
    let work = |worker: &mut Worker, n: u64| {
        assert_eq!(n % 3, worker.client as u64);
        assert_eq!(worker.client, worker.index % 3);
        Ok(())
    };
    let summary = run(plan(500, 7, 3), &Stop::new(), Arc::new(work)).unwrap();
    assert_eq!((summary.succeeded, summary.failed), (500, 0), "{:?}", summary.errors);
}

#[test]
fn the_first_failure_ends_the_run_unless_all_are_wanted() {
    let work = |worker: &mut Worker, n: u64| match n % 10 {
        3 => worker.timed("step", |()| 0, || Err(broken(n))),
        _ => worker.timed("step", |()| 0, || Ok(())),
    };
    let summary = run(plan(1000, 1, 1), &Stop::new(), Arc::new(work)).unwrap();
    assert_eq!((summary.succeeded, summary.failed), (3, 1));
    assert!(summary.errors[0].starts_with("step 3: "), "{:?}", summary.errors);

    let all = Plan { fail_at_end: true, ..plan(1000, 4, 1) };
    let summary = run(all, &Stop::new(), Arc::new(work)).unwrap();
    assert_eq!((summary.succeeded, summary.failed), (900, 100));
    assert_eq!(summary.errors.len(), ERRORS_TOLD);
    let row = &summary.record.0["step"];
    assert_eq!((row.latency.len(), row.failed), (900, 100));
}

#[test]
fn a_panic_is_a_failure() {
    let work = |_: &mut Worker, n: u64| {
        assert_ne!(n, 5, "on purpose");
        Ok(())
    };
    let summary = run(plan(10, 1, 1), &Stop::new(), Arc::new(work)).unwrap();
    assert_eq!((summary.succeeded, summary.failed), (5, 1));
    assert!(summary.errors[0].contains("panicked"));
}

#[test]
fn an_interrupt_ends_the_run_with_what_was_done() {
    let stop = Stop::new();
    let inner = stop.clone();
    let work = move |worker: &mut Worker, n: u64| {
        if n == 20 {
            inner.interrupt();
        }
        worker.timed("step", |()| 0, || Ok(()))
    };
    let summary = run(plan(1_000_000, 1, 1), &stop, Arc::new(work)).unwrap();
    assert!(summary.interrupted);
    assert_eq!((summary.succeeded, summary.failed), (21, 0));
    assert_eq!(summary.record.0["step"].latency.len(), 21);
}

#[test]
fn a_duration_goes_round_and_the_warm_up_is_not_counted() {
    let timed = Plan {
        duration: Some(Duration::from_millis(60)),
        warm_up: Duration::from_millis(60),
        ..plan(5, 2, 2)
    };
    let work = |worker: &mut Worker, n: u64| {
        assert!(n < 5 && n % 2 == worker.client as u64);
        worker.timed("step", |()| 0, || Ok(()))
    };
    let summary = run(timed, &Stop::new(), Arc::new(work)).unwrap();
    assert_eq!(summary.failed, 0, "{:?}", summary.errors);
    assert!(summary.succeeded > 10, "{}", summary.succeeded);
    let counted = summary.record.0["step"].latency.len();
    assert!(counted > 0 && counted < summary.succeeded, "{counted} of {}", summary.succeeded);
    assert!(summary.elapsed >= Duration::from_millis(60));
}

//! Tests what backends keep with sites and kernel maps (`src/sparse/kept.rs`), in every order in which threads may run: loom tries all of
//! them. A deadlock, two values in one place or a lost value would fail.
//!
//!     cargo run --release --manifest-path tests/loom/Cargo.toml

#[path = "../../../src/sparse/kept.rs"]
mod kept;

/// The library's own `sync`, with loom's mutex.
mod sync {
    pub(crate) use loom::sync::Mutex;
    use loom::sync::MutexGuard;

    pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap()
    }
}

use std::convert::Infallible;

use candle_core::DeviceLocation::Cpu;
use kept::Kept;
use loom::sync::Arc;

fn number(kept: &Kept, reversed: bool, value: u32) -> u32 {
    let Ok(found) = kept.get_or_build(Cpu, reversed, || Ok::<_, Infallible>(value));
    *found
}

/// Runs `body` in three threads, one of them the caller's, in every order.
fn in_every_order(body: fn(&Kept, u32) -> u32, check: fn([u32; 3], &Kept)) {
    loom::model(move || {
        let kept = Arc::new(Kept::default());
        let others = [1, 2].map(|thread| {
            let kept = kept.clone();
            loom::thread::spawn(move || body(&kept, thread))
        });
        let own = body(&kept, 0);
        let [first, second] = others.map(|other| other.join().unwrap());
        check([own, first, second], &kept);
    });
}

fn main() {
    // All threads that ask at the same time get the value that one of them built.
    in_every_order(
        |kept, thread| number(kept, false, thread),
        |[a, b, c], kept| {
            assert!(a == b && b == c && a < 3);
            assert_eq!(number(kept, false, 9), a);
            assert_eq!(format!("{kept:?}"), "1 kept");
        },
    );
    // Building one value may ask for another: nothing is locked during this time.
    in_every_order(
        |kept, thread| {
            let built = kept.get_or_build(Cpu, false, || Ok::<_, Infallible>((number(kept, true, thread), "outer")));
            let Ok(found) = built;
            found.0
        },
        |[a, b, c], kept| {
            assert!(a == b && b == c && number(kept, true, 9) == a);
            assert_eq!(format!("{kept:?}"), "2 kept");
        },
    );
    // A thread that cannot build the value does not keep others from building it.
    in_every_order(
        |kept, thread| {
            let built = kept.get_or_build(Cpu, false, || if thread == 1 { Err("cannot") } else { Ok(thread) });
            built.map_or(9, |found| *found)
        },
        |[own, failed, other], _| assert!(own == other && (failed == own || failed == 9)),
    );
    println!("three threads, every order: nothing failed");
}

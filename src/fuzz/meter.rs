//! How much memory a thread asks for: an allocator that counts, for each thread by itself, so that tests may run side by
//! side. What is asked for and never touched counts as well, which the resident size of a process would hide.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// Bytes that are held now, less those freed that others had asked for.
    static HELD: Cell<isize> = const { Cell::new(0) };
    /// The most that was held since the last reset.
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(change: isize) {
    // While a thread ends there is nothing left to count with.
    let held = HELD.try_with(|held| {
        held.set(held.get() + change);
        held.get()
    });
    let _ended = held.and_then(|held| PEAK.try_with(|peak| peak.set(peak.get().max(held))));
}

// SAFETY: all memory comes from the system's allocator and goes back to it, with the layouts that it was given; the
// counters allocate nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(memory, layout) }
    }
}

/// The most bytes that `run` held at once, beyond what was held before, and what it answers.
pub(crate) fn peak_of<T>(run: impl FnOnce() -> T) -> (usize, T) {
    let before = HELD.get();
    PEAK.set(before);
    let value = run();
    let peak = PEAK.get() - before;
    (peak.max(0).cast_unsigned(), value)
}

#[test]
fn what_is_asked_for_counts_although_it_is_never_touched() {
    let (peak, _) = peak_of(|| drop(Vec::<u8>::with_capacity(1 << 20)));
    assert!((1 << 20..1 << 21).contains(&peak), "{peak}");
    assert_eq!(peak_of(|| ()).0, 0);
}

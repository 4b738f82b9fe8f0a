//! Where the time goes between a command and its container, written down by all the processes that take part.
//!
//! [`enable`] makes a page of memory that every process forked afterwards shares; [`mark`] writes a line of it: what was
//! reached, when, and by which process. Without [`enable`] a mark costs one load of a pointer that is null.

use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use std::time::Duration;

/// The most marks that are kept.
const MARKS: usize = 63;
/// The most bytes of a text that are kept.
const TEXT: usize = 48;
const WORDS: usize = TEXT / 8;

/// One line. Every field is atomic: several processes write lines, each its own.
#[repr(C)]
struct Line {
    /// Nanoseconds of the monotonic clock; 0 while it is not written.
    time: AtomicU64,
    pid: AtomicU64,
    text: [AtomicU64; WORDS],
}

#[repr(C)]
struct Page {
    next: AtomicU64,
    lines: [Line; MARKS],
}

static PAGE: AtomicPtr<Page> = AtomicPtr::new(ptr::null_mut());

/// A point that was reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Of the monotonic clock.
    pub time: Duration,
    /// Who was there, as it numbers itself.
    pub pid: u32,
    /// What was reached.
    pub text: String,
}

fn now() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

fn page() -> Option<&'static Page> {
    let page = PAGE.load(Ordering::Acquire);
    // SAFETY: it is null, or the mapping that `enable` made: large enough, aligned to a page, zeroed (a
    // valid Page, whose fields are all integers), never unmapped, and only accessed through atomics.
    unsafe { page.as_ref() }
}

/// Starts to write down, in this process and those it forks from now on. Nothing happens where there is no memory.
pub fn enable() {
    if page().is_some() {
        return;
    }
    // SAFETY: a new mapping at a place of the kernel's choice touches nothing that is there.
    let mapped = unsafe {
        libc::mmap(
            ptr::null_mut(),
            size_of::<Page>(),
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if mapped != libc::MAP_FAILED {
        PAGE.store(mapped.cast(), Ordering::Release);
    }
}

/// Writes down that `what` is reached now.
pub fn mark(what: &str) {
    let Some(page) = page() else { return };
    let at = page.next.fetch_add(1, Ordering::Relaxed);
    let Some(line) = usize::try_from(at).ok().and_then(|at| page.lines.get(at)) else {
        return;
    };
    let bytes = what.as_bytes();
    for (word, at) in line.text.iter().zip((0..TEXT).step_by(8)) {
        let mut part = [0_u8; 8];
        let rest = bytes.get(at..).unwrap_or_default();
        let count = rest.len().min(8);
        part[..count].copy_from_slice(&rest[..count]);
        word.store(u64::from_le_bytes(part), Ordering::Relaxed);
    }
    line.pid.store(std::process::id().into(), Ordering::Relaxed);
    line.time.store(now(), Ordering::Release);
}

/// All that was written down so far, by time.
pub fn marks() -> Vec<Mark> {
    let Some(page) = page() else {
        return Vec::new();
    };
    let mut marks: Vec<Mark> = page
        .lines
        .iter()
        .filter_map(|line| {
            let time = line.time.load(Ordering::Acquire);
            let words = line.text.iter().map(|word| word.load(Ordering::Relaxed));
            let bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
            let text = String::from_utf8_lossy(&bytes);
            (time != 0).then(|| Mark {
                time: Duration::from_nanos(time),
                pid: u32::try_from(line.pid.load(Ordering::Relaxed)).unwrap_or(0),
                text: text.trim_end_matches('\0').to_owned(),
            })
        })
        .collect();
    marks.sort_by_key(|mark| mark.time);
    marks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_kept_in_their_order_and_no_more_than_fit() {
        mark("before it is enabled");
        assert!(marks().is_empty());
        enable();
        let long = "a text that is longer than the line has room for, by far";
        mark("one");
        mark(long);
        for _ in 0..MARKS {
            mark("more");
        }
        let all = marks();
        assert_eq!(all.len(), MARKS);
        assert_eq!(
            (all[0].text.as_str(), all[1].text.as_str()),
            ("one", &long[..TEXT])
        );
        assert!(all[0].time <= all[1].time && all[0].pid == std::process::id());
    }
}

//! Taking little memory from the system, and giving it back.

use std::alloc::{Layout, handle_alloc_error};
use std::num::NonZero;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use nix::sys::mman::{MapFlags, ProtFlags};

/// The size of a page of memory, in bytes.
pub fn page_size() -> usize {
    nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)
        .ok()
        .flatten()
        .and_then(|size| usize::try_from(size).ok())
        .filter(|size| size.is_power_of_two())
        // Of the sizes Linux knows, one that is right for every smaller one too.
        .unwrap_or(65536)
}

/// Fills the whole pages within `buffer` with zeros by giving them back to the system; the bytes
/// before the first and after the last whole page stay as they are. Memory that the system cannot
/// take back so (locked, shared) keeps its content.
///
/// For buffers whose content no longer matters.
pub fn discard(buffer: &mut [u8]) {
    let page = page_size();
    let start = buffer.as_mut_ptr();
    let skip = start.align_offset(page);
    let Some(length) = buffer.len().checked_sub(skip) else {
        return;
    };
    let length = length - length % page;
    if length == 0 {
        return;
    }
    // SAFETY: the range lies within `buffer`, which we borrow exclusively, and consists of whole
    // pages. Private anonymous pages read as zeros afterwards, others as before: any byte is a
    // valid u8. A failure changes nothing and does not matter.
    unsafe {
        libc::madvise(start.add(skip).cast(), length, libc::MADV_DONTNEED);
    }
}

/// A buffer of zeros that takes no memory before it is used, and is nobody else's before or after: an allocator would take what
/// was used before, and write its zeros.
#[derive(Debug)]
pub struct Untouched {
    start: NonNull<libc::c_void>,
    length: usize,
}

// SAFETY: nothing else points to the memory.
unsafe impl Send for Untouched {}

impl Untouched {
    /// One of `length` bytes. Ends the process where there is no address space, as allocation does.
    pub fn new(length: usize) -> Untouched {
        let length = NonZero::new(length).unwrap_or(NonZero::<usize>::MIN);
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that is there.
        let made = unsafe {
            nix::sys::mman::mmap_anonymous(
                None,
                length,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_PRIVATE,
            )
        };
        match made {
            Ok(start) => Untouched {
                start,
                length: length.get(),
            },
            Err(_) => handle_alloc_error(Layout::new::<[u8; 4096]>()),
        }
    }
}

impl Deref for Untouched {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `length` bytes are mapped there for as long as we are, and zeros or what was written to them.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.length) }
    }
}

impl DerefMut for Untouched {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and we are borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().cast(), self.length) }
    }
}

impl Drop for Untouched {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nobody borrows it any more.
        let _ = unsafe { nix::sys::mman::munmap(self.start, self.length) };
    }
}

/// Has the allocator take allocations of at least `bytes` straight from the system and give them
/// back when they are freed, now and for good (mallopt(3)).
///
/// By itself glibc raises that bound after the first such free (M_MMAP_THRESHOLD), and takes
/// memory for small allocations in such advance (M_TOP_PAD) that large ones fit in there too;
/// both then stay with the process. Does nothing with other C libraries.
pub fn set_mmap_threshold(bytes: i32) {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt has no preconditions; an absurd value is refused.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, bytes);
        libc::mallopt(libc::M_TOP_PAD, 0);
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = bytes;
}

/// Has the allocator keep a heap dense (mallopt(3)): what is freed is joined with its neighbours at once, and long things lie
/// among the others. A process that is about to be forked touches fewer pages so, and its children copy fewer. Does nothing
/// with other C libraries.
pub fn keep_dense() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt has no preconditions; an absurd value is refused.
    unsafe {
        libc::mallopt(libc::M_MXFAST, 0);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 20);
    }
}

/// Memory that a process used once and may never need again: freed memory of the heap, the part of the stack that is not in
/// use, and the pages of the program that it has run through.
///
/// For a process that is about to wait for a long time.
#[derive(Debug, Default)]
pub struct Leftovers(Vec<Map>);

impl Leftovers {
    /// Looks where they are; nothing is found where there is no `/proc`.
    pub fn find() -> Leftovers {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
        Leftovers(maps.lines().filter_map(Map::parse).collect())
    }

    /// Gives them back to the system. What of the program is needed again comes back by itself from the page cache, which
    /// has it anyway.
    pub fn give_back(&self) {
        #[cfg(target_env = "gnu")]
        // SAFETY: malloc_trim has no preconditions; it only gives back what is free.
        unsafe {
            libc::malloc_trim(0);
        }
        let here = 0_u8;
        // What is called from here on, and a signal, have room above this.
        let unused = ((&raw const here) as usize).saturating_sub(8 * 1024);
        let page = page_size();
        for map in &self.0 {
            let end = match map.kind {
                Kind::Program => map.end,
                // The stack of another thread is none of ours.
                Kind::Stack if !(map.start..map.end).contains(&unused) => continue,
                Kind::Stack => unused & !(page - 1),
            };
            if let Some(length) = end.checked_sub(map.start).filter(|length| *length > 0) {
                // SAFETY: the pages of the program are a private mapping of a file that was never written to: reading or
                // running them again brings the same bytes. On this thread's stack nothing lives below the stack pointer.
                unsafe {
                    libc::madvise(map.start as *mut libc::c_void, length, libc::MADV_DONTNEED);
                }
            }
        }
    }
}

/// How long nothing happens before a process takes it that nothing will.
const QUIET: std::time::Duration = std::time::Duration::from_millis(500);

/// Gives the [`Leftovers`] of a process back each time it has nothing to do for a while, so that one that waits keeps little
/// more than its data.
///
/// ```text
/// let limit = rest.limit(due);    // how long to wait
/// …                               // wait so long at most
/// rest.waited(due, happened);
/// ```
#[derive(Debug, Default)]
pub struct Rest {
    /// `None` until they are looked for.
    leftovers: Option<Leftovers>,
    rests: bool,
}

impl Rest {
    /// For a process that will not be able to look for its leftovers when it rests; others have a default.
    pub fn new(leftovers: Leftovers) -> Rest {
        Rest {
            leftovers: Some(leftovers),
            rests: false,
        }
    }

    /// How long to wait at most, for a process for which something is `due` then; `None` for without end.
    pub fn limit(&self, due: Option<std::time::Duration>) -> Option<std::time::Duration> {
        match (self.rests, due) {
            (true, due) => due,
            (false, None) => Some(QUIET),
            (false, Some(due)) => Some(due.min(QUIET)),
        }
    }

    /// Takes note of what waiting came to, with the same `due`: whether anything has happened.
    pub fn waited(&mut self, due: Option<std::time::Duration>, happened: bool) {
        let nothing = !happened && due.is_none_or(|due| due > QUIET);
        if nothing && !self.rests {
            self.leftovers
                .get_or_insert_with(Leftovers::find)
                .give_back();
        }
        self.rests = nothing;
    }
}

/// A mapping that pages can be given back of.
#[derive(Debug, PartialEq, Eq)]
struct Map {
    start: usize,
    end: usize,
    kind: Kind,
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    /// Code, or the constants before it, which are never written.
    Program,
    Stack,
}

impl Map {
    /// Reads a line of `/proc/self/maps` (proc_pid_maps(5)); `None` for what must stay as it is.
    fn parse(line: &str) -> Option<Map> {
        let mut fields = line.split_ascii_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let (rights, offset) = (fields.next()?, fields.next()?);
        let name = fields.nth(2)?;
        let kind = match rights {
            "r-xp" if name.starts_with('/') => Kind::Program,
            // What comes later in the file may have been written to before it was made read-only.
            "r--p" if name.starts_with('/') && offset.bytes().all(|b| b == b'0') => Kind::Program,
            "rw-p" if name == "[stack]" => Kind::Stack,
            _ => return None,
        };
        let address = |text| usize::from_str_radix(text, 16).ok();
        Some(Map {
            start: address(start)?,
            end: address(end)?,
            kind,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_comes_back_is_given_back() {
        let kind = |line| Map::parse(line).map(|map| map.kind);
        for line in [
            "00200000-00466000 r--p 00000000 fe:00 216 /x/rcon",
            "00466000-00ee8000 r-xp 00265000 fe:00 216 /x/rcon",
        ] {
            assert_eq!(kind(line), Some(Kind::Program));
        }
        for line in [
            "00ee8000-00eee000 r--p 00ce6000 fe:00 216 /x/rcon",
            "00eee000-00ef3000 rw-p 00ceb000 fe:00 216 /x/rcon",
            "00ef3000-00efb000 rw-p 00000000 00:00 0",
            "2e336000-2e37d000 rw-p 00000000 00:00 0 [heap]",
            "7fce443f0000-7fce443f2000 r-xp 00000000 00:00 0 [vdso]",
        ] {
            assert_eq!(kind(line), None);
        }
        let stack = Map::parse("7ffc861c5000-7ffc861e6000 rw-p 00000000 00:00 0 [stack]");
        assert_eq!(stack.unwrap().end, 0x7ffc_861e_6000);
    }

    #[test]
    fn what_is_untouched_is_zero() {
        let mut buffer = Untouched::new(100_000);
        assert!(buffer.len() == 100_000 && buffer.iter().all(|byte| *byte == 0));
        buffer[99_999] = 7;
        assert_eq!(
            std::thread::spawn(move || buffer[99_999]).join().unwrap(),
            7
        );
    }

    #[test]
    fn a_process_goes_on_without_its_leftovers() {
        let kept = vec![7_u8; 100_000];
        Leftovers::find().give_back();
        assert!(kept.iter().all(|byte| *byte == 7));
    }

    #[test]
    fn who_has_nothing_to_do_rests() {
        use std::time::Duration;
        let mut rest = Rest::default();
        let (soon, later) = (Duration::from_millis(1), Duration::from_secs(9));
        assert_eq!(rest.limit(None), Some(QUIET));
        assert_eq!(rest.limit(Some(soon)), Some(soon));
        rest.waited(Some(soon), false);
        assert_eq!(rest.limit(Some(later)), Some(QUIET));
        rest.waited(Some(later), false);
        assert_eq!(rest.limit(Some(later)), Some(later));
        assert_eq!(rest.limit(None), None);
        rest.waited(None, true);
        assert_eq!(rest.limit(None), Some(QUIET));
    }

    #[test]
    fn only_whole_pages_inside_are_cleared() {
        let page = page_size();
        let mut memory = vec![1u8; 16 * page];
        let skip = memory.as_ptr().align_offset(page);
        // Half a page, three pages, half a page.
        let from = skip + page / 2;
        discard(&mut memory[from..from + 4 * page]);
        assert!(memory[from..skip + page].iter().all(|byte| *byte == 1));
        assert!(
            memory[skip + page..skip + 4 * page]
                .iter()
                .all(|byte| *byte == 0)
        );
        assert!(memory[skip + 4 * page..].iter().all(|byte| *byte == 1));
        discard(&mut memory[..10]);
        discard(&mut []);
    }
}

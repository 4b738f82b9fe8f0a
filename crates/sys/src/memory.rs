//! Giving memory back to the system.

/// The size of a page of memory, in bytes.
fn page_size() -> usize {
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

#[cfg(test)]
mod tests {
    use super::*;

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

//! The bytes of the messages between a caller and the new process: numbers and texts in a row.
//!
//! Both ends are the same program, so this is about being small and total, not about ages of
//! compatibility: a reader gives `None` for whatever a writer did not write.

/// Puts a message together.
#[derive(Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    /// Add one byte.
    pub(crate) fn byte(&mut self, value: u8) {
        self.0.push(value);
    }

    /// Add a number.
    pub(crate) fn number(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// Add a text; beyond 16 KiB it is cut, so that every message fits the socket.
    pub(crate) fn text(&mut self, value: &str) {
        const MOST: usize = 16 * 1024;
        let mut end = value.len().min(MOST);
        while !value.is_char_boundary(end) {
            end -= 1;
        }
        let cut = &value.as_bytes()[..end];
        self.number(u32::try_from(cut.len()).unwrap_or(0));
        self.0.extend_from_slice(cut);
    }

    /// The message.
    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// Takes a message apart.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Start at the beginning of `bytes`.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(len)?;
        self.0 = tail;
        Some(head)
    }

    /// The next byte.
    pub(crate) fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    /// The next number.
    pub(crate) fn number(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    /// The next text.
    pub(crate) fn text(&mut self) -> Option<String> {
        let len = usize::try_from(self.number()?).ok()?;
        String::from_utf8(self.take(len)?.to_vec()).ok()
    }
}

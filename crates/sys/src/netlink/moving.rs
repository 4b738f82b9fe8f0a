//! Moving links between network namespaces, and what gets lost on the way: addresses.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::{Batch, CREATE, HEADER_LEN, NetlinkError, align};

/// What is known of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The interface index.
    pub index: u32,
    /// Whether it is up.
    pub up: bool,
}

/// An address of a link, as the kernel described it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// struct ifaddrmsg, but for the link.
    head: [u8; 4],
    /// Its attributes, but for those that are of one link or one moment.
    attributes: Vec<(u16, Vec<u8>)>,
}

/// The link of that name in the calling thread's network namespace.
///
/// # Errors
/// `ENODEV` when there is none.
pub fn link(name: &str) -> io::Result<Found> {
    let mut batch = Batch::new();
    batch.begin("find a link", libc::RTM_GETLINK, 0, &[0; 16]);
    batch.text(libc::IFLA_IFNAME, name);
    batch.end();
    let mut found = None;
    batch.ask(|body| {
        found = Some(Found {
            index: word(body, 4)?,
            up: word(body, 8)? & libc::IFF_UP as u32 != 0,
        });
        Some(())
    })?;
    found.ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))
}

/// The addresses of a link that are its own wherever it is: those without an end and with a meaning beyond the link
/// (`IFA_F_PERMANENT`, `RT_SCOPE_UNIVERSE`).
///
/// # Errors
/// When the kernel does not tell them.
pub fn addresses(index: u32) -> io::Result<Vec<Address>> {
    let mut batch = Batch::new();
    let all = libc::NLM_F_DUMP as u16;
    batch.begin("list addresses", libc::RTM_GETADDR, all, &[0; 8]);
    batch.end();
    let mut list = Vec::new();
    batch.ask(|body| {
        let head: [u8; 4] = body.get(..4)?.try_into().ok()?;
        if word(body, 4)? == index {
            let attributes = attributes(body.get(8..)?);
            let flags = attributes.iter().find(|(kind, _)| *kind == libc::IFA_FLAGS);
            let flags = flags.and_then(|(_, value)| word(value, 0));
            let lasts = flags.unwrap_or(head[2].into()) & libc::IFA_F_PERMANENT != 0;
            if lasts && head[3] == libc::RT_SCOPE_UNIVERSE {
                let passing = [libc::IFA_LABEL, libc::IFA_CACHEINFO];
                let attributes = attributes.into_iter();
                let attributes = attributes.filter(|(kind, _)| !passing.contains(kind));
                list.push(Address {
                    head,
                    attributes: attributes.collect(),
                });
            }
        }
        Some(())
    })?;
    Ok(list)
}

impl Batch {
    /// Moves a link to the network namespace `netns`, where it has the name `name`. It is down there, and without addresses.
    pub fn move_link(&mut self, index: u32, netns: BorrowedFd<'_>, name: &str) {
        let mut body = [0; 16];
        body[4..8].copy_from_slice(&index.to_ne_bytes());
        self.begin("move a link", libc::RTM_NEWLINK, 0, &body);
        self.attribute(libc::IFLA_NET_NS_FD, &netns.as_raw_fd().to_ne_bytes());
        self.text(libc::IFLA_IFNAME, name);
        self.end();
    }

    /// Gives a link an address that a link had.
    pub fn address_again(&mut self, index: u32, address: &Address) {
        let mut body = [0; 8];
        body[..4].copy_from_slice(&address.head);
        body[4..8].copy_from_slice(&index.to_ne_bytes());
        self.begin("add an address", libc::RTM_NEWADDR, CREATE, &body);
        for (kind, value) in &address.attributes {
            self.attribute(*kind, value);
        }
        self.end();
    }

    fn text(&mut self, kind: u16, text: &str) {
        self.attribute(kind, &[text.as_bytes(), &[0]].concat());
    }

    /// Sends the one request, and hands the body of each answer to `take`, which gives `None` for one that is too short.
    fn ask(&self, mut take: impl FnMut(&[u8]) -> Option<()>) -> io::Result<()> {
        let source = |error: NetlinkError| error.source;
        let socket = self.start().map_err(source)?;
        let mut buffer = vec![0; 32 * 1024];
        loop {
            let flags = rustix::net::RecvFlags::empty();
            let (length, _) = rustix::net::recv(&socket, &mut buffer[..], flags)?;
            let mut bytes = &buffer[..length];
            while !bytes.is_empty() {
                let short = || io::Error::from_raw_os_error(libc::EPROTO);
                let length = word(bytes, 0).ok_or_else(short)? as usize;
                let body = bytes.get(HEADER_LEN..length).ok_or_else(short)?;
                let kinds = word(bytes, 4).ok_or_else(short)?.to_ne_bytes();
                let kind = u16::from_ne_bytes([kinds[0], kinds[1]]);
                let more = u16::from_ne_bytes([kinds[2], kinds[3]]) & libc::NLM_F_MULTI as u16;
                match i32::from(kind) {
                    libc::NLMSG_DONE => return Ok(()),
                    libc::NLMSG_ERROR => {
                        let code = word(body, 0).ok_or_else(short)?.cast_signed();
                        return match code {
                            0 => Ok(()),
                            code => Err(io::Error::from_raw_os_error(code.saturating_neg())),
                        };
                    }
                    _ => take(body).ok_or_else(short)?,
                }
                if more == 0 {
                    return Ok(());
                }
                bytes = bytes.get(align(length)..).unwrap_or(&[]);
            }
        }
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let word: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(u32::from_ne_bytes(word))
}

fn attributes(mut bytes: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let mut list = Vec::new();
    while let Some(head) = word(bytes, 0) {
        let head = head.to_ne_bytes();
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let Some(value) = bytes.get(4..length) else {
            break;
        };
        list.push((u16::from_ne_bytes([head[2], head[3]]), value.to_vec()));
        bytes = bytes.get(align(length)..).unwrap_or(&[]);
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_their_addresses_are_found() {
        let lo = link("lo").unwrap();
        assert_eq!(lo.index, super::super::LOOPBACK);
        assert_eq!(
            link("no-such-link").unwrap_err().raw_os_error(),
            Some(libc::ENODEV)
        );
        // Those of loopback mean nothing elsewhere.
        assert_eq!(addresses(lo.index).unwrap(), []);
    }

    #[test]
    fn attributes_are_taken_apart_and_never_beyond_the_end() {
        let mut batch = Batch::new();
        batch.begin("x", 0, 0, &[]);
        batch.attribute(1, &[1, 2, 3]);
        batch.attribute(2, &[4]);
        let bytes = &batch.bytes[HEADER_LEN..];
        let both = [(1, vec![1, 2, 3]), (2, vec![4])];
        assert_eq!(attributes(bytes), both);
        assert_eq!(attributes(&bytes[..10]), both[..1]);
        assert_eq!(attributes(&[0, 0, 0, 0, 9]), []);
        assert_eq!(attributes(&[3, 0, 0, 0, 9]), []);
    }
}

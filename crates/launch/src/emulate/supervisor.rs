//! The process that answers.

use std::collections::HashMap;
use std::ffi::CString;
use std::io;
use std::os::fd::AsFd;

use rcon_sys::notify::{self, Answer, Call, Listener};
use rcon_sys::owner::{Device, TrueOwner};
use rustix::fs::{FileType, Mode, OFlags, mkdirat, mknodat, openat, symlinkat};
use rustix::io::Errno;

use super::Powers;
use super::calls::{self, At, Kind, Op};
use super::files::{self, Files, Meant};
use super::identity::Identity;
use super::locate::{Callers, Named, Places, pidfd};
use super::table::Table;

/// The most groups of a process (NGROUPS_MAX).
const MAX_GROUPS: u64 = 65536;

/// Answers the calls of a container.
pub(super) struct Supervisor {
    pub(super) listener: Listener,
    pub(super) places: Places,
    pub(super) callers: Callers,
    pub(super) table: Table,
    pub(super) files: Files,
    pub(super) powers: Powers,
    /// Executions that give other ids and of which it is not known yet whether they succeeded:
    /// who it was before, and which file it should be now.
    pub(super) executing: HashMap<i32, (Identity, (u64, u64))>,
}

/// What to say, when it has not been said already.
type Said = Option<Answer>;

impl Supervisor {
    /// Answer until nobody is left who could ask.
    pub(super) fn run(mut self) -> io::Result<()> {
        while let Some(call) = self.listener.next()? {
            let said = match calls::read(&call) {
                Some(op) => self.answer(&call, op),
                None => Ok(Some(Answer::Continue)),
            };
            match said {
                Ok(Some(answer)) => self.listener.answer(&call, answer),
                Ok(None) => {}
                Err(error) => {
                    let errno = error.raw_os_error().unwrap_or(libc::EIO);
                    self.listener.answer(&call, Answer::Error(errno));
                }
            }
        }
        Ok(())
    }

    fn answer(&mut self, call: &Call, op: Op) -> io::Result<Said> {
        let thread = call.thread;
        if !self.executing.is_empty() {
            self.settle(thread)?;
        }
        match op {
            Op::Stat(at, to) => self.stat(call, &at, |file, owner| {
                files::tell(thread, file, to, owner)
            }),
            Op::Statx(at, flags, mask, to) => self.stat(call, &at, |file, owner| {
                files::tell_x(thread, file, (flags, mask, to), owner)
            }),
            Op::Chown(at, uid, gid) => self.chown(call, &at, (uid, gid)),
            Op::Create(at, flags, mode) => self.create(call, &at, flags, mode),
            Op::Mkdir(at, mode) => {
                self.make(call, &at, FileType::Directory, |parent, name, mask| {
                    mkdirat(parent, name, Mode::from_raw_mode(mode & 0o1777 & !mask))
                })
            }
            Op::Symlink(text, at) => {
                let mut buffer = [0; 4096];
                if self.table.of(thread)?.is_root() && !self.files.notes_all() {
                    return Ok(Some(Answer::Continue));
                }
                let len = notify::read_text(thread, text, &mut buffer)?;
                self.make(call, &at, FileType::Symlink, |parent, name, _| {
                    symlinkat(&buffer[..len], parent, name)
                })
            }
            Op::Mknod(at, mode, number) => self.mknod(call, &at, mode, number),
            Op::List(at, to, room) => self.list(call, &at, to, room),
            Op::Execute(at) => self.execute(thread, &at),
            Op::Limit(old) => {
                if old != 0 {
                    notify::write_memory(thread, old, &[0xff; 16])?;
                }
                Ok(Some(Answer::Value(0)))
            }
            Op::Keep(keeps) => {
                let who = self.table.of(thread)?;
                let new = Identity {
                    keeps,
                    ..who.clone()
                };
                self.turn_into(thread, &who, new)?;
                // The kernel's own capabilities want to know too.
                Ok(Some(Answer::Continue))
            }
            Op::Bind => {
                let who = self.table.of(thread)?;
                let new = Identity {
                    bound: true,
                    ..who.clone()
                };
                self.turn_into(thread, &who, new)?;
                Ok(Some(Answer::Continue))
            }
            Op::Peer(fd, to, len) => Ok(Some(match self.peer(thread, fd, to, len) {
                Ok(()) => Answer::Value(0),
                Err(_) => Answer::Continue,
            })),
            Op::NewRoot => {
                self.places.roots_differ = true;
                Ok(Some(Answer::Continue))
            }
            Op::Get(kind, effective) => {
                let four = self.table.of(thread)?.of(kind);
                let id = if effective { four.effective } else { four.real };
                Ok(Some(Answer::Value(id.into())))
            }
            Op::GetAll(kind, to) => {
                let four = self.table.of(thread)?.of(kind);
                for (to, id) in to.into_iter().zip([four.real, four.effective, four.saved]) {
                    notify::write_memory(thread, to, &id.to_ne_bytes())?;
                }
                Ok(Some(Answer::Value(0)))
            }
            Op::GetGroups(count, to) => self.get_groups(thread, count, to),
            Op::SetGroups(count, from) => self.set_groups(thread, count, from),
            Op::SetFs(kind, id) => {
                let who = self.table.of(thread)?;
                let (old, powerful) = (who.of(kind), self.may_change(&who, kind));
                self.turn_into(thread, &who, who.with(kind, old.set_fs(id, powerful)))?;
                Ok(Some(Answer::Value(old.fs.into())))
            }
            Op::Set(kind, id) => self.change(thread, kind, |four, powerful| {
                (id != u32::MAX).then(|| four.set(id, powerful))
            }),
            Op::SetTwo(kind, real, effective) => self.change(thread, kind, |four, powerful| {
                Some(four.set_two(real, effective, powerful))
            }),
            Op::SetAll(kind, ids) => self.change(thread, kind, |four, powerful| {
                Some(four.set_all(ids, powerful))
            }),
        }
    }

    fn may_change(&self, who: &Identity, kind: Kind) -> bool {
        who.has_power()
            && match kind {
                Kind::User => self.powers.set_uid,
                Kind::Group => self.powers.set_gid,
            }
    }

    fn turn_into(&mut self, thread: i32, old: &Identity, new: Identity) -> io::Result<()> {
        match *old == new {
            true => Ok(()),
            false => self.table.set(thread, &new),
        }
    }

    /// Change ids: the rule says `None` for what makes no sense, and `Some(None)` for what is not
    /// permitted.
    fn change(
        &mut self,
        thread: i32,
        kind: Kind,
        rule: impl FnOnce(super::identity::Four, bool) -> Option<Option<super::identity::Four>>,
    ) -> io::Result<Said> {
        let who = self.table.of(thread)?;
        let new = rule(who.of(kind), self.may_change(&who, kind));
        let four = new.ok_or(Errno::INVAL)?.ok_or(Errno::PERM)?;
        self.turn_into(thread, &who, who.with(kind, four))?;
        Ok(Some(Answer::Value(0)))
    }

    fn get_groups(&mut self, thread: i32, count: i32, to: u64) -> io::Result<Said> {
        let groups = self.table.of(thread)?.groups;
        let len = i32::try_from(groups.len()).unwrap_or(i32::MAX);
        if count != 0 {
            if count < len {
                return Err(Errno::INVAL.into());
            }
            let bytes: Vec<u8> = groups.iter().flat_map(|id| id.to_ne_bytes()).collect();
            if !bytes.is_empty() {
                notify::write_memory(thread, to, &bytes)?;
            }
        }
        Ok(Some(Answer::Value(len.into())))
    }

    fn set_groups(&mut self, thread: i32, count: u64, from: u64) -> io::Result<Said> {
        let who = self.table.of(thread)?;
        if !self.may_change(&who, Kind::Group) {
            return Err(Errno::PERM.into());
        }
        if count > MAX_GROUPS {
            return Err(Errno::INVAL.into());
        }
        let mut bytes = vec![0; count as usize * 4];
        if !bytes.is_empty() && notify::read_memory(thread, from, &mut bytes)? != bytes.len() {
            return Err(Errno::FAULT.into());
        }
        let words = bytes.chunks_exact(4);
        let groups = words.map(|word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
        let new = Identity {
            groups: groups.collect(),
            ..who.clone()
        };
        self.turn_into(thread, &who, new)?;
        Ok(Some(Answer::Value(0)))
    }

    /// Status: ours where something is noted, else the kernel's.
    fn stat(
        &mut self,
        call: &Call,
        at: &At,
        tell: impl FnOnce(Meant<'_>, TrueOwner) -> io::Result<()>,
    ) -> io::Result<Said> {
        // Whatever is wrong with the path, the kernel says it best.
        let Ok(name) = Named::read(call.thread, at) else {
            return Ok(Some(Answer::Continue));
        };
        // What is open is looked at without asking for its name.
        if let Some(fd) = name.copy(&mut self.callers) {
            let Ok(Some(owner)) = self.files.noted_on(fd.as_fd()) else {
                return Ok(Some(Answer::Continue));
            };
            if !self.listener.is_current(call) {
                return Ok(None);
            }
            tell(Meant::Open(fd.as_fd()), owner)?;
            return Ok(Some(Answer::Value(0)));
        }
        let _root = self.places.enter(call.thread)?;
        let owner = match name.process() {
            Some(limits) => self.table.of_limits(&limits),
            None => self.files.noted(&name).ok().flatten(),
        };
        let Some(owner) = owner else {
            return Ok(Some(Answer::Continue));
        };
        if !self.listener.is_current(call) {
            return Ok(None);
        }
        tell(Meant::Name(&name), owner)?;
        Ok(Some(Answer::Value(0)))
    }

    fn chown(&mut self, call: &Call, at: &At, ids: (u32, u32)) -> io::Result<Said> {
        let who = self.table.of(call.thread)?;
        let powerful = who.has_power() && self.powers.chown;
        let name = Named::read(call.thread, at)?;
        let _root = self.places.enter(call.thread)?;
        let fd = name.pin_open(&mut self.callers)?;
        if !self.listener.is_current(call) {
            return Ok(None);
        }
        self.files.chown(fd.as_fd(), ids, &who, powerful)?;
        Ok(Some(Answer::Value(0)))
    }

    /// Make something for somebody who is not root; root's is the kernel's to make.
    fn make(
        &mut self,
        call: &Call,
        at: &At,
        kind: FileType,
        make: impl FnOnce(&std::os::fd::OwnedFd, &[u8], u32) -> rustix::io::Result<()>,
    ) -> io::Result<Said> {
        let who = self.table.of(call.thread)?;
        if who.is_root() && !self.files.notes_all() {
            return Ok(Some(Answer::Continue));
        }
        let name = Named::read(call.thread, at)?;
        let _root = self.places.enter(call.thread)?;
        let Some((parent, last)) = name.split()? else {
            return Ok(Some(Answer::Continue));
        };
        if files::exists(parent.as_fd(), &last) {
            return Err(Errno::EXIST.into());
        }
        let owner = self.files.owner_of_new(parent.as_fd(), &who)?;
        let mask = files::umask(call.thread);
        if !self.listener.is_current(call) {
            return Ok(None);
        }
        make(&parent, &last, mask)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = openat(&parent, &last[..], flags, Mode::empty())?;
        self.files.note(made.as_fd(), kind, owner)?;
        Ok(Some(Answer::Value(0)))
    }

    fn create(&mut self, call: &Call, at: &At, flags: i32, mode: u32) -> io::Result<Said> {
        let who = self.table.of(call.thread)?;
        let root = who.is_root();
        if root && !self.files.watch_creation() {
            return Ok(Some(Answer::Continue));
        }
        let name = Named::read(call.thread, at)?;
        let entered = self.places.enter(call.thread)?;
        let wanted = OFlags::from_bits_retain(flags.cast_unsigned());
        let close_on_exec = wanted.contains(OFlags::CLOEXEC);
        if let Ok(Some(device)) = self.files.noted(&name).map(|owner| owner?.device) {
            drop(entered);
            let fd = files::real_device(device, wanted)?;
            self.listener.give(call, fd.as_fd(), close_on_exec)?;
            return Ok(None);
        }
        if root && !self.files.notes_all() {
            return Ok(Some(Answer::Continue));
        }
        // What cannot be made here the kernel refuses in its own words.
        let Ok(Some((parent, last))) = name.split() else {
            return Ok(Some(Answer::Continue));
        };
        if files::exists(parent.as_fd(), &last) {
            return Ok(Some(Answer::Continue));
        }
        let owner = self.files.owner_of_new(parent.as_fd(), &who)?;
        let mode = Mode::from_raw_mode(mode & 0o7777 & !files::umask(call.thread));
        if !self.listener.is_current(call) {
            return Ok(None);
        }
        let new = wanted | OFlags::EXCL | OFlags::CLOEXEC;
        let Ok(fd) = openat(&parent, &last[..], new, mode) else {
            return Ok(Some(Answer::Continue));
        };
        self.files.note(fd.as_fd(), FileType::RegularFile, owner)?;
        self.listener.give(call, fd.as_fd(), close_on_exec)?;
        Ok(None)
    }

    fn mknod(&mut self, call: &Call, at: &At, mode: u32, number: u64) -> io::Result<Said> {
        let kind = FileType::from_raw_mode(mode);
        let block = kind == FileType::BlockDevice;
        // The number that marks a deletion in overlay is for everybody to make.
        if !block && (kind != FileType::CharacterDevice || number == 0) {
            let kind = match mode & libc::S_IFMT {
                0 => FileType::RegularFile,
                _ => kind,
            };
            return self.make(call, at, kind, |parent, name, mask| {
                let mode = Mode::from_raw_mode(mode & 0o7777 & !mask);
                mknodat(parent, name, kind, mode, number)
            });
        }
        let who = self.table.of(call.thread)?;
        // No privilege of the kernel's stands behind it, so none is asked for.
        if !who.has_power() {
            return Err(Errno::PERM.into());
        }
        let name = Named::read(call.thread, at)?;
        let _root = self.places.enter(call.thread)?;
        let (parent, last) = name.split()?.ok_or(Errno::EXIST)?;
        let mut owner = self.files.owner_of_new(parent.as_fd(), &who)?;
        // Arguments carry the number as the kernel packs it, which is what status has too.
        owner.device = Some(Device { block, number });
        let mode = Mode::from_raw_mode(mode & 0o777 & !files::umask(call.thread));
        if !self.listener.is_current(call) {
            return Ok(None);
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let made = openat(&parent, &last[..], flags, mode)?;
        self.files
            .note(made.as_fd(), FileType::RegularFile, owner)?;
        Ok(Some(Answer::Value(0)))
    }

    fn list(&mut self, call: &Call, at: &At, to: u64, room: u64) -> io::Result<Said> {
        let Ok(name) = Named::read(call.thread, at) else {
            return Ok(Some(Answer::Continue));
        };
        let _root = self.places.enter(call.thread)?;
        let Ok(Some(names)) = files::names_without_ours(&name) else {
            return Ok(Some(Answer::Continue));
        };
        if !self.listener.is_current(call) {
            return Ok(None);
        }
        if room != 0 {
            if room < names.len() as u64 {
                return Err(Errno::RANGE.into());
            }
            if !names.is_empty() {
                notify::write_memory(call.thread, to, &names)?;
            }
        }
        Ok(Some(Answer::Value(names.len() as i64)))
    }

    /// Tell `thread` who is at the other end of its socket `fd` (unix(7), SO_PEERCRED).
    fn peer(&mut self, thread: i32, fd: i32, to: u64, len: u64) -> io::Result<()> {
        let pidfd = pidfd(thread)?;
        let socket = notify::copy_fd(pidfd.as_fd(), fd)?;
        let peer = rustix::net::sockopt::socket_peercred(&socket)?;
        let number = peer.pid.as_raw_nonzero().get();
        let who = self.table.of_any(number)?;
        if !peer.uid.is_root() || who.is_root() {
            // As the kernel has it.
            return Err(Errno::INVAL.into());
        }
        let status = std::fs::read(format!("{number}/status"))?;
        let status = String::from_utf8_lossy(&status);
        let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        let inside = ids.and_then(|ids| ids.split_ascii_whitespace().last()?.parse::<u32>().ok());
        let words = [
            inside.ok_or(Errno::SRCH)?,
            who.user.effective,
            who.group.effective,
        ];
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        // Who has room for less is answered by the kernel, which cuts it off.
        let mut room = [0; 4];
        notify::read_memory(thread, len, &mut room)?;
        if i32::from_ne_bytes(room) < 12 {
            return Err(Errno::INVAL.into());
        }
        notify::write_memory(thread, to, &bytes)?;
        notify::write_memory(thread, len, &12_u32.to_ne_bytes())
    }

    /// An execution, which may give other ids. That it fails is only known afterwards.
    fn execute(&mut self, thread: i32, at: &At) -> io::Result<Said> {
        let who = self.table.of(thread)?;
        let Ok(name) = Named::read(thread, at) else {
            return Ok(Some(Answer::Continue));
        };
        let entered = self.places.enter(thread)?;
        // Most are root's, of what gives nothing.
        if who == Identity::default() && !files::gives_ids(&name) {
            return Ok(Some(Answer::Continue));
        }
        let gain = self.files.gain(&name, &who);
        drop(entered);
        if let Ok(gain) = gain {
            let new = who.executing(gain.uid, gain.gid);
            if new != who {
                self.table.set(thread, &new)?;
                self.executing.insert(thread, (who, gain.file));
            }
        }
        Ok(Some(Answer::Continue))
    }

    /// See whether an execution that was let go has come to be.
    fn settle(&mut self, thread: i32) -> io::Result<()> {
        let Some((before, file)) = self.executing.remove(&thread) else {
            return Ok(());
        };
        let program = CString::new(format!("{thread}/exe"))?;
        let now = notify::status(&program, 0)?;
        if (now.st_dev, now.st_ino) != file {
            self.table.set(thread, &before)?;
        }
        // Those that ended before they asked anything leave theirs behind.
        if self.executing.len() > 1024 {
            self.executing
                .retain(|thread, _| notify::mark(*thread).is_ok());
        }
        Ok(())
    }
}

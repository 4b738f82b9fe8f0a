//! Whom a process is to itself: user and group ids, and the rules of their changes
//! (credentials(7), setresuid(2), setfsuid(2)).

use super::calls::Kind;

/// "Leave it as it is."
const SAME: u32 = u32::MAX;

/// The four ids of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Four {
    /// Real.
    pub(super) real: u32,
    /// Effective.
    pub(super) effective: u32,
    /// Saved.
    pub(super) saved: u32,
    /// For files.
    pub(super) fs: u32,
}

/// All ids of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Identity {
    /// Users.
    pub(super) user: Four,
    /// Groups.
    pub(super) group: Four,
    /// Supplementary groups.
    pub(super) groups: Vec<u32>,
    /// A change to somebody else shall not take the power of root (`PR_SET_KEEPCAPS`).
    pub(super) keeps: bool,
    /// It did not.
    pub(super) kept: bool,
    /// No execution gives it other ids (`PR_SET_NO_NEW_PRIVS`). What was so before the container
    /// was made is not meant: the ids that are made up are no privileges of anybody's around.
    pub(super) bound: bool,
}

impl Four {
    /// One id for everything.
    pub(super) fn all(id: u32) -> Self {
        Self {
            real: id,
            effective: id,
            saved: id,
            fs: id,
        }
    }

    fn has(self, id: u32) -> bool {
        [self.real, self.effective, self.saved].contains(&id)
    }

    /// setuid(2); `None` is not permitted.
    pub(super) fn set(self, id: u32, powerful: bool) -> Option<Self> {
        match (powerful, id == self.real || id == self.saved) {
            (true, _) => Some(Self::all(id)),
            (false, true) => Some(Self {
                effective: id,
                fs: id,
                ..self
            }),
            (false, false) => None,
        }
    }

    /// setreuid(2).
    pub(super) fn set_two(self, real: u32, effective: u32, powerful: bool) -> Option<Self> {
        let real_good = real == SAME || [self.real, self.effective].contains(&real);
        let effective_good = effective == SAME || self.has(effective);
        if !(powerful || real_good && effective_good) {
            return None;
        }
        let mut new = self;
        if real != SAME {
            new.real = real;
        }
        if effective != SAME {
            new.effective = effective;
        }
        if real != SAME || (effective != SAME && effective != self.real) {
            new.saved = new.effective;
        }
        new.fs = new.effective;
        Some(new)
    }

    /// setresuid(2).
    pub(super) fn set_all(self, ids: [u32; 3], powerful: bool) -> Option<Self> {
        if !powerful && !ids.iter().all(|id| *id == SAME || self.has(*id)) {
            return None;
        }
        let or = |id: u32, old: u32| if id == SAME { old } else { id };
        let effective = or(ids[1], self.effective);
        Some(Self {
            real: or(ids[0], self.real),
            effective,
            saved: or(ids[2], self.saved),
            fs: effective,
        })
    }

    /// setfsuid(2), which never fails.
    pub(super) fn set_fs(self, id: u32, powerful: bool) -> Self {
        match id != SAME && (powerful || self.has(id) || self.fs == id) {
            true => Self { fs: id, ..self },
            false => self,
        }
    }
}

impl Identity {
    /// Of one kind.
    pub(super) fn of(&self, kind: Kind) -> Four {
        match kind {
            Kind::User => self.user,
            Kind::Group => self.group,
        }
    }

    /// With other ids of one kind.
    pub(super) fn with(&self, kind: Kind, four: Four) -> Self {
        let mut new = self.clone();
        match kind {
            Kind::User => {
                // capabilities(7), "Effect of user ID changes on capabilities".
                let was = self.kept || self.user.has(0);
                new.kept = was && self.keeps && !four.has(0);
                new.user = four;
            }
            Kind::Group => new.group = four,
        }
        new
    }

    /// Root in every way that matters here.
    pub(super) fn is_root(&self) -> bool {
        self.user == Four::default() && self.group == Four::default()
    }

    /// Whether it has the power of root.
    pub(super) fn has_power(&self) -> bool {
        self.user.effective == 0 || self.kept
    }

    /// Whether one of the groups is this.
    pub(super) fn is_in(&self, gid: u32) -> bool {
        self.group.fs == gid || self.group.effective == gid || self.groups.contains(&gid)
    }

    /// After the execution of a file with these owners, where its mode says to take them on.
    pub(super) fn executing(&self, uid: Option<u32>, gid: Option<u32>) -> Self {
        let after = |four: Four, id: Option<u32>| {
            let effective = id.unwrap_or(four.effective);
            Four {
                effective,
                saved: effective,
                fs: effective,
                ..four
            }
        };
        Self {
            user: after(self.user, uid),
            group: after(self.group, gid),
            groups: self.groups.clone(),
            keeps: false,
            kept: false,
            bound: self.bound,
        }
    }

    /// As a line of the table.
    pub(super) fn line(&self) -> String {
        let mut line = String::new();
        for four in [self.user, self.group] {
            for id in [four.real, four.effective, four.saved, four.fs] {
                line.push_str(&format!("{id} "));
            }
        }
        let groups: Vec<String> = self.groups.iter().map(u32::to_string).collect();
        line.push_str(&groups.join(","));
        for flag in [self.keeps, self.kept, self.bound] {
            line.push_str(if flag { " 1" } else { " 0" });
        }
        line
    }

    /// From a line of the table.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let mut four = || {
            let mut next = || words.next()?.parse().ok();
            Some(Four {
                real: next()?,
                effective: next()?,
                saved: next()?,
                fs: next()?,
            })
        };
        let (user, group) = (four()?, four()?);
        let list = words.next()?;
        let groups = match list {
            "" => Vec::new(),
            list => list
                .split(',')
                .map(|id| id.parse().ok())
                .collect::<Option<_>>()?,
        };
        let mut flag = || words.next().map(|word| word == "1");
        Some(Self {
            user,
            group,
            groups,
            keeps: flag()?,
            kept: flag()?,
            // Earlier versions have no such word.
            bound: flag().unwrap_or(false),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn giving_up_is_for_good() {
        let root = Four::default();
        let user = root.set(33, true).unwrap();
        assert_eq!(user, Four::all(33));
        assert_eq!(user.set(0, false), None);
        assert_eq!(user.set_all([SAME, 0, SAME], false), None);
        assert_eq!(user.set_two(SAME, 0, false), None);
        assert_eq!(user.set_fs(0, false), user);
        assert_eq!(user.set_all([33, SAME, 33], false), Some(user));
    }

    #[test]
    fn coming_back_needs_a_saved_id() {
        // As apt and sshd do for a while: seteuid(2).
        let down = Four::default().set_all([SAME, 100, SAME], true).unwrap();
        assert_eq!((down.real, down.effective, down.fs), (0, 100, 100));
        assert_eq!(down.set_all([SAME, 0, SAME], false), Some(Four::default()));
        // A set-user-id program of somebody else.
        let mut four = Four::all(1000);
        four.effective = 7;
        four.saved = 7;
        let swapped = four.set_two(7, 1000, false).unwrap();
        assert_eq!((swapped.real, swapped.effective), (7, 1000));
        assert_eq!(swapped.saved, 1000);
    }

    #[test]
    fn power_is_kept_by_those_who_ask() {
        let mut root = Identity::default();
        assert!(!root.with(Kind::User, Four::all(5)).has_power());
        root.keeps = true;
        let user = root.with(Kind::User, Four::all(5));
        assert!(user.has_power());
        assert!(!user.executing(None, None).has_power());
    }

    #[test]
    fn lines_come_back() {
        let identity = Identity {
            user: Four {
                real: 1,
                effective: 2,
                saved: 3,
                fs: 4,
            },
            group: Four::all(9),
            groups: vec![5, 70_000],
            keeps: false,
            kept: true,
            bound: true,
        };
        assert_eq!(identity.line(), "1 2 3 4 9 9 9 9 5,70000 0 1 1");
        assert_eq!(Identity::parse(&identity.line()), Some(identity));
        let root = Identity::default();
        assert_eq!(Identity::parse(&root.line()), Some(root));
        assert_eq!(
            Identity::parse("0 0 0 0 0 0 0 0  0 0"),
            Some(Identity::default())
        );
        assert_eq!(Identity::parse("1 2 3"), None);
        assert_eq!(Identity::parse("1 2 3 4 5 6 7 8 x 0 0"), None);
    }

    #[test]
    fn execution_takes_on_the_owner() {
        let user = Identity {
            user: Four::all(1000),
            ..Identity::default()
        };
        let su = user.executing(Some(0), None);
        assert_eq!(
            (su.user.real, su.user.effective, su.user.saved),
            (1000, 0, 0)
        );
        assert_eq!(user.executing(None, None), user);
    }
}

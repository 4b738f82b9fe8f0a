//! The numbers of the system calls, by name.

mod aarch64;
mod common;
mod i386;
mod x86_64;

/// An architecture as a filter sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// x86-64, and x32 beside it.
    X86_64,
    /// 32-bit x86.
    I386,
    /// 64-bit Arm.
    Aarch64,
}

impl Machine {
    /// The value of the filter's `arch` field (`AUDIT_ARCH_*` in linux/audit.h).
    pub fn audit(self) -> u32 {
        match self {
            Self::X86_64 => 0xc000_003e,
            Self::I386 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
        }
    }

    /// The number of the call `name`, if this architecture has it.
    pub fn number(self, name: &str) -> Option<u32> {
        let own = match self {
            Self::X86_64 => x86_64::TABLE,
            Self::I386 => i386::TABLE,
            Self::Aarch64 => aarch64::TABLE,
        };
        find(own, name).or_else(|| find(common::TABLE, name))
    }
}

/// What this program was built for.
#[cfg(target_arch = "x86_64")]
pub const NATIVE: Machine = Machine::X86_64;
/// What this program was built for.
#[cfg(target_arch = "aarch64")]
pub const NATIVE: Machine = Machine::Aarch64;

fn find(table: &[(&str, u32)], name: &str) -> Option<u32> {
    let index = table.binary_search_by_key(&name, |(name, _)| name).ok()?;
    table.get(index).map(|(_, number)| *number)
}

/// All names that `machine` knows.
#[cfg(test)]
pub(crate) fn names(machine: Machine) -> impl Iterator<Item = &'static str> {
    let own = match machine {
        Machine::X86_64 => x86_64::TABLE,
        Machine::I386 => i386::TABLE,
        Machine::Aarch64 => aarch64::TABLE,
    };
    own.iter().chain(common::TABLE).map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_sorted() {
        for table in [x86_64::TABLE, i386::TABLE, aarch64::TABLE, common::TABLE] {
            assert!(table.is_sorted_by(|left, right| left.0 < right.0));
        }
    }

    #[test]
    fn numbers_agree_with_the_kernels_tables() {
        assert_eq!(Machine::X86_64.number("execve"), Some(59));
        assert_eq!(Machine::X86_64.number("clone3"), Some(435));
        assert_eq!(Machine::I386.number("socketcall"), Some(102));
        assert_eq!(Machine::Aarch64.number("execve"), Some(221));
        assert_eq!(Machine::Aarch64.number("open"), None);
    }
}

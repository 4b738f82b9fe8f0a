//! A scenario runs once for each kind of user, each time in a world of its own that must be empty again at the end.

use super::{Mode, Rcon, lab, skip};

/// Makes the tests of a module's scenarios: `scenarios!(a, b)` gives `a::with_many_ids`, `a::with_one_id`, ….
macro_rules! scenarios {
    ($($name:ident),+ $(,)?) => {$(
        mod $name {
            #[test]
            fn with_many_ids() {
                $crate::lab::scenario::run($crate::lab::Mode::ManyIds, super::$name);
            }

            #[test]
            fn with_one_id() {
                $crate::lab::scenario::run($crate::lab::Mode::OneId, super::$name);
            }
        }
    )+};
}
pub(crate) use scenarios;

/// Runs one scenario as the user of `mode`. An ordinary user has one mode; the scenarios of the other are not his.
pub fn run(mode: Mode, scenario: fn(&mut Rcon)) {
    let Some(user) = lab().user(mode) else { return };
    if let Err(reason) = lab().images("busybox") {
        return skip(&reason);
    }
    let mut rcon = Rcon::new(mode, user);
    scenario(&mut rcon);
    rcon.finish();
}

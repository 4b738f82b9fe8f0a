//! The differences that are known: `differences.txt`, a line each, `PEER | OF | CASE | LINE | WHY`. OF is whose bundles
//! (`root`, `users`, `all`), CASE the case or `*`, LINE what the differing line holds, with its `- ` (theirs) or `+ ` (ours)
//! where that is said. A peer with `?` does not differ each time.

const LIST: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../tests/e2e/peers/differences.txt"
);

/// One of them.
pub struct Known {
    peer: String,
    case: String,
    /// What the differing line holds.
    pub line: String,
    /// Whether the peer differs each time.
    always: bool,
}

impl Known {
    /// Whether it is of this peer in this case.
    pub fn is_of(&self, peer: &str, case: &str) -> bool {
        self.peer == peer && (self.case == "*" || self.case == case)
    }

    /// Whether it must be there: it is of one case, and of each time.
    pub fn is_certain(&self) -> bool {
        self.always && self.case != "*"
    }

    /// Whether it is this line.
    pub fn holds(&self, line: &str) -> bool {
        line.contains(&self.line)
    }
}

/// All that are of the bundles of root, or of others.
pub fn of(root: bool) -> Vec<Known> {
    let text = std::fs::read_to_string(LIST).unwrap();
    let mut all = Vec::new();
    for line in text.lines() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let fields: Vec<&str> = line.split(" | ").collect();
        let [peer, whose, case, line, why] = fields[..] else {
            panic!("not five fields: {line}");
        };
        assert!(!why.trim().is_empty(), "no reason: {line}");
        let fits = match whose {
            "all" => true,
            "root" => root,
            "users" => !root,
            other => panic!("whose is {other}?"),
        };
        if fits {
            let [peer, case, line] = [peer, case, line].map(str::to_owned);
            let (peer, always) = match peer.strip_suffix('?') {
                Some(peer) => (peer.to_owned(), false),
                None => (peer, true),
            };
            all.push(Known {
                peer,
                case,
                line,
                always,
            });
        }
    }
    all
}

//! Paths inside a container: text, since nothing of the container exists yet.

/// Makes an absolute path out of what was given: no `.`, no `..`, no double slash, relative to the root.
///
/// It works on the text alone. Symbolic links are followed later, inside the root file system, by whoever opens the path.
pub(crate) fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::clean;

    #[test]
    fn cleans() {
        for (given, want) in [
            ("/", "/"),
            ("", "/"),
            ("/a/../b//c/.", "/b/c"),
            ("a/b", "/a/b"),
            ("/../../x", "/x"),
            ("/a/", "/a"),
        ] {
            assert_eq!(clean(given), want);
        }
    }
}

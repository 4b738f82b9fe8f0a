//! Lays the functions of a start side by side in the release program, in the order in which they are called.
//!
//! Otherwise they are strewn over all of it, and each process that is forked maps hundreds of pages it has no use for. The
//! list is made by `tests/bench/order`; a name that another compiler does not know is passed over.

use std::env;
use std::path::Path;

fn main() {
    let told = |name: &str| env::var(name).unwrap_or_default();
    let list = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(format!("order/{}.txt", told("CARGO_CFG_TARGET_ARCH")));
    println!("cargo:rerun-if-changed={}", list.display());
    println!("cargo:rerun-if-changed=build.rs");
    // Of the linkers only LLD takes such a list; it is what rustc comes with and uses, unless another is asked for.
    let flags = told("CARGO_ENCODED_RUSTFLAGS");
    let asks = |flag: &str| {
        ["linker", "link-self-contained"]
            .iter()
            .any(|name| flag.trim_start_matches("-C").starts_with(name))
    };
    let usual_linker = told("TARGET") == "x86_64-unknown-linux-gnu"
        && told("RUSTC_LINKER").is_empty()
        && !flags.split('\x1f').any(asks);
    if told("PROFILE") == "release" && usual_linker && list.exists() {
        println!("cargo:rustc-link-arg-bins=-Wl,--no-warn-symbol-ordering");
        println!(
            "cargo:rustc-link-arg-bins=-Wl,--symbol-ordering-file={}",
            list.display()
        );
    }
}

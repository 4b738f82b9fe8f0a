//! Unpack an archive into a store as a layer, and say how fast that was.
//!
//! ```text
//! cargo run --release -p rcon-store --example unpack -- STORE LAYER.tar[.gz|.zst]
//! ```

use std::error::Error;
use std::fs::File;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use rcon_store::{Store, decompress};
use rcon_sys::ids::IdMaps;
use rcon_sys::userns;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [root, layer] = &arguments[..] else {
        eprintln!("usage: unpack STORE LAYER");
        return ExitCode::from(2);
    };
    let maps = IdMaps::detect();
    let ran = userns::run(&maps, |out| {
        let (code, text) = match unpack(root.as_ref(), layer.as_ref(), &maps) {
            Ok(text) => (0, text),
            Err(error) => (1, format!("Error: {error}\n")),
        };
        i32::from(out.write_all(text.as_bytes()).is_err()).max(code)
    });
    match ran {
        Ok((status, text)) => {
            print!("{}", String::from_utf8_lossy(&text));
            ExitCode::from(u8::from(!status.success()))
        }
        Err(error) => {
            eprintln!("Error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn unpack(root: &Path, layer: &Path, maps: &IdMaps) -> Result<String, Box<dyn Error>> {
    let store = Store::open(root, maps)?;
    let begin = Instant::now();
    let mut stage = store.stage_layer()?;
    let unpacked = stage.unpack(decompress(File::open(layer)?)?)?;
    let hold = stage.commit(&unpacked.diff_id)?;
    let took = begin.elapsed().as_secs_f64();
    Ok(format!(
        "{}\n{}\n{} entries, {} MB in {took:.2} s; {} left out, {} squashed\n",
        store.layer_dir(&hold.meta().diff_id).display(),
        unpacked.diff_id,
        unpacked.files,
        unpacked.size / 1_000_000,
        unpacked.skipped,
        unpacked.squashed,
    ))
}

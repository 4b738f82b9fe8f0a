//! What makes one tree of layers, and of which folders, as podman's `GraphDriver` says it.

use std::path::PathBuf;

use rcon_engine::store::{Driver, Form, Snapshot};
use rcon_engine::{Engine, ImageRecord};
use serde_json::{Value, json};

use crate::failure::Failure;

/// Of an image, as a container of it would have it.
///
/// # Errors
/// When the store cannot be read.
pub fn of_image(engine: &Engine, image: &ImageRecord) -> Result<Value, Failure> {
    let driver = engine.driver()?;
    if let Driver::Copy { .. } = driver {
        return Ok(json!({"Name": "vfs", "Data": null}));
    }
    // What is not here under any ids has no folders to name.
    let trees = engine.store().image_trees(&image.layers);
    let data = match trees.as_deref() {
        Ok([top]) => json!({"UpperDir": top}),
        Ok([top, lower @ ..]) => json!({"LowerDir": joined(lower), "UpperDir": top}),
        Ok([]) | Err(_) => Value::Null,
    };
    Ok(json!({"Name": "overlay", "Data": data}))
}

/// Of a container.
pub fn of_container(snapshot: Option<&Snapshot>) -> Value {
    let name = |form: &Form| form.driver();
    match snapshot {
        None => json!({"Name": name(&Form::default()), "Data": null}),
        Some(snapshot) if matches!(snapshot.form, Form::Copy { .. }) => {
            json!({"Name": name(&snapshot.form), "Data": null})
        }
        Some(snapshot) => json!({
            "Name": name(&snapshot.form),
            "Data": {
                "LowerDir": joined(&snapshot.lower),
                "UpperDir": snapshot.upper,
                "WorkDir": snapshot.work,
            },
        }),
    }
}

/// One after the other, the top one first, as the kernel takes them.
fn joined(paths: &[PathBuf]) -> String {
    let paths: Vec<String> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    paths.join(":")
}

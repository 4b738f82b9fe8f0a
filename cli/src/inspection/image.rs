//! An image as `podman image inspect` shows it.

use rcon_engine::{Engine, Error, ImageRecord};
use serde_json::{Value, json};

use super::graph_driver;
use crate::failure::Failure;
use crate::output::human;

/// The object.
///
/// # Errors
/// When the image's configuration or manifest cannot be read.
pub fn object(engine: &Engine, image: &ImageRecord) -> Result<Value, Failure> {
    let read = |bytes: Vec<u8>, what: &str| -> Result<Value, Failure> {
        serde_json::from_slice(&bytes).map_err(|e| {
            Failure::new(format!(
                "the {what} of image {} cannot be read: {e}",
                image.id
            ))
        })
    };
    let config = read(image.config().map_err(Error::from)?, "configuration")?;
    let manifest = read(image.manifest().map_err(Error::from)?, "manifest")?;
    let text = |key: &str| config[key].as_str().unwrap_or_default();
    let process = config
        .get("config")
        .filter(|c| c.is_object())
        .cloned()
        .unwrap_or_else(|| json!({}));
    let history = config
        .get("history")
        .filter(|h| h.is_array())
        .cloned()
        .unwrap_or(Value::Null);
    let comment = match text("comment") {
        "" => history
            .as_array()
            .and_then(|h| h.last()?["comment"].as_str())
            .unwrap_or_default(),
        comment => comment,
    };
    let annotations = manifest
        .get("annotations")
        .filter(|a| a.is_object())
        .cloned()
        .unwrap_or_else(|| json!({}));
    Ok(json!({
        "Id": image.id,
        "Digest": image.manifest_digest.to_string(),
        "RepoTags": image.names,
        "RepoDigests": repo_digests(image),
        "Parent": "",
        "Comment": comment,
        "Created": human::rfc3339(image.created),
        "Config": known(&process),
        "Version": text("docker_version"),
        "Author": text("author"),
        "Architecture": text("architecture"),
        "Os": text("os"),
        "Size": image.size,
        "VirtualSize": image.size,
        "GraphDriver": graph_driver::of_image(engine, image)?,
        "RootFS": {
            "Type": "layers",
            "Layers": image.layers.iter().map(ToString::to_string).collect::<Vec<_>>(),
        },
        "Labels": process.get("Labels").cloned().unwrap_or(Value::Null),
        "Annotations": annotations,
        "ManifestType": image.media_type,
        "User": process["User"].as_str().unwrap_or_default(),
        "History": history,
        "NamesHistory": image.names.iter().rev().collect::<Vec<_>>(),
    }))
}

/// The repositories that an image has, each with the digests it is known by there.
pub fn repo_digests(image: &ImageRecord) -> Vec<String> {
    let mut all = image.repo_digests.clone();
    for name in &image.names {
        let tag = name.rfind(':').filter(|at| !name[*at..].contains('/'));
        let repository = &name[..tag.unwrap_or(name.len())];
        for digest in image.digests() {
            let digest = format!("{repository}@{digest}");
            if !all.contains(&digest) {
                all.push(digest);
            }
        }
    }
    all
}

/// The part of a configuration that the OCI image specification knows, without what is empty.
fn known(process: &Value) -> Value {
    const KEYS: [&str; 9] = [
        "User",
        "ExposedPorts",
        "Env",
        "Entrypoint",
        "Cmd",
        "Volumes",
        "WorkingDir",
        "Labels",
        "StopSignal",
    ];
    let empty = |value: &Value| match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    };
    KEYS.iter()
        .filter_map(|key| {
            Some((
                key.to_string(),
                process.get(key).filter(|v| !empty(v))?.clone(),
            ))
        })
        .collect::<serde_json::Map<_, _>>()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_said_is_shown() {
        let config = json!({"Env": ["A=1"], "User": "", "Cmd": null, "Labels": {}, "Hostname": "x", "Volumes": {"/d": {}}});
        assert_eq!(
            known(&config),
            json!({"Env": ["A=1"], "Volumes": {"/d": {}}})
        );
    }
}

//! The part of an image's configuration that a container is made of.
//!
//! OCI and Docker configurations agree in this part but for Docker's extras (`Healthcheck`, `Shell`). Images in the wild
//! carry nulls where lists are due, strings where lists are due and numbers where strings are due: what can be understood
//! is, the rest is left out, so that an odd label never keeps an image from running.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Error;

/// The `config` object of an image configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageConfig {
    /// `Env`, entries as they are (those without `=` are dropped when the container is built).
    pub env: Vec<String>,
    /// `Cmd`.
    pub cmd: Vec<String>,
    /// `Entrypoint`.
    pub entrypoint: Vec<String>,
    /// `WorkingDir`.
    pub working_dir: Option<String>,
    /// `User`.
    pub user: Option<String>,
    /// The keys of `ExposedPorts`, such as `80/tcp`, `53/udp`, `8000-8010`.
    pub exposed_ports: Vec<String>,
    /// The keys of `Volumes`, sorted.
    pub volumes: Vec<String>,
    /// `Labels`.
    pub labels: BTreeMap<String, String>,
    /// `StopSignal`, name or number.
    pub stop_signal: Option<String>,
    /// `Healthcheck`, as it stands.
    pub healthcheck: Option<Value>,
}

impl ImageConfig {
    /// Reads an OCI or Docker image configuration.
    ///
    /// # Errors
    /// Only when the text is no JSON object at all; whatever is odd inside is left out.
    pub fn parse(json: &[u8]) -> Result<ImageConfig, Error> {
        let value: Value =
            serde_json::from_slice(json).map_err(|e| Error::ImageConfig(e.to_string()))?;
        if !value.is_object() {
            return Err(Error::ImageConfig("it is not an object".into()));
        }
        Ok(ImageConfig::from_value(&value))
    }

    /// Takes what is usable from a parsed configuration.
    pub fn from_value(value: &Value) -> ImageConfig {
        let config = value
            .get("config")
            .filter(|c| c.is_object())
            .unwrap_or(&Value::Null);
        ImageConfig {
            env: words(config.get("Env")),
            cmd: words(config.get("Cmd")),
            entrypoint: words(config.get("Entrypoint")),
            working_dir: text(config.get("WorkingDir")),
            user: text(config.get("User")),
            exposed_ports: keys(config.get("ExposedPorts")),
            volumes: keys(config.get("Volumes")),
            labels: labels(config.get("Labels")),
            stop_signal: text(config.get("StopSignal")),
            healthcheck: config.get("Healthcheck").filter(|h| h.is_object()).cloned(),
        }
    }
}

/// A scalar as text; empty text is the same as none.
fn text(value: Option<&Value>) -> Option<String> {
    scalar(value?).filter(|t| !t.is_empty())
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(s) => Some(s.clone()),
        Value::Number(n) => Some(n.to_string()),
        Value::Bool(b) => Some(b.to_string()),
        _ => None,
    }
}

/// A list of strings; a lone string counts as a list of one.
fn words(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::Array(list)) => list.iter().filter_map(scalar).collect(),
        Some(Value::String(s)) if !s.is_empty() => vec![s.clone()],
        _ => Vec::new(),
    }
}

/// The keys of a set written as an object, or the items of a list, sorted.
fn keys(value: Option<&Value>) -> Vec<String> {
    let mut keys: Vec<String> = match value {
        Some(Value::Object(map)) => map.keys().cloned().collect(),
        other => words(other),
    };
    keys.retain(|k| !k.is_empty());
    keys.sort();
    keys.dedup();
    keys
}

fn labels(value: Option<&Value>) -> BTreeMap<String, String> {
    match value {
        Some(Value::Object(map)) => map
            .iter()
            .filter_map(|(k, v)| Some((k.clone(), scalar(v)?)))
            .collect(),
        _ => BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_docker_config() {
        let json = br#"{"architecture":"amd64","os":"linux","config":{
            "Env":["PATH=/bin","BROKEN"],"Cmd":["sh"],"Entrypoint":["/e"],"WorkingDir":"/w","User":"1000:1000",
            "ExposedPorts":{"80/tcp":{},"53/udp":{}},"Volumes":{"/b":{},"/a":{}},"Labels":{"k":"v"},
            "StopSignal":"SIGQUIT","Healthcheck":{"Test":["CMD","true"]}}}"#;
        let c = ImageConfig::parse(json).unwrap();
        assert_eq!(c.env, ["PATH=/bin", "BROKEN"]);
        assert_eq!(
            (c.cmd, c.entrypoint),
            (vec!["sh".to_string()], vec!["/e".to_string()])
        );
        assert_eq!(c.working_dir.as_deref(), Some("/w"));
        assert_eq!(c.user.as_deref(), Some("1000:1000"));
        assert_eq!(c.exposed_ports, ["53/udp", "80/tcp"]);
        assert_eq!(c.volumes, ["/a", "/b"]);
        assert_eq!(c.labels["k"], "v");
        assert_eq!(c.stop_signal.as_deref(), Some("SIGQUIT"));
        assert_eq!(c.healthcheck.unwrap()["Test"][0], "CMD");
    }

    #[test]
    fn forgives_what_the_wild_holds() {
        let json = br#"{"config":{"Env":null,"Cmd":"run me","Entrypoint":[],"User":0,"WorkingDir":"",
            "ExposedPorts":null,"Volumes":["/x"],"Labels":{"n":1,"o":{}},"StopSignal":9,"Healthcheck":"no"}}"#;
        let c = ImageConfig::parse(json).unwrap();
        assert_eq!(c.cmd, ["run me"]);
        assert_eq!(c.user.as_deref(), Some("0"));
        assert_eq!(c.working_dir, None);
        assert_eq!(c.volumes, ["/x"]);
        assert_eq!(c.labels.len(), 1);
        assert_eq!(c.labels["n"], "1");
        assert_eq!(c.stop_signal.as_deref(), Some("9"));
        assert_eq!(c.healthcheck, None);
        assert_eq!(ImageConfig::parse(b"{}").unwrap(), ImageConfig::default());
        assert_eq!(
            ImageConfig::parse(br#"{"config":null}"#).unwrap(),
            ImageConfig::default()
        );
    }

    #[test]
    fn refuses_what_is_no_configuration() {
        for bad in [&b"[]"[..], b"", b"nonsense", b"\"text\""] {
            assert!(ImageConfig::parse(bad).is_err());
        }
    }
}

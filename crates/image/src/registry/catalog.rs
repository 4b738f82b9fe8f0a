//! What a registry has: its own search, where there is one (Docker Hub's form, which quay.io and
//! others know too), else the list of its repositories.

use super::manifests::{PAGES_MAX, next_page};
use super::{Client, MANIFEST_MAX};
use crate::{Error, Result};
use reqwest::Method;
use reqwest::header::HeaderMap;
use serde::Deserialize;

/// What was found in a registry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Found {
    pub name: String,
    #[serde(default)]
    pub description: Option<String>,
    #[serde(default)]
    pub star_count: Option<u64>,
    #[serde(default)]
    pub is_official: Option<bool>,
    #[serde(default)]
    pub is_automated: Option<bool>,
}

#[derive(Deserialize)]
struct Answer {
    results: Vec<Found>,
}

#[derive(Deserialize)]
struct Catalog {
    #[serde(default)]
    repositories: Option<Vec<String>>,
}

impl Client<'_> {
    /// Ask the registry's own search; `None` if it has none.
    pub(crate) async fn search(&self, term: &str, limit: usize) -> Result<Option<Vec<Found>>> {
        let what = format!("searching {} for {term:?}", self.registry);
        let mut url = self.url("/v1/search");
        url.query_pairs_mut()
            .append_pair("q", term)
            .append_pair("n", &limit.to_string());
        // Nobody asks for a password there, and none is given.
        let response = self
            .send_patiently(Method::GET, url, HeaderMap::new(), None, &what)
            .await?;
        if !response.status().is_success() {
            return Ok(None);
        }
        let bytes = self.read_all(response, MANIFEST_MAX, &what).await?;
        let answer = serde_json::from_slice::<Answer>(&bytes).ok();
        Ok(answer.map(|a| a.results))
    }

    /// The repositories whose names hold `term`, at most `limit`.
    pub(crate) async fn catalog(&self, term: &str, limit: usize) -> Result<Vec<Found>> {
        let what = format!("reading the list of repositories of {}", self.registry);
        let mut path = "/v2/_catalog?n=1000".to_owned();
        let mut found = Vec::new();
        for _ in 0..PAGES_MAX {
            let response = self.get(&path, &[], &what).await?;
            let next = next_page(response.headers(), &self.url(&path));
            let bytes = self.read_all(response, MANIFEST_MAX, &what).await?;
            let page: Catalog = serde_json::from_slice(&bytes).map_err(|e| {
                Error::invalid(&what, format!("the answer is no list of repositories: {e}"))
            })?;
            let names = page.repositories.unwrap_or_default().into_iter();
            found.extend(names.filter(|name| name.contains(term)).map(|name| Found {
                name,
                ..Found::default()
            }));
            match next {
                Some(next) if next != path && found.len() < limit => path = next,
                _ => break,
            }
        }
        found.truncate(limit);
        Ok(found)
    }
}

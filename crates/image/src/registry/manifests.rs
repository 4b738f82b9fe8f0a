//! Manifests, and the tags of a repository.

use super::{Client, MANIFEST_MAX, clean};
use crate::reference::is_tag;
use crate::{Error, Reference, Result};
use rcon_store::Digest;
use reqwest::Url;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, LINK};
use serde::Deserialize;

/// A list of tags is not longer than this in all, nor are there more pages.
const TAGS_MAX: usize = 10_000;
pub(super) const PAGES_MAX: usize = 200;

/// A manifest or index as it came.
pub(crate) struct Fetched {
    pub bytes: Vec<u8>,
    pub content_type: String,
}

impl Client<'_> {
    /// Fetch a manifest or index; if the reference has a digest it is checked.
    pub async fn manifest(&self, reference: &Reference, accept: &str) -> Result<Fetched> {
        let selector = reference.selector();
        let name = reference.name();
        let what = format!("reading manifest {selector} in {name}");
        let path = format!("/v2/{}/manifests/{selector}", reference.repository());
        let response = match self.get(&path, &[(ACCEPT, accept)], &what).await {
            Err(Error::Refused {
                status: 404,
                message,
                ..
            }) => {
                let message = if message.starts_with("received unexpected") {
                    "manifest unknown".to_owned()
                } else {
                    message
                };
                return Err(Error::ManifestUnknown {
                    selector,
                    name,
                    message,
                });
            }
            other => other?,
        };
        let content_type = response
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|v| v.to_str().ok())
            .map(|v| {
                v.split(';')
                    .next()
                    .unwrap_or_default()
                    .trim()
                    .to_ascii_lowercase()
            })
            .unwrap_or_default();
        let bytes = self.read_all(response, MANIFEST_MAX, &what).await?;
        if let Some(expected) = reference.digest() {
            let actual = Digest::of(expected.algorithm(), &bytes);
            if actual != *expected {
                return Err(Error::DigestMismatch {
                    what,
                    expected: expected.clone(),
                    actual,
                });
            }
        }
        Ok(Fetched {
            bytes,
            content_type,
        })
    }

    /// All tags of a repository.
    pub async fn tags(&self, reference: &Reference) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Page {
            #[serde(default)]
            tags: Option<Vec<String>>,
        }
        let what = format!("reading the tags of {}", reference.name());
        let mut path = format!("/v2/{}/tags/list", reference.repository());
        let mut all = Vec::new();
        for _ in 0..PAGES_MAX {
            let response = self.get(&path, &[], &what).await?;
            let next = next_page(response.headers(), &self.url(&path));
            let bytes = self.read_all(response, MANIFEST_MAX, &what).await?;
            let page: Page = serde_json::from_slice(&bytes).map_err(|e| {
                Error::invalid(&what, format!("the answer is no list of tags: {e}"))
            })?;
            let tags = page.tags.unwrap_or_default();
            // They become names of images, and are shown on a terminal.
            if let Some(bad) = tags.iter().find(|tag| !is_tag(tag)) {
                let why = format!("{:?} is not a valid tag", clean(bad));
                return Err(Error::invalid(&what, why));
            }
            all.extend(tags);
            if all.len() > TAGS_MAX {
                return Err(Error::invalid(
                    &what,
                    format!("there are more than {TAGS_MAX} tags"),
                ));
            }
            match next {
                Some(next) if next != path => path = next,
                _ => return Ok(all),
            }
        }
        Err(Error::invalid(
            &what,
            format!("the list has more than {PAGES_MAX} pages"),
        ))
    }
}

/// The `next` of a `Link` header, if it stays at this registry.
pub(super) fn next_page(headers: &HeaderMap, here: &Url) -> Option<String> {
    let link = headers.get(LINK)?.to_str().ok()?;
    let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
    if !parameters.contains("next") {
        return None;
    }
    // A path that begins with two slashes would be read as a host.
    let url = here
        .join(target)
        .ok()
        .filter(|u| u.origin() == here.origin() && !u.path().starts_with("//"))?;
    Some(match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_stay_here() {
        let here = Url::parse("https://r.example/v2/x/tags/list").unwrap();
        let next = |link: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(LINK, link.parse().unwrap());
            next_page(&headers, &here)
        };
        assert_eq!(
            next("</v2/x/tags/list?last=b&n=2>; rel=\"next\"").as_deref(),
            Some("/v2/x/tags/list?last=b&n=2")
        );
        assert_eq!(next("<https://evil.example/v2/>; rel=\"next\""), None);
        assert_eq!(
            next("<https://r.example//evil.example/v2/>; rel=\"next\""),
            None
        );
        assert_eq!(next("nonsense"), None);
    }
}

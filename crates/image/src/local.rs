//! Finding an image in the store by what a user calls it.

use crate::reference::{DOCKER_HUB, Given, LOCALHOST, Reference};
use crate::registries::Registries;
use crate::{Error, Result};
use rcon_store::{ImageRecord, Store};

/// Find an image by full name, short name, `name@digest`, id or id prefix, as podman resolves
/// local names.
///
/// Asked for by a digest, it has the manifest with that digest ([`ImageRecord::seen_by`]).
///
/// In this order: a full id; the name as `localhost/NAME`, as an alias or under the search
/// registries, on Docker Hub; an id prefix; any registry that has an image of that name, if it is
/// the only one.
///
/// # Errors
/// A malformed name, an ambiguous one, or a store that cannot be read. A name that is merely
/// unknown is `Ok(None)`.
pub fn find_local(store: &Store, name: &str) -> Result<Option<ImageRecord>> {
    if let Some(id) = name.strip_prefix("sha256:") {
        return Ok(store.image_by_prefix(id)?);
    }
    let is_hex = name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if is_hex && name.len() == 64 {
        return Ok(store.image_by_id(name)?);
    }
    let given = Given::parse(crate::reference::strip_transport(name)?)?;
    let first = match given.is_short() {
        true => given.at(LOCALHOST),
        false => given.at(DOCKER_HUB),
    };
    if let Some(found) = by_reference(store, &first)? {
        return Ok(Some(found));
    }
    // Whatever the configuration says, a name that is whole stands for nothing else.
    let others = match given.is_short() {
        true => Registries::load()?.local_candidates(&given),
        false => Vec::new(),
    };
    for candidate in others.into_iter().filter(|other| *other != first) {
        if let Some(found) = by_reference(store, &candidate)? {
            return Ok(Some(found));
        }
    }
    if is_hex && let Some(found) = store.image_by_prefix(name)? {
        return Ok(Some(found));
    }
    if given.is_short() {
        return by_last_part(store, &given);
    }
    Ok(None)
}

fn by_reference(store: &Store, reference: &Reference) -> Result<Option<ImageRecord>> {
    let found = store.image_by_name(&reference.to_string())?;
    let Some(digest) = reference.digest() else {
        return Ok(found);
    };
    if let Some(found) = found {
        return Ok(Some(found.seen_by(digest)));
    }
    // Pulled by tag, asked for by digest: the repository and the manifest agree.
    let name = reference.name();
    let named = |image: &ImageRecord| image.names.iter().any(|n| repository_of(n) == name);
    let mut images = store.images()?.into_iter();
    let found = images.find(|i| i.digests().any(|d| d == digest) && named(i));
    Ok(found.map(|image| image.seen_by(digest)))
}

/// `libpod/banner` finds `quay.io/libpod/banner`.
fn by_last_part(store: &Store, given: &Given) -> Result<Option<ImageRecord>> {
    let suffix = format!("/{}", given.path);
    let wanted = match (&given.tag, &given.digest) {
        (_, Some(digest)) => format!("@{digest}"),
        (Some(tag), None) => format!(":{tag}"),
        (None, None) => ":latest".to_owned(),
    };
    let mut found: Vec<(String, ImageRecord)> = Vec::new();
    for image in store.images()? {
        let names = image.names.iter().chain(&image.repo_digests);
        let hit = names
            .filter_map(|n| n.strip_suffix(&wanted).map(|repository| (n, repository)))
            .find(|(_, repository)| repository.ends_with(&suffix));
        if let Some((name, _)) = hit {
            let image = match &given.digest {
                Some(digest) => image.clone().seen_by(digest),
                None => image.clone(),
            };
            found.push((name.clone(), image));
        }
    }
    match found.len() {
        0 | 1 => Ok(found.pop().map(|(_, image)| image)),
        _ => {
            let mut names: Vec<String> = found.into_iter().map(|(name, _)| name).collect();
            names.sort();
            Err(Error::Ambiguous {
                name: given.path.clone(),
                found: names,
            })
        }
    }
}

/// A full name without tag and digest.
fn repository_of(name: &str) -> &str {
    let name = name.split('@').next().unwrap_or(name);
    let slash = name.rfind('/').map_or(0, |i| i + 1);
    match name[slash..].find(':') {
        Some(colon) => &name[..slash + colon],
        None => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories() {
        assert_eq!(repository_of("h:5000/a/b:tag"), "h:5000/a/b");
        assert_eq!(repository_of("h:5000/a/b@sha256:00"), "h:5000/a/b");
    }
}

//! Saving images: docker-archive, oci-archive, and folders.

use crate::archive::source::Cancel;
use crate::out::image::Outgoing;
use crate::out::pack::Packing;
use crate::out::write::{Item, Writer};
use crate::out::{Destination, Format};
use crate::{Error, Progress, Reference, Result, work};
use rcon_store::{Compression, Digest, Store};

/// An image to be saved.
#[derive(Clone, Debug)]
pub struct SavedImage {
    /// Its id.
    pub id: String,
    /// The digest of that one of its manifests which it is saved with where it can be; its own when `None`.
    pub manifest: Option<Digest>,
    /// The names that it has in the archive.
    pub names: Vec<Reference>,
}

/// How to save.
#[derive(Clone, Debug, Default)]
pub struct SaveOptions {
    /// How layers are compressed. Of a docker-archive they never are.
    pub compression: Option<Compression>,
    /// The manifest's family for `dir:`; the image's own when `None`. The other forms have only one.
    pub format: Option<Format>,
    /// The level of the compression.
    pub level: Option<i32>,
}

/// Write images to a file or a folder; the digest of the last one's manifest. Same conditions as
/// [`crate::pull()`]. A file is replaced when the archive is whole.
///
/// # Errors
/// An image that is not here, a destination that cannot be written, a layer whose archive cannot be
/// made again.
pub fn save(
    store: &Store,
    images: &[SavedImage],
    to: &Destination,
    opts: &SaveOptions,
    progress: &dyn Progress,
) -> Result<Digest> {
    let (usual, single) = match to {
        Destination::Registry(_) | Destination::Dir(_) => (Compression::None, true),
        Destination::DockerArchive(..) => (Compression::None, false),
        Destination::Oci(..) | Destination::OciArchive(..) => (Compression::Gzip, false),
    };
    if single && images.len() > 1 {
        return Err(Error::Unsupported(
            "a folder of this kind holds one image".to_owned(),
        ));
    }
    let compression = match to {
        Destination::DockerArchive(..) => Compression::None,
        _ => opts.compression.unwrap_or(usual),
    };
    let packing = Packing::new(compression, opts.level)?;
    let items = images
        .iter()
        .map(|image| {
            let record = store.image_by_id(&image.id)?;
            let record = record.ok_or_else(|| rcon_store::Error::NoSuchImage(image.id.clone()))?;
            Ok(Item {
                image: Outgoing::open(store, record, image.manifest.as_ref())?,
                names: image.names.iter().map(Reference::to_string).collect(),
            })
        })
        .collect::<Result<Vec<_>>>()?;
    write(store, &items, to, packing, opts.format, progress)
}

/// The same for what was made ready.
pub(crate) fn write(
    store: &Store,
    items: &[Item],
    to: &Destination,
    packing: Packing,
    format: Option<Format>,
    progress: &dyn Progress,
) -> Result<Digest> {
    let cancel = Cancel::default();
    work::threaded(&cancel, || {
        let writer = Writer {
            store,
            packing,
            format,
            cancel: &cancel,
            progress,
        };
        writer.write(items, to)
    })
}

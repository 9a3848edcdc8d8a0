//! The two files that say what a data directory is: its format, and the ids of its cluster and broker.

use std::io;
use std::path::Path;

use ringmq_runtime::{fs, random};
use ringmq_wire::BrokerId;
use uuid::Uuid;

use super::sealed_text::{BYTES_MAX, SealError, seal, unseal};
use super::{DirectoryError, FORMAT, IDENTITY};
use crate::metadata::Cluster;

/// The version of everything on disk that this release writes.
pub const FORMAT_VERSION: u32 = 2;
/// The oldest release that reads what this one writes.
pub const READABLE_BY: &str = "0.2.0";

/// A broker that starts alone.
const FIRST_BROKER: BrokerId = BrokerId::new(0);

/// Ids for a new cluster.
pub(super) fn draw_cluster() -> Cluster {
    let mut bytes = [0; 16];
    random::fill(&mut bytes);
    Cluster { id: uuid::Builder::from_random_bytes(bytes).into_uuid(), broker: FIRST_BROKER }
}

/// Checks the format of the directory and returns its version, which this release reads; `None` when it has none yet.
pub(super) async fn read_format(directory: &Path) -> Result<Option<u32>, DirectoryError> {
    let Some(bytes) = read(directory, FORMAT).await? else { return Ok(None) };
    let parse = || {
        let fields = unseal(FORMAT, &bytes)?;
        Ok((fields.get("format_version")?, fields.get("readable_by")?))
    };
    let (found, readable_by): (u32, String) = parse().map_err(damaged(directory, FORMAT))?;
    if found > FORMAT_VERSION {
        return Err(DirectoryError::Newer { path: directory.to_owned(), found, readable_by });
    }
    if found == 0 {
        let cause = SealError::Value { key: "format_version", value: crate::excerpt::Excerpt::new("0") };
        return Err(damaged(directory, FORMAT)(cause));
    }
    Ok(Some(found))
}

pub(super) async fn write_format(directory: &Path) -> Result<(), DirectoryError> {
    let text = seal(
        FORMAT,
        &[
            ("format_version", &FORMAT_VERSION),
            ("readable_by", &READABLE_BY),
            ("written_by", &env!("CARGO_PKG_VERSION")),
        ],
    );
    write(directory, FORMAT, &text).await
}

pub(super) async fn read_identity(directory: &Path) -> Result<Cluster, DirectoryError> {
    let path = || directory.join(IDENTITY);
    let bytes = read(directory, IDENTITY).await?.ok_or_else(|| DirectoryError::Missing { path: path() })?;
    let parse = || {
        let fields = unseal(IDENTITY, &bytes)?;
        let id: Uuid = fields.get("cluster_id")?;
        let broker: i32 = fields.get("broker_id")?;
        let broker = BrokerId::checked(broker)
            .ok_or(SealError::Value { key: "broker_id", value: crate::excerpt::Excerpt::new(&broker.to_string()) })?;
        Ok(Cluster { id, broker })
    };
    parse().map_err(damaged(directory, IDENTITY))
}

pub(super) async fn write_identity(directory: &Path, cluster: Cluster) -> Result<(), DirectoryError> {
    let text = seal(IDENTITY, &[("cluster_id", &cluster.id), ("broker_id", &cluster.broker)]);
    write(directory, IDENTITY, &text).await
}

fn damaged(directory: &Path, name: &'static str) -> impl FnOnce(SealError) -> DirectoryError {
    move |cause| DirectoryError::Damaged { path: directory.join(name), cause }
}

async fn read(directory: &Path, name: &'static str) -> Result<Option<Vec<u8>>, DirectoryError> {
    let path = directory.join(name);
    match fs::read_small(&path, BYTES_MAX).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
            Err(DirectoryError::Damaged { path, cause: SealError::TooLong })
        }
        Err(cause) => Err(DirectoryError::Io { what: "cannot read", path, cause }),
    }
}

async fn write(directory: &Path, name: &'static str, text: &str) -> Result<(), DirectoryError> {
    let path = directory.join(name);
    fs::write_small_atomic(&path, text.as_bytes()).await.map_err(|cause| DirectoryError::Io {
        what: "cannot write",
        path,
        cause,
    })
}

//! The reserves of all cores: a file each, in a directory of their own.

use std::io;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};

use ringmq_runtime::fs;
use ringmq_segment::Reserve;
use ringmq_wire::ShardIndex;

/// The directory, within the data directory.
const RESERVES: &str = "reserves";
/// What a core keeps; `docs/durability.md` says for what.
const RESERVE_BYTES: u64 = 8 << 20;

/// The reserve of a core, as an earlier process left it.
pub(super) async fn reserve_of(data_dir: &Path, shard: ShardIndex) -> Reserve {
    let dir = data_dir.join(RESERVES);
    if let Err(error) = fs::create_dir_durably(&dir).await {
        tracing::warn!(dir = %dir.display(), %error, "cannot create the directory of what is kept for a full disk");
    }
    Reserve::new(&path_of(&dir, shard), RESERVE_BYTES)
}

/// Removes the reserves of cores that the broker does not have any more.
pub(super) async fn remove_beyond(data_dir: &Path, shard_count: NonZeroU16) {
    let dir = data_dir.join(RESERVES);
    let removed = async {
        for entry in fs::read_dir(&dir).await? {
            if index_in(&entry.name).is_some_and(|index| index >= shard_count.get()) {
                fs::remove_file_if_there(dir.join(&entry.name)).await?;
            }
        }
        io::Result::Ok(())
    };
    if let Err(error) = removed.await {
        tracing::warn!(dir = %dir.display(), %error, "cannot remove reserves of cores that are not there any more");
    }
}

fn path_of(dir: &Path, shard: ShardIndex) -> PathBuf {
    dir.join(format!("{:05}", shard.get()))
}

fn index_in(name: &str) -> Option<u16> {
    let is_index = name.len() == 5 && name.bytes().all(|byte| byte.is_ascii_digit());
    name.parse().ok().filter(|_| is_index)
}

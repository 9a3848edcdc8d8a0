//! Random numbers, and hash maps whose order a seed replays.

use std::hash::BuildHasher;

use crate::backend::{self, Backend};

/// A random number. Good for tokens that must not collide; not a secret.
pub fn u64() -> u64 {
    match backend::try_current().as_deref() {
        #[cfg(feature = "sim")]
        Some(backend::Context { backend: Backend::Sim(world), .. }) => world.random_u64(),
        Some(backend::Context { backend: Backend::Glommio(_), .. }) | None => fastrand::u64(..),
    }
}

/// Fills `bytes` with random ones, as good as [`u64()`].
pub fn fill(bytes: &mut [u8]) {
    for chunk in bytes.chunks_mut(8) {
        let random = u64().to_le_bytes();
        chunk.copy_from_slice(&random[..chunk.len()]);
    }
}

/// Hashes with a seed drawn from [`u64()`] for each map: whoever sends keys cannot guess which collide, and the
/// simulator replays every order of iteration.
#[derive(Clone, Debug)]
pub struct SeededState(foldhash::fast::FixedState);

impl Default for SeededState {
    fn default() -> SeededState {
        SeededState(foldhash::fast::FixedState::with_seed(u64()))
    }
}

impl BuildHasher for SeededState {
    type Hasher = foldhash::fast::FoldHasher<'static>;

    fn build_hasher(&self) -> Self::Hasher {
        self.0.build_hasher()
    }
}

/// A hash map; make it with `Map::default()`.
pub type Map<K, V> = hashbrown::HashMap<K, V, SeededState>;

/// A hash set; make it with `Set::default()`.
pub type Set<K> = hashbrown::HashSet<K, SeededState>;

#[cfg(test)]
mod tests;

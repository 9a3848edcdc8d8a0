//! Each rule of the storage protocol that concerns the journal and the segments together: the history that breaks
//! without it (`docs/storage-protocol.md`).

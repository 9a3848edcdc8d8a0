//! The client crate: async on tokio, with a blocking face.
#![forbid(unsafe_code)]

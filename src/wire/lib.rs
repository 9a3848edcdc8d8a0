//! Pure codec: the native protocol's frames and messages, the record batch, the shared newtypes and error codes.
#![forbid(unsafe_code)]

//! Sparse offset and time indexes over a segment; pure.
#![forbid(unsafe_code)]

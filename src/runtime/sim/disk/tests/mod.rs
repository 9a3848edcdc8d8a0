//! Properties of the disk's two images, over histories that nobody thought of.

mod content;
mod names;

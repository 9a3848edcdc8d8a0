//! The broker's configuration: one TOML file, every key with a default, flags on top.
//!
//! [`schema`] is the one place where a key, its default, its range and its description stand, and those of topics stand
//! in the controller's table of settings; the file's parser, its error messages and `configs/broker.toml` all come from
//! there.

pub mod file;
pub mod reference;
pub mod schema;
pub mod topic_defaults;
pub mod values;

pub use file::ConfigError;
pub use schema::Config;
pub use topic_defaults::TopicDefaults;

#[cfg(test)]
mod tests;

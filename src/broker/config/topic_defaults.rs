//! `[topic_defaults]`: its keys are the settings of a topic, whatever there are.

use std::fmt;

use ringmq_controller::metadata::{SettingKey, TopicSettings};
use serde::de::{DeserializeSeed, Error as _, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::schema::{Key, Valid};

/// Settings of a topic whose creator does not say otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TopicDefaults(pub TopicSettings);

/// The keys of the table, one for each setting.
pub(super) fn keys() -> Vec<Key> {
    let key = |setting: SettingKey| Key {
        path: format!("topic_defaults.{setting}").into(),
        valid: setting.words().map_or(Valid::Integer(setting.range()), Valid::OneOf),
        about: setting.about(),
    };
    SettingKey::ALL.into_iter().map(key).collect()
}

impl Serialize for TopicDefaults {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(SettingKey::ALL.len()))?;
        for key in SettingKey::ALL {
            let value = self.0.get(key);
            match key.words() {
                Some(_) => map.serialize_entry(key.name(), &key.text(value))?,
                None => map.serialize_entry(key.name(), &value)?,
            }
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for TopicDefaults {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Settings)
    }
}

/// The number that the word stands for.
fn number_of(word: &str, words: &[&str]) -> Result<u64, String> {
    let number = (0_u64..).zip(words).find(|(_, known)| **known == word).map(|(number, _)| number);
    number.ok_or_else(|| format!("{word:?} is none of {}", words.join(", ")))
}

/// Reads one setting's value, so that an error knows which.
struct Value(SettingKey);

impl<'de> DeserializeSeed<'de> for Value {
    type Value = u64;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<u64, D::Error> {
        match self.0.words() {
            Some(words) => number_of(&String::deserialize(deserializer)?, words).map_err(D::Error::custom),
            None => u64::deserialize(deserializer),
        }
    }
}

/// Reads a table whose keys are settings. That numbers are in range has been checked, on the file's text.
struct Settings;

impl<'de> Visitor<'de> for Settings {
    type Value = TopicDefaults;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table of topic settings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<TopicDefaults, A::Error> {
        let mut settings = TopicSettings::default();
        while let Some(name) = map.next_key::<String>()? {
            let key = SettingKey::from_name(&name).map_err(A::Error::custom)?;
            settings.set(key, map.next_value_seed(Value(key))?);
        }
        Ok(TopicDefaults(settings))
    }
}

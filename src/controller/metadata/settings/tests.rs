//! Settings as users write them.

use proptest::prelude::*;

use super::*;

fn parse(pairs: &[(&str, &str)]) -> Result<SettingChoices, SettingError> {
    SettingChoices::parse(pairs.iter().copied(), &TopicSettings::default())
}

#[test]
fn the_defaults_are_within_their_own_ranges() {
    assert_eq!(TopicSettings::default().check(), Ok(()));
}

#[test]
fn numbers_in_the_log_lead_back_to_their_keys() {
    for key in SettingKey::ALL {
        assert_eq!(SettingKey::from_number(key.number()), Some(key));
        assert_eq!(SettingKey::from_name(key.name()), Ok(key));
    }
    assert_eq!(SettingKey::from_number(0), None);
    assert_eq!(SettingKey::from_number(u16::MAX), None);
    assert!(SettingKey::ALL.is_sorted());
}

#[test]
fn an_unknown_key_is_named_with_the_nearest_one() {
    for (typo, nearest) in [
        ("segment.bytes", SettingKey::SegmentBytes),
        ("segment_age", SettingKey::SegmentAgeMs),
        ("max_batch_bytes", SettingKey::BatchBytesMax),
        ("BATCH_BYTES_MAX", SettingKey::BatchBytesMax),
        ("segment.age.ms", SettingKey::SegmentAgeMs),
    ] {
        let error = parse(&[(typo, "1")]).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, SettingError::UnknownKey { .. }));
        assert!(text.contains(&format!("\"{typo}\"")) && text.contains(&format!("nearest key is {nearest}")), "{text}");
    }
}

#[test]
fn a_value_out_of_range_is_named_with_key_and_range() {
    for (value, shown) in [("1023", "1023"), ("16777217", "16777217"), ("99999999999999999999", "99999999999999999999")]
    {
        let text = parse(&[("batch_bytes_max", value)]).unwrap_err().to_string();
        assert!(text.contains(&format!("batch_bytes_max = \"{shown}\"")), "{text}");
        assert!(text.contains("from 1024 to 16777216"), "{text}");
    }
    for value in ["", "-1", "1e6", "1MiB", " 5000", "+5000"] {
        assert!(matches!(parse(&[("segment_age_ms", value)]), Err(SettingError::NotANumber { .. })), "{value:?}");
    }
    assert_eq!(parse(&[("batch_bytes_max", "1024")]).unwrap().get(SettingKey::BatchBytesMax), Some(1024));
    assert_eq!(parse(&[("batch_bytes_max", "16777216")]).unwrap().get(SettingKey::BatchBytesMax), Some(16 << 20));
}

#[test]
fn words_stand_for_values() {
    for (word, cleanup) in Cleanup::WORDS.iter().zip(Cleanup::ALL) {
        let chosen = parse(&[("cleanup", word)]).unwrap().resolve(&TopicSettings::default());
        assert_eq!(chosen.cleanup, cleanup);
        assert_eq!(SettingKey::Cleanup.text(chosen.get(SettingKey::Cleanup)), *word);
    }
    for value in ["", "Compact", "delete,compact", "1"] {
        let text = parse(&[("cleanup", value)]).unwrap_err().to_string();
        assert!(text.contains("one of delete or compact or compact,delete"), "{text}");
    }
    assert_eq!(SettingKey::SegmentBytes.text(7), "7");
}

#[test]
fn a_key_given_twice_is_refused_even_with_the_same_value() {
    let twice = parse(&[("segment_age_ms", "5000"), ("segment_age_ms", "5000")]);
    assert_eq!(twice, Err(SettingError::GivenTwice { key: SettingKey::SegmentAgeMs }));
}

#[test]
fn a_batch_must_fit_the_segment_whatever_the_order_of_the_settings() {
    let small = ("segment_bytes", "1048576");
    assert_eq!(parse(&[small]).unwrap().resolve(&TopicSettings::default()).segment_bytes, 1 << 20);
    let large = ("batch_bytes_max", "1048577");
    for pairs in [[small, large], [large, small]] {
        assert!(matches!(parse(&pairs), Err(SettingError::BatchBeyondSegment { .. })));
    }
}

#[test]
fn a_value_that_was_not_chosen_follows_the_defaults_of_the_day() {
    let choices = parse(&[("segment_age_ms", "5000")]).unwrap();
    let tomorrow = TopicSettings { segment_bytes: 5 << 20, ..TopicSettings::default() };
    assert_eq!(choices.resolve(&tomorrow).segment_bytes, 5 << 20);
    assert_eq!(choices.resolve(&tomorrow).segment_age_ms, 5000);
    assert_eq!(choices.get(SettingKey::SegmentBytes), None);
}

#[test]
fn choices_stay_sound_when_ranges_and_defaults_change() {
    let defaults = TopicSettings::default();
    let mut choices = SettingChoices::default();
    choices.insert(SettingKey::SegmentBytes, 0);
    choices.insert(SettingKey::SegmentAgeMs, u64::MAX);
    choices.insert(SettingKey::BatchBytesMax, u64::MAX);
    let settings = choices.resolve(&defaults);
    assert_eq!(settings.check(), Ok(()));
    assert_eq!((settings.batch_bytes_max, settings.segment_bytes), (16 << 20, 16 << 20));
}

#[test]
fn an_alteration_adds_replaces_and_takes_back() {
    let defaults = TopicSettings::default();
    let chosen = parse(&[("segment_bytes", "1048576"), ("segment_age_ms", "5000")]).unwrap();
    let altered = chosen.altered([("segment_age_ms", "6000")], ["segment_bytes", "batch_bytes_max"], &defaults);
    assert_eq!(altered, parse(&[("segment_age_ms", "6000")]));
    assert_eq!(chosen.altered([], [], &defaults), Ok(chosen.clone()));

    for (set, unset) in
        [(vec![("segment_age_ms", "6000")], vec!["segment_age_ms"]), (vec![], vec!["segment_age_ms"; 2])]
    {
        let twice = chosen.altered(set, unset, &defaults);
        assert_eq!(twice, Err(SettingError::GivenTwice { key: SettingKey::SegmentAgeMs }));
    }
    let unknown = chosen.altered([], ["segment_age"], &defaults).unwrap_err();
    assert!(matches!(unknown, SettingError::UnknownKey { nearest: SettingKey::SegmentAgeMs, .. }));
}

#[test]
fn an_alteration_is_checked_together_with_what_was_chosen_before() {
    let defaults = TopicSettings::default();
    let large_batches = parse(&[("batch_bytes_max", "16777216")]).unwrap();
    let too_small = large_batches.altered([("segment_bytes", "1048576")], [], &defaults);
    assert!(matches!(too_small, Err(SettingError::BatchBeyondSegment { .. })));
    let small_segments = parse(&[("segment_bytes", "1048576"), ("batch_bytes_max", "1024")]).unwrap();
    let large_defaults = TopicSettings { batch_bytes_max: 2 << 20, ..defaults };
    let back_to_them = small_segments.altered([], ["batch_bytes_max"], &large_defaults);
    assert!(matches!(back_to_them, Err(SettingError::BatchBeyondSegment { .. })));
}

proptest! {
    #[test]
    fn whatever_a_user_writes_is_answered_in_a_short_message(name in ".{0,300}", value in ".{0,300}") {
        if let Err(error) = parse(&[(&name, &value)]) {
            prop_assert!(error.to_string().len() <= 1024);
        }
    }

    #[test]
    fn edit_distance_is_a_distance(a in "[abc_]{0,8}", b in "[abc_]{0,8}", c in "[abc_]{0,8}") {
        prop_assert_eq!(edit_distance(&a, &b), edit_distance(&b, &a));
        prop_assert_eq!(edit_distance(&a, &b) == 0, a == b);
        prop_assert!(edit_distance(&a, &c) <= edit_distance(&a, &b) + edit_distance(&b, &c));
    }
}

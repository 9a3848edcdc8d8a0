use ringmq_client::HostPort;
use ringmq_controller::metadata::TopicSettings;

use super::file::{parse, render};
use super::schema::{self, Config, Valid};
use super::values::{Advertise, Automatic, Cores, Listen, LogLevel, ShardPorts};
use super::{ConfigError, TopicDefaults, reference};

fn problems(text: &str) -> Vec<String> {
    match parse(text, "ringmq.toml") {
        Err(ConfigError::Invalid(problems)) => problems.iter().map(ToString::to_string).collect(),
        Err(other) => panic!("another error: {other}"),
        Ok(config) => panic!("accepted: {config:?}"),
    }
}

#[test]
fn an_empty_file_is_the_defaults() {
    assert_eq!(parse("", "ringmq.toml").expect("valid"), Config::default());
}

#[test]
fn the_defaults_keep_their_own_rules() {
    assert_eq!(Config::default().broken_relations(), []);
    for key in schema::keys() {
        if let Valid::Integer(range) = &key.valid {
            let defaults = toml::Table::try_from(Config::default()).expect("serialises");
            let value = reference::lookup(&defaults, &key.path).and_then(toml::Value::as_integer).expect(&key.path);
            assert!(range.contains(&u64::try_from(value).expect("positive")), "{} = {value}", key.path);
        }
    }
}

#[test]
fn every_field_is_described_and_every_description_is_a_field() {
    let defaults = toml::Table::try_from(Config::default()).expect("serialises");
    let mut fields = Vec::new();
    for (name, value) in &defaults {
        match value.as_table() {
            Some(section) => fields.extend(section.keys().map(|inner| format!("{name}.{inner}"))),
            None => fields.push(name.clone()),
        }
    }
    fields.sort();
    let mut described: Vec<_> = schema::keys().map(|key| key.path.to_string()).collect();
    described.sort();
    assert_eq!(fields, described);
}

#[test]
fn numbers_carry_their_unit_or_count_something() {
    for key in schema::keys() {
        if matches!(key.valid, Valid::Integer(_) | Valid::AutoOrInteger(_)) {
            let name = key.path.rsplit('.').next().expect("a name");
            let words: Vec<_> = name.split('_').collect();
            let has_unit = ["bytes", "ms", "us", "percent"].iter().any(|unit| words.contains(unit));
            assert!(has_unit || name.ends_with("_max"), "{name} says neither its unit nor its bound");
        }
    }
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_nearest_valid_key() {
    assert_eq!(
        problems("log_level = \"info\"\n\nrequest_byte_max = 5\n"),
        ["ringmq.toml:3: unknown key request_byte_max; the nearest valid key is request_bytes_max \
          (1048576 to 1073741824)"]
    );
}

#[test]
fn a_key_in_the_wrong_table_is_sent_to_the_right_one() {
    let [problem] = &problems("segment_bytes = 5\n")[..] else { panic!("one problem") };
    assert!(problem.contains("nearest valid key is topic_defaults.segment_bytes"), "{problem}");
}

#[test]
fn a_key_that_is_near_to_none_is_told_which_there_are_in_its_table() {
    let [above, inside] = &problems("foo = 1\n[topic_defaults]\nanything_at_all = 5\n")[..] else {
        panic!("two problems")
    };
    assert!(above.starts_with("ringmq.toml:1: unknown key foo; the nearest valid key is cores (\"all\", "), "{above}");
    assert!(inside.starts_with("ringmq.toml:3: unknown key topic_defaults.anything_at_all; the nearest "), "{inside}");
    for key in schema::keys() {
        let (problem, name) = match key.path.split_once('.') {
            Some((_, name)) => (inside, name),
            None => (above, key.path.as_ref()),
        };
        let (_, named) = problem.split_once(" there are ").expect("a list");
        assert!(named.split([' ', ',']).any(|word| word == name), "{name} is not in {problem}");
    }
    assert!(above.contains("above all tables") && !above.contains("segment_bytes"), "{above}");
    assert!(inside.contains("in [topic_defaults]") && !inside.contains("listen"), "{inside}");
}

#[test]
fn an_unknown_table_is_told_the_one_there_is() {
    assert_eq!(
        problems("[topic_default]\nsegment_bytes = 5\n"),
        ["ringmq.toml:1: unknown table [topic_default]; the only one is [topic_defaults]"]
    );
}

#[test]
fn an_empty_data_directory_is_refused() {
    assert_eq!(problems("data_dir = \"\"\n"), ["ringmq.toml:1: data_dir is empty; name a directory"]);
}

#[test]
fn a_word_of_a_topic_setting_that_is_none_is_named_with_its_line_and_key() {
    let [problem] = &problems("[topic_defaults]\nsegment_age_ms = 5000\ncleanup = \"never\"\n")[..] else {
        panic!("one problem")
    };
    assert!(problem.starts_with("ringmq.toml:3: topic_defaults.cleanup = \"never\": "), "{problem}");
}

#[test]
fn numbers_out_of_range_are_named_with_line_value_and_range() {
    assert_eq!(
        problems("writes_in_flight_max = 0\n[topic_defaults]\nsegment_bytes = -1\n"),
        [
            "ringmq.toml:1: writes_in_flight_max = 0 is out of range; valid: 1 to 64",
            "ringmq.toml:3: topic_defaults.segment_bytes = -1 is out of range; valid: 1048576 to 1099511627776",
        ]
    );
    let [problem] = &problems("request_bytes_max = 99999999999999999999\n")[..] else { panic!("one problem") };
    assert!(problem.contains("99999999999999999999 is out of range"), "{problem}");
}

#[test]
fn a_value_of_the_wrong_type_is_named_with_line_and_form() {
    let cases = [
        ("\nlisten = 9092\n", "ringmq.toml:2: listen = 9092: ", "valid: HOST:PORT"),
        ("listen = \"localhost\"\n", "ringmq.toml:1: listen = \"localhost\": ", "valid: HOST:PORT"),
        ("pin_cores = \"no\"\n", "ringmq.toml:1: pin_cores = \"no\": ", "valid: true or false"),
        ("cores = [0, 0]\n", "ringmq.toml:1: cores = [0, 0]: CPU 0 is named twice", "valid: \"all\""),
        ("cores = \"0-\"\n", "ringmq.toml:1: cores = \"0-\": ", "not a CPU number"),
        ("log_level = \"loud\"\n", "ringmq.toml:1: log_level = \"loud\": ", "valid: \"error\""),
        ("shard_ports = [70000]\n", "ringmq.toml:1: shard_ports = [70000]: ", "valid: \"ephemeral\""),
        ("tail_cache_bytes = \"much\"\n", "ringmq.toml:1: tail_cache_bytes = \"much\": ", "valid: \"auto\""),
        (
            "[topic_defaults]\nsegment_age_ms = \"7d\"\n",
            "ringmq.toml:2: topic_defaults.segment_age_ms = \"7d\": ",
            "valid: 1000 to",
        ),
        ("topic_defaults = 3\n", "ringmq.toml:1: topic_defaults is a table", "[topic_defaults]"),
    ];
    for (text, start, contains) in cases {
        let problems = problems(text);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].starts_with(start), "{}", problems[0]);
        assert!(problems[0].contains(contains), "{}", problems[0]);
    }
}

#[test]
fn what_topics_choose_from_has_defaults_in_the_file() {
    let config = parse("[topic_defaults]\nbatch_bytes_max = 4096\n", "").expect("valid");
    let expected = TopicSettings { batch_bytes_max: 4096, ..TopicSettings::default() };
    assert_eq!(config.topic_defaults, TopicDefaults(expected));
    assert_eq!(parse(&render(&config), "printed").expect("valid"), config);
}

#[test]
fn broken_syntax_is_told_with_its_line() {
    let [problem] = &problems("listen = \"127.0.0.1:9092\"\nlog_level =\n")[..] else { panic!("one problem") };
    assert!(problem.starts_with("ringmq.toml:2: this is not TOML: "), "{problem}");
}

#[test]
fn bounds_that_contradict_each_other_are_refused() {
    let text = "request_bytes_max = 67108864\nconnection_request_bytes_max = 1048576\n";
    assert_eq!(
        problems(text),
        ["ringmq.toml:2: connection_request_bytes_max = 1048576 is below request_bytes_max = 67108864; \
          raise it or lower the other"]
    );
}

#[test]
fn what_check_prints_reads_back_the_same() {
    let config = Config {
        advertise: "[fd00::1]:9093".parse().expect("valid"),
        cores: Cores::List(vec![3, 1]),
        shard_ports: ShardPorts::Base(9100),
        tail_cache_bytes: Automatic::Fixed(1 << 30),
        log_level: LogLevel::Debug,
        ..Config::default()
    };
    assert_eq!(parse(&render(&config), "printed").expect("valid"), config);
}

#[test]
fn advertised_addresses_take_every_form_of_host() {
    let address = |host: &str, port| Advertise::Address(HostPort { host: host.to_owned(), port });
    let cases = [
        ("auto", Advertise::Auto),
        ("broker-1", address("broker-1", None)),
        ("broker-1.example.com:9093", address("broker-1.example.com", Some(9093))),
        ("10.0.0.1:1", address("10.0.0.1", Some(1))),
        ("fd00::1", address("fd00::1", None)),
        ("[fd00::1]", address("fd00::1", None)),
        ("[fd00::1]:9093", address("fd00::1", Some(9093))),
    ];
    for (text, expected) in cases {
        assert_eq!(text.parse(), Ok(expected), "{text}");
    }
    for text in ["", "host:", "host:0", "host:65536", "[fd00::1", "[fd00::1]9093", "a b", "host/path"] {
        assert!(text.parse::<Advertise>().is_err(), "{text:?}");
    }
}

#[test]
fn listening_takes_names_and_any_port_but_wants_one() {
    for text in ["127.0.0.1:9092", "[::]:0", "localhost:9092", "broker-1.example.com:1"] {
        assert_eq!(text.parse::<Listen>().expect("valid").to_string(), text);
    }
    for text in ["localhost", "[::1]", ":9092", "host:65536", "a b:1"] {
        assert!(text.parse::<Listen>().is_err(), "{text:?}");
    }
    let resolved = |text: &str| text.parse::<Listen>().expect("valid").resolve();
    assert_eq!(resolved("localhost:7").expect("known")[0].to_string(), "127.0.0.1:7");
    // No resolver is asked for a label of more than 63 characters (RFC 1035, section 2.3.4).
    let nowhere = "a".repeat(64);
    assert!(resolved(&format!("{nowhere}:7")).expect_err("no such host").contains(&nowhere));
}

#[test]
fn core_lists_take_numbers_and_ranges() {
    assert_eq!("all".parse(), Ok(Cores::All));
    assert_eq!("3,0-1".parse(), Ok(Cores::List(vec![3, 0, 1])));
    assert_eq!(parse("cores = [1, 0]", "").expect("valid").cores, Cores::List(vec![1, 0]));
    for text in ["", "0,,1", "1-0", "0,0-2", "-1", "4096", "0-4000000000"] {
        assert!(text.parse::<Cores>().is_err(), "{text:?}");
    }
}

#[test]
fn shard_ports_fit_the_number_of_shards() {
    assert_eq!(ShardPorts::Ephemeral.for_shards(2), Ok(vec![0, 0]));
    assert_eq!(ShardPorts::Base(9100).for_shards(3), Ok(vec![9100, 9101, 9102]));
    assert_eq!(ShardPorts::List(vec![5, 6]).for_shards(2), Ok(vec![5, 6]));
    assert!(ShardPorts::Base(65_535).for_shards(2).is_err());
    assert!(ShardPorts::List(vec![5]).for_shards(2).is_err());
}

/// `configs/broker.toml` is written from the schema: `RINGMQ_WRITE_REFERENCE=1` writes it anew.
#[test]
#[allow(clippy::disallowed_methods, reason = "a test, on no executor")]
fn the_reference_file_is_what_the_schema_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../configs/broker.toml");
    if std::env::var_os("RINGMQ_WRITE_REFERENCE").is_some() {
        std::fs::write(path, reference::render()).expect("written");
    }
    let text = std::fs::read_to_string(path).expect("configs/broker.toml is there");
    assert_eq!(parse(&text, path).expect("valid"), Config::default(), "the file's values are the defaults");

    let table: toml::Table = text.parse().expect("valid");
    for key in schema::keys() {
        assert!(reference::lookup(&table, &key.path).is_some(), "{} is missing", key.path);
        if let Valid::Integer(range) | Valid::AutoOrInteger(range) = &key.valid {
            assert_eq!(commented_range(&text, &key.path), (*range.start(), *range.end()), "{}", key.path);
        }
    }
    assert_eq!(text, reference::render(), "run this test with RINGMQ_WRITE_REFERENCE=1");
}

/// The bounds that the comment above a key names, read as a person would: `Valid: 1 to 64.`
fn commented_range(text: &str, path: &str) -> (u64, u64) {
    let name = path.rsplit('.').next().expect("a name");
    let end = text.find(&format!("\n{name} = ")).expect("the key");
    let comment = text[..end].rsplit("\n\n").next().expect("a comment").replace("\n#", "");
    let valid = comment.split("Valid: ").nth(1).expect("what is valid");
    let mut bounds = valid.trim_end_matches('.').trim_start_matches("\"auto\", or ").split(" to ");
    let mut bound = || {
        let text = bounds.next().expect("a bound");
        text.split_whitespace().next().expect("a number").parse().expect("a number")
    };
    (bound(), bound())
}

//! The command line without a broker: what can be typed, what help says, how mistakes are told.

use std::process::{Command, Output};
use std::time::Duration;

use clap::{CommandFactory, Parser};
use ringmq::cli::{
    Cli, ClusterCommand, Codec, Command as Typed, ConnectionArgs, ConsumeTo, OutputFormat, RecordFormat, TopicCommand,
    TrimBefore, VERSION,
};
use ringmq_client::{Offset, Start, Timestamp};
use ringmq_controller::metadata::SettingKey;

fn ringmq(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringmq")).args(args).env_remove("RINGMQ_BROKERS").output().expect("ringmq runs")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn parse(args: &[&str]) -> Result<Typed, String> {
    let args = ["ringmq"].iter().chain(args);
    Cli::try_parse_from(args).map(|cli| cli.command).map_err(|error| error.to_string())
}

#[test]
fn the_definitions_are_consistent() {
    Cli::command().debug_assert();
}

/// Every command that does something, with its name.
fn leaves(command: &clap::Command, name: &str) -> Vec<(String, clap::Command)> {
    let below: Vec<_> = command
        .get_subcommands()
        .filter(|below| below.get_name() != "help")
        .flat_map(|below| leaves(below, format!("{name} {}", below.get_name()).trim()))
        .collect();
    if below.is_empty() { vec![(name.to_owned(), command.clone())] } else { below }
}

#[test]
fn every_command_says_how_it_ends_and_what_its_flags_take() {
    let commands = leaves(&Cli::command(), "");
    assert!(commands.len() > 20, "{commands:?}");
    for (name, mut command) in commands {
        for arg in command.get_arguments() {
            let told = arg.get_help().map(ToString::to_string).unwrap_or_default();
            assert!(told.len() > 10, "{name} {}: {told:?}", arg.get_id());
            // What takes a number says of what, and what may be left out what holds then.
            let is_number = arg.get_value_names().is_some_and(|names| names.iter().any(|name| name == "N"));
            let names_default = told.contains("[default:") || !arg.get_default_values().is_empty();
            let is_clear = !is_number || arg.is_required_set() || arg.is_positional() || names_default;
            assert!(is_clear, "{name} --{}: there is no default in {told:?}", arg.get_id());
        }
        let help = command.render_long_help().to_string();
        assert!(help.contains("Exit codes:"), "{name}:\n{help}");
    }
}

#[test]
fn the_help_names_every_setting_of_a_topic() {
    for command in ["create", "alter"] {
        let help = stdout(&ringmq(&["topic", command, "--help"]));
        for key in SettingKey::ALL {
            assert!(help.contains(key.name()), "{command}: {key}");
        }
    }
}

#[test]
fn every_command_that_talks_to_a_broker_has_the_same_flags_and_defaults() {
    let typed = parse(&["consume", "t"]).expect("valid");
    let Typed::Consume(args) = typed else { panic!("{typed:?}") };
    assert_eq!(args.connection.brokers.iter().map(ToString::to_string).collect::<Vec<_>>(), ["localhost:9092"]);
    assert_eq!(args.connection.timeout, Duration::from_secs(5));
    assert_eq!((args.from, args.format, args.follow, args.count), (Start::Earliest, RecordFormat::Text, false, None));

    let flags = ["--brokers", "a,b:1,[::1]:2", "--timeout", "1m30s"];
    let commands: [&[&str]; 11] = [
        &["stats"],
        &["topic", "create", "t"],
        &["topic", "list"],
        &["topic", "describe", "t"],
        &["topic", "alter", "t", "--partitions", "2"],
        &["topic", "trim", "t", "--before", "7"],
        &["topic", "delete", "t"],
        &["produce", "t"],
        &["consume", "t"],
        &["cluster", "describe"],
        &["run", "command.toml"],
    ];
    let has_brokers = |command: &clap::Command| command.get_arguments().any(|arg| arg.get_long() == Some("brokers"));
    let talking = leaves(&Cli::command(), "").into_iter().filter(|(_, command)| has_brokers(command));
    for (name, _) in talking.filter(|(_, command)| !command.is_hide_set()) {
        assert!(commands.iter().any(|words| words.join(" ").starts_with(&name)), "{name} is not here");
    }
    for command in commands {
        let all: Vec<_> = command.iter().chain(&flags).copied().collect();
        let typed = parse(&all).expect("valid");
        let connection = match &typed {
            // Without defaults: what its file says comes in between.
            Typed::Run(args) => {
                &ConnectionArgs { brokers: args.brokers.clone(), timeout: args.timeout.expect("given") }
            }
            Typed::Cluster(ClusterCommand::Describe(args)) => &args.connection,
            Typed::Topic(TopicCommand::Create(args)) => &args.connection,
            Typed::Topic(TopicCommand::List(args)) => &args.connection,
            Typed::Topic(TopicCommand::Describe(args)) => &args.connection,
            Typed::Topic(TopicCommand::Alter(args)) => &args.connection,
            Typed::Topic(TopicCommand::Trim(args)) => &args.connection,
            Typed::Topic(TopicCommand::Delete(args)) => &args.connection,
            Typed::Produce(args) => &args.connection,
            Typed::Stats(args) => &args.connection,
            Typed::Consume(args) => &args.connection,
            other => panic!("{other:?}"),
        };
        let brokers: Vec<_> = connection.brokers.iter().map(ToString::to_string).collect();
        assert_eq!(brokers, ["a:9092", "b:1", "[::1]:2"], "{command:?}");
        assert_eq!(connection.timeout, Duration::from_secs(90), "{command:?}");
    }
}

#[test]
fn the_reference_names_are_hidden_aliases() {
    let pairs: [(&[&str], &[&str]); 4] = [
        (&["create-topic", "t", "--partitions", "3"], &["topic", "create", "t", "--partitions", "3"]),
        (&["list-topics", "--output", "json"], &["topic", "list", "--output", "json"]),
        (&["describe-topic", "t"], &["topic", "describe", "t"]),
        (&["delete-topic", "t"], &["topic", "delete", "t"]),
    ];
    for (alias, command) in pairs {
        let alias_args = match parse(alias).expect("valid") {
            Typed::CreateTopic(args) => format!("{args:?}"),
            Typed::ListTopics(args) => format!("{args:?}"),
            Typed::DescribeTopic(args) => format!("{args:?}"),
            Typed::DeleteTopic(args) => format!("{args:?}"),
            other => panic!("{other:?}"),
        };
        let command_args = match parse(command).expect("valid") {
            Typed::Topic(TopicCommand::Create(args)) => format!("{args:?}"),
            Typed::Topic(TopicCommand::List(args)) => format!("{args:?}"),
            Typed::Topic(TopicCommand::Describe(args)) => format!("{args:?}"),
            Typed::Topic(TopicCommand::Delete(args)) => format!("{args:?}"),
            other => panic!("{other:?}"),
        };
        assert_eq!(alias_args, command_args);
    }
    let help = stdout(&ringmq(&["--help"]));
    for name in ["create-topic", "list-topics", "describe-topic", "delete-topic"] {
        assert!(!help.contains(name), "{name} is hidden:\n{help}");
    }
}

#[test]
fn produce_and_consume_take_what_scripts_use() {
    let typed = parse(&["produce", "t", "--partition", "2", "--key", "k", "--message", "m", "--count", "7"]);
    let Typed::Produce(args) = typed.expect("valid") else { panic!("produce") };
    assert_eq!((args.partition, args.key.as_deref()), (Some(2), Some("k")));
    assert_eq!((args.message.as_deref(), args.count, args.output.output), (Some("m"), 7, OutputFormat::Text));

    let typed = parse(&["produce", "t", "--key-separator", ":", "file.txt"]);
    let Typed::Produce(args) = typed.expect("valid") else { panic!("produce") };
    let separator = args.key_separator.expect("a separator");
    assert_eq!((separator.as_bytes(), args.file.to_str()), (&b":"[..], Some("file.txt")));
    assert_eq!((args.headers, args.null, args.compression), (vec![], None, Codec::None));

    let flags = ["produce", "t", "--header", "a=1=2", "--header", "b", "--header", "c=", "--null", r"\N"];
    let flags = [&flags[..], &["--compression", "lz4", "--key-separator", r"\t"]].concat();
    let Typed::Produce(args) = parse(&flags).expect("valid") else { panic!("produce") };
    let headers = [("a", Some("1=2")), ("b", None), ("c", Some(""))];
    assert_eq!(args.headers, headers.map(|(key, value)| (key.to_owned(), value.map(str::to_owned))));
    assert_eq!((args.null.as_deref(), args.compression), (Some(r"\N"), Codec::Lz4));
    assert_eq!(args.key_separator.expect("a separator").as_bytes(), b"\t");

    let flags = ["consume", "t", "--from", "@2025-11-22T14:00:00Z", "--count", "3", "--follow", "--format", "json"];
    let Typed::Consume(args) = parse(&flags).expect("valid") else { panic!("consume") };
    assert_eq!((args.from, args.count, args.follow), (Start::Time(Timestamp::new(1_763_820_000_000)), Some(3), true));
    assert_eq!(args.format, RecordFormat::Json);

    let flags = ["consume", "t", "--partition", "0,2-3", "--to", "17", "--resume", "p.json", "--format", r"%k\n"];
    let Typed::Consume(args) = parse(&flags).expect("valid") else { panic!("consume") };
    let partitions = args.partition.expect("a list");
    assert_eq!(partitions.as_slice().iter().map(|one| one.get()).collect::<Vec<_>>(), [0, 2, 3]);
    assert_eq!((args.to, args.resume), (Some(ConsumeTo::Offset(Offset::new(17))), Some("p.json".into())));
    assert_eq!(args.null, r"\N");
    assert!(matches!(args.format, RecordFormat::Template(_)));
}

#[test]
fn a_topic_is_altered_in_any_of_its_parts() {
    let flags =
        ["topic", "alter", "t", "--set", "a=1", "--unset", "b", "--set", "c = 2", "--unset", "d", "--partitions", "7"];
    let Typed::Topic(TopicCommand::Alter(args)) = parse(&flags).expect("valid") else { panic!("alter") };
    assert_eq!(args.set, [("a", "1"), ("c", "2")].map(|(key, value)| (key.to_owned(), value.to_owned())));
    assert_eq!((args.unset, args.partitions), (vec!["b".to_owned(), "d".to_owned()], Some(7)));
    parse(&["topic", "alter", "t", "--unset", "b"]).expect("one part is enough");
}

#[test]
fn a_topic_is_trimmed_before_an_offset_a_time_or_its_end() {
    for (before, expected) in [
        ("17", TrimBefore::Offset(Offset::new(17))),
        ("@1763820000000", TrimBefore::Time(Timestamp::new(1_763_820_000_000))),
        ("latest", TrimBefore::Latest),
    ] {
        let flags = ["topic", "trim", "t", "u", "--partition", "3", "--before", before];
        let Typed::Topic(TopicCommand::Trim(args)) = parse(&flags).expect("valid") else { panic!("trim") };
        assert_eq!((args.before, args.partition), (expected, Some("3".parse().expect("a list"))));
        assert_eq!(args.topics, ["t", "u"]);
    }
}

#[test]
fn what_contradicts_itself_is_refused() {
    let refused: [&[&str]; 25] = [
        &["topic", "trim", "t"],
        &["topic", "trim", "t", "--before", "earliest"],
        &["produce", "t", "--count", "2"],
        &["produce", "t", "--message", "m", "--count", "0"],
        &["produce", "t", "--message", "m", "file"],
        &["produce", "t", "--key", "k", "--key-separator", ":"],
        &["produce", "t", "--key-separator", ""],
        &["consume", "t", "--from", "yesterday"],
        &["produce", "t", "--key-separator", r"\q"],
        &["produce", "t", "--header", "=1"],
        &["produce", "t", "--compression", "rar"],
        &["consume", "t", "--to", "latest"],
        &["consume", "t", "--to", "@now"],
        &["consume", "t", "--to", "7", "--follow"],
        &["consume", "t", "--partition", "3-1"],
        &["consume", "t", "--format", "jsno"],
        &["consume", "t", "--format", "%q"],
        &["consume", "t", "--timeout", "0s"],
        &["consume", "t", "--timeout", "5"],
        &["consume", "t", "--brokers", "host:0"],
        &["topic", "create", "t", "--set", "novalue"],
        &["topic", "alter", "t"],
        &["topic", "alter", "t", "--set", "novalue"],
        &["topic", "alter", "t", "--partitions", "-1"],
        &["serve", "--cores", "1,1"],
    ];
    for args in refused {
        let output = ringmq(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains("error:"), "{args:?}: {}", stderr(&output));
    }
}

#[test]
fn brokers_come_from_the_environment_too() {
    let output = Command::new(env!("CARGO_BIN_EXE_ringmq"))
        .args(["topic", "list", "--timeout", "1s"])
        .env("RINGMQ_BROKERS", "127.0.0.1:1")
        .output()
        .expect("ringmq runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("127.0.0.1:1"), "{}", stderr(&output));
}

#[test]
fn the_version_names_the_commit() {
    let output = ringmq(&["--version"]);
    assert_eq!(stdout(&output).trim(), format!("ringmq {VERSION}"));
    assert!(VERSION.starts_with(env!("CARGO_PKG_VERSION")) && VERSION.contains("(commit "), "{VERSION}");
}

#[test]
fn help_lists_exit_codes_and_defaults() {
    let commands = [&["--help"][..], &["serve", "--help"], &["produce", "--help"], &["consume", "--help"]];
    for args in commands.into_iter().chain([
        &["doctor", "--help"][..],
        &["topic", "create", "--help"],
        &["topic", "alter", "--help"],
    ]) {
        let help = stdout(&ringmq(args));
        assert!(help.contains("Exit codes:"), "{args:?}:\n{help}");
    }
    let serve = stdout(&ringmq(&["serve", "--help"]));
    for default in ["127.0.0.1:9092", "./ringmq-data", "[default: all]", "--check", "SIGUSR1"] {
        assert!(serve.contains(default), "{default} is missing:\n{serve}");
    }
    let consume = stdout(&ringmq(&["consume", "--help"]));
    for word in ["localhost:9092", "5s", "RINGMQ_BROKERS", "earliest|latest|OFFSET|@TIME", "value_base64"] {
        assert!(consume.contains(word), "{word} is missing:\n{consume}");
    }
}
